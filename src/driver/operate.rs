//! What the admin port asks of the driver, and what it gets back.

use std::fmt;

use http::StatusCode;
use serde::Serialize;
use tokio::sync::oneshot;

use super::metrics::Snapshot;
use super::status::Status;
use crate::controller::step::Command;

/// A question or a command for the driver.
#[derive(Debug)]
pub enum Request {
    /// The live status.
    Status(oneshot::Sender<Status>),
    /// The counters.
    Metrics(oneshot::Sender<Snapshot>),
    /// An operator's command.
    Operate {
        /// The rollout's name; "" when there is only one.
        rollout: String,
        /// What to do.
        command: Command,
        /// Where the answer goes, once the command holds or is refused.
        reply: Reply,
    },
}

/// Where the answer to a command goes.
pub type Reply = oneshot::Sender<Result<Operated, Refusal>>;

/// A command that holds now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operated {
    /// The rollout.
    pub rollout: String,
    /// What was decided; `null` if the rollout was like that already.
    pub kind: Option<&'static str>,
    /// The decision's id; `null` while the store cannot record it.
    pub decision: Option<i64>,
    /// The effective weight after it.
    pub weight: f64,
    /// The line of the decision log.
    pub message: String,
}

/// Why a command was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such rollout; the text lists those there are.
    UnknownRollout(String),
    /// Not in this state; the text says what to do instead.
    NotNow(String),
    /// A raise needs a record first, and the store cannot write.
    StoreFailing(String),
}

impl Refusal {
    /// The HTTP status of the refusal.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::UnknownRollout(_) => StatusCode::NOT_FOUND,
            Self::NotNow(_) => StatusCode::CONFLICT,
            Self::StoreFailing(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRollout(known) => write!(f, "no such rollout; there is {known}"),
            Self::NotNow(why) => f.write_str(why),
            Self::StoreFailing(why) => {
                write!(
                    f,
                    "the store cannot record it, so the weight does not rise: {why}"
                )
            }
        }
    }
}

/// Answers a command that holds. A caller that went away needs no answer.
pub(super) fn accept(reply: Reply, done: Operated) {
    drop(reply.send(Ok(done)));
}

/// Answers a command that was not taken.
pub(super) fn refuse(reply: Option<Reply>, refusal: Refusal) {
    if let Some(reply) = reply {
        drop(reply.send(Err(refusal)));
    }
}
