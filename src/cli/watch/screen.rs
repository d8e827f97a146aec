//! What the screen knows: the latest status, whether it is still true, and what a person is about to do.
//!
//! Pure: news and keys go in, and the time with them. `keys` says what a key does, `view` how it looks.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use serde_json::Value;

use super::feed::News;
use super::order::{self, Action};
use crate::arm::Weight;
use crate::cli::fields::{array, float_at, word};
use crate::clock::UnixMillis;

/// Everything that is shown.
#[derive(Debug, Clone)]
pub(super) struct Screen {
    /// Where the daemon is asked.
    pub(super) addr: String,
    /// The latest status.
    pub(super) status: Option<Value>,
    /// The latest decisions, newest first, of each rollout that was looked at.
    pub(super) decisions: BTreeMap<String, Vec<Value>>,
    /// Which rollout is shown.
    pub(super) selected: usize,
    /// How many of its decisions are scrolled past.
    pub(super) scroll: usize,
    /// When the daemon answered last; the start, before it ever did.
    pub(super) heard_at: UnixMillis,
    /// Why it does not answer now.
    pub(super) lost: Option<String>,
    /// What lies over the picture.
    pub(super) mode: Mode,
    /// What became of the latest order.
    pub(super) answer: Option<Answer>,
}

/// What lies over the picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mode {
    /// Nothing.
    Look,
    /// The explanation of keys and words.
    Help,
    /// A question before an order.
    Ask(Prompt),
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// How it ended.
    pub(super) end: End,
    /// In the daemon's own words.
    pub(super) text: String,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It did not yet.
    Open,
    /// It was taken.
    Done,
    /// It was not.
    Refused,
    /// Nobody answered: it may have been taken all the same.
    Unknown,
}

/// An order that is being written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prompt {
    /// What to do.
    pub(super) action: Action,
    /// With which rollout. It stays this one, whatever is selected later.
    pub(super) rollout: String,
    /// What is typed.
    pub(super) field: Field,
    /// The share, as typed.
    pub(super) weight: String,
    /// The reason, as typed.
    pub(super) reason: String,
    /// What was true when the person read it.
    pub(super) seen: Seen,
    /// What stands in the way.
    pub(super) note: Option<String>,
}

/// The line of a prompt that takes what is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// The share.
    Weight,
    /// The reason.
    Reason,
}

/// What an order that raises the weight is based on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    state: String,
    weight: Option<f64>,
    stood: Option<f64>,
    lifts_a_hold: bool,
}

impl Seen {
    /// What is true now.
    pub(super) fn of(rollout: &Value) -> Self {
        Self {
            state: word(rollout, "/state").to_owned(),
            weight: float_at(rollout, "/weight"),
            stood: float_at(rollout, "/stage/weight"),
            lifts_a_hold: order::lifts_a_hold(rollout),
        }
    }
}

impl Prompt {
    /// The share, if what is typed is one. The percent sign may be left out.
    pub(super) fn parsed_weight(&self) -> Result<Option<Weight>, String> {
        if self.action != Action::SetWeight {
            return Ok(None);
        }
        let typed = self.weight.trim().trim_end_matches('%').trim_end();
        Weight::parse(&format!("{typed}%")).map(Some)
    }
}

impl Screen {
    /// Before the first answer.
    pub(super) fn new(addr: &str, now: UnixMillis) -> Self {
        Self {
            addr: addr.to_owned(),
            status: None,
            decisions: BTreeMap::new(),
            selected: 0,
            scroll: 0,
            heard_at: now,
            lost: None,
            mode: Mode::Look,
            answer: None,
        }
    }

    /// Takes what the feed tells.
    pub(super) fn hear(&mut self, news: News, now: UnixMillis) {
        match news {
            News::Status(status) => {
                let name = self
                    .rollout()
                    .map(|rollout| word(rollout, "/name").to_owned());
                self.status = Some(status);
                // A reload may change the list: the one that is looked at stays.
                let names = self.rollouts().iter().map(|rollout| word(rollout, "/name"));
                let place = names
                    .into_iter()
                    .position(|found| Some(found) == name.as_deref());
                self.selected = place.unwrap_or(0);
                self.heard_at = now;
                self.lost = None;
            }
            News::Decisions(rollout, decisions) => {
                self.decisions.insert(rollout, decisions);
            }
            News::Lost(why) => self.lost = Some(why),
            News::Answered(answer) => self.answer = Some(answer),
            News::End => {}
        }
    }

    /// All rollouts.
    pub(super) fn rollouts(&self) -> &[Value] {
        self.status
            .as_ref()
            .map_or(&[], |status| array(status, "/rollouts"))
    }

    /// The rollout that is shown.
    pub(super) fn rollout(&self) -> Option<&Value> {
        self.rollouts().get(self.selected)
    }

    /// A rollout by its name.
    pub(super) fn rollout_named(&self, name: &str) -> Option<&Value> {
        self.rollouts()
            .iter()
            .find(|rollout| word(rollout, "/name") == name)
    }

    /// The decisions of the rollout that is shown, newest first; `None` before they were read.
    pub(super) fn own_decisions(&self) -> Option<&[Value]> {
        let name = word(self.rollout()?, "/name");
        self.decisions.get(name).map(Vec::as_slice)
    }
}
