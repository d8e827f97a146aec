//! The data plane. Life of a request:
//!
//! 1. `listener` accepts the connection and hands it to the worker with the fewest connections; `serve`
//!    makes TLS and HTTP/1.1 or HTTP/2 of it.
//! 2. `refuse` turns away what is malformed or dangerous, in the client's dialect.
//! 3. `handle` reads an eligible body (bounded), and `assign` chooses the arm.
//! 4. `attempt` sends it, rewritten by `rewrite`, and looks at what comes back, as `receive` says by its
//!    head, before any content reaches the client.
//! 5. `tries` asks `failover` whether the other arm, or the same one again, may give a better answer, and
//!    pays for it from the worker's `budget`.
//! 6. `answer` passes the answer on, chunk by chunk, decoded by `inflate` if the arm compressed it, metered,
//!    edited by `edit`, and timed by `limits`; exactly one sample leaves per attempt.
//!
//! `clients` lets in only those who have a key, if the configuration names clients, and no more often than their
//! `rate`. `include_usage` asks a stream's arm for its token counts where the client did not.
//!
//! Everything here runs on one thread per worker and shares nothing mutable with other threads. It must
//! never wait for the store, the driver or an alert.

pub mod answer;
pub mod assign;
pub mod attempt;
pub mod budget;
pub(crate) mod client_io;
pub mod clients;
pub mod edit;
pub mod failover;
pub mod gauges;
pub mod handle;
mod head_timer;
mod include_usage;
pub mod inflate;
pub mod learner;
pub mod limits;
pub mod listener;
pub mod places;
pub mod plane;
pub mod rate;
mod read;
mod receive;
pub mod refuse;
pub mod rewrite;
mod route;
mod serve;
pub mod span;
mod streams;
mod tries;
