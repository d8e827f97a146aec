//! The main job on one machine: two stand-in providers, traffic from made-up callers, and a rollout.
//!
//! Runs beside the real daemon and only talks to it as outsiders do, over sockets. It must never hold a
//! real key or leave the loopback interface.

pub mod load;
pub mod standin;
