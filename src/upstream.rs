//! The upstream side: where an arm is, how to connect to it, and which connections are open.
//!
//! One [`pool::Pool`] per worker and arm. Threads share the immutable [`target::Target`], the one word of
//! the [`breaker::Breaker`], what was learned of an arm ([`habits::Habits`]), the [`headroom::Gauges`], and
//! the [`limit::Limit`] of an arm that has one. [`post`] is for the side doors: one
//! message to a receiver that is no arm. It may open sockets and resolve names. It must never decide
//! which arm a request goes to.

mod addresses;
pub mod alarm;
pub mod body;
pub mod breaker;
pub mod connection;
mod dial;
pub mod habits;
pub mod headroom;
pub mod limit;
pub mod pace;
pub mod pieces;
pub mod pool;
pub mod post;
pub mod shared;
pub mod socket;
pub mod target;
pub mod via;
pub mod warm;
