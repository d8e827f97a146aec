//! What a play of the matrix led to, in the words of the table.

use std::fmt::Write as _;

use super::rows::{Cell, Gets, Spec};
use super::{Play, Played};
use crate::client::{Answer, End};
use crate::harness::{Finished, Row};

/// One play with what was seen of it.
#[derive(Debug)]
pub(super) struct Seen {
    play: Play,
    gets: Gets,
    outcome: String,
    legacy_asked: bool,
    /// What no cell may show.
    wrong: Vec<String>,
}

impl Seen {
    pub(super) fn of(played: Played, finished: &Finished) -> Self {
        let Played {
            play,
            answer,
            direct,
        } = played;
        let model = play.model();
        let is_ours = |row: &&Row| row.model.as_deref() == Some(model.as_str());
        let rows: Vec<_> = finished.rows.iter().filter(is_ours).collect();
        let live: Vec<_> = rows.iter().filter(|row| row.role == "live").collect();
        let asked = finished.legacy.requests();
        let legacy_asked = asked.iter().any(|request| request.json()["model"] == model);
        let mut wrong = Vec::new();
        let gets = gets(&answer, &mut wrong);
        if live.len() != 1 || live[0].arm != "canary" {
            wrong.push(format!("not one live sample of the canary: {rows:?}"));
        }
        let rescues = rows.iter().filter(|row| row.role == "rescue").count();
        if rescues != usize::from(legacy_asked) {
            wrong.push(format!("legacy's sample is missing: {rows:?}"));
        }
        if let (Ok(answer), Some(direct)) = (&answer, &direct)
            && answer.body != direct.body
            && direct.head.header("content-encoding").is_none()
        {
            wrong.push("the answer is not the canary's, byte for byte".to_owned());
        }
        Self {
            outcome: live
                .first()
                .map_or_else(String::new, |row| row.outcome.clone()),
            play,
            gets,
            legacy_asked,
            wrong,
        }
    }

    /// What differs from what the row demands.
    pub(super) fn difference(&self) -> Option<String> {
        let Cell { gets, outcome } = self.play.expected;
        let must_ask = gets == Gets::Rescue;
        let is_right = (self.gets, self.outcome.as_str(), self.legacy_asked)
            == (gets, outcome, must_ask)
            && self.wrong.is_empty();
        (!is_right).then(|| {
            format!(
                "{} ({}): expected {gets:?} {outcome}, saw {:?} {} (legacy asked: {}) {}",
                self.play.spec.title,
                self.play.model(),
                self.gets,
                self.outcome,
                self.legacy_asked,
                self.wrong.join("; "),
            )
        })
    }
}

fn gets(answer: &Result<Answer, End>, wrong: &mut Vec<String>) -> Gets {
    let answer = match answer {
        Ok(answer) => answer,
        Err(end) => {
            wrong.push(format!("no answer at all: {end:?}"));
            return Gets::Abort;
        }
    };
    let head = &answer.head;
    let text = String::from_utf8_lossy(&answer.body);
    for header in ["content-encoding", "x-fault"] {
        if head.header(header).is_some() {
            wrong.push(format!("{header} reached the client"));
        }
    }
    let provider = head.header("x-provider");
    match (provider, head.status, answer.end) {
        (Some("legacy"), 200, End::Clean) if text.contains("legacy") => Gets::Rescue,
        (Some("canary"), 200, End::Clean) if text.contains("stream_truncated") => Gets::ErrorEvent,
        (Some("canary"), 200, End::Clean) => Gets::Whole,
        (Some("canary"), 200, End::Closed | End::Reset) => {
            if !text.contains("canary") {
                wrong.push(format!("broken off before any content: {text}"));
            }
            Gets::Abort
        }
        (Some("canary"), status @ 400.., End::Clean) => Gets::Refusal(status),
        (None, status, End::Clean) => {
            if head.header("x-cutover-error").is_none() {
                wrong.push(format!("an error of nobody's: {head:?}"));
            }
            Gets::Own(status)
        }
        _ => {
            wrong.push(format!("unheard of: {answer:?}"));
            Gets::Abort
        }
    }
}

/// The table of these rows as it was seen, in Markdown.
pub(super) fn table(rows: &[(usize, &'static Spec)], seen: &[Seen]) -> String {
    let mut text = String::from(
        "| The canary | Dialects | Plain: the client gets | counted | Stream: the client gets | counted |\n\
         |---|---|---|---|---|---|\n",
    );
    for (number, spec) in rows {
        let cell = |streamed: bool| {
            let mut of_kind = seen
                .iter()
                .filter(|seen| seen.play.number == *number && seen.play.streamed == streamed);
            let Some(first) = of_kind.next() else {
                return "- | ".to_owned();
            };
            format!("{} | {}", first.gets, first.outcome)
        };
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            spec.title,
            spec.dialects,
            cell(false),
            cell(true)
        )
        .unwrap();
    }
    text
}

/// The whole page.
pub(super) fn document(rescued: &str, unrescued: &str) -> String {
    format!(
        "# The fault matrix\n\
        \n\
        What happens when the canary fails in each of these ways: what the client gets, and as what the\n\
        attempt is counted. This page is written by a test that plays every cell with the real daemon between\n\
        two scripted providers (`make fault-matrix` prints it, `cargo test --test it fault_matrix` compares).\n\
        \n\
        * **legacy's answer**: legacy was asked, and the client sees nothing of the failure. In all other cells\n\
        \x20 legacy was not asked.\n\
        * **passed on whole**: the canary's bytes, each of them.\n\
        * **breaks off**: content, and then a connection that is aborted, so that no SDK takes half an answer for\n\
        \x20 a whole one.\n\
        * **error event**: content, and then the dialect's own error event.\n\
        \n\
        Each cell is one live sample of the canary, and one of legacy if it was asked. Outcomes other than\n\
        `ok`, `client-error` and `rate-limited` (which has a guard of its own) are errors of the canary.\n\
        \n\
        ## With failover, as by default\n\
        \n\
        {rescued}\n\
        ## When nobody may help (`failover = false`)\n\
        \n\
        What can be tried again is tried twice more on the same arm first.\n\
        \n\
        {unrescued}"
    )
}
