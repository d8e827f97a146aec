//! cutover moves production LLM traffic from one provider to another and proves each step.
//!
//! Reading the modules in the order below follows a request, then a decision, then the side doors.
//!
//! **Words shared by all:** [`arm`], [`clock`], [`outcome`], [`sample`], [`sketch`].
//! **Data plane** (one thread per worker, waits for nothing but the peers): [`config`], [`proxy`],
//! [`upstream`], [`llm`], [`meter`], [`learned`], [`recorder`].
//! **Control plane** (one driver, pure decisions): [`controller`], [`driver`], [`weights`], [`store`].
//! **Side doors:** [`admin`], [`alert`], [`backtest`], [`chart`], [`cli`], [`demo`], [`report`], [`simulate`],
//! [`telemetry`], [`service`]. [`app`] wires all of it.

pub mod arm;
pub mod clock;
pub mod outcome;
pub mod sample;
pub mod sketch;

pub mod config;

pub mod learned;
pub mod llm;
pub mod meter;
pub mod proxy;
pub mod recorder;
pub mod upstream;

pub mod controller;
pub mod driver;
pub mod store;
pub mod weights;

pub mod admin;
pub mod alert;
pub mod app;
pub mod backtest;
pub mod chart;
pub mod cli;
pub mod demo;
pub mod report;
pub mod service;
pub mod simulate;
mod stdout;
pub mod telemetry;
pub mod trace;
