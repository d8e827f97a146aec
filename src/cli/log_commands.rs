//! `cutover decisions` and `cutover requests`: what was decided, and what became of requests.

use clap::Args;
use clap::builder::PossibleValuesParser;
use http::Method;
use serde_json::Value;

use super::client::AdminClient;
use super::fields::{encoded, text};
use super::follow::{self, List};
use super::paint::Paint;
use super::{AdminArgs, Failure, harmless, log_table, rollout_commands};
use crate::arm::Arm;
use crate::outcome::Outcome;
use crate::stdout;

/// What `cutover decisions` shows.
#[derive(Debug, Args)]
pub(super) struct DecisionsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only this rollout
    #[arg(long, value_name = "NAME")]
    rollout: Option<String>,
    /// At most this many; with --follow so many of those before
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Print new ones as they come, until Ctrl-C; with --json one object per line
    #[arg(long, short)]
    follow: bool,
}

/// What `cutover requests` shows.
#[derive(Debug, Args)]
pub(super) struct RequestsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only what failed: every outcome but `ok`
    #[arg(long)]
    failed: bool,
    /// Only this arm
    #[arg(long, value_parser = PossibleValuesParser::new(Arm::BOTH.map(Arm::as_str)))]
    arm: Option<String>,
    /// Only this outcome
    #[arg(long, value_parser = PossibleValuesParser::new(Outcome::ALL.map(Outcome::as_str)))]
    outcome: Option<String>,
    /// Only this rollout
    #[arg(long, value_name = "NAME")]
    rollout: Option<String>,
    /// At most this many; with --follow so many of those before
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Print new ones as they come, until Ctrl-C; with --json one object per line
    #[arg(long, short)]
    follow: bool,
}

/// `cutover decisions`
pub(super) fn decisions(args: &DecisionsArgs) -> Result<(), Failure> {
    let list = List {
        path: with_query("/api/v1/decisions", &[("rollout", args.rollout.as_deref())]),
        field: "decisions",
    };
    let paint = Paint::stdout();
    let show = |row: &Value| log_table::decision(row, paint);
    Shown {
        admin: &args.admin,
        list,
        limit: args.limit,
        follow: args.follow,
        none: "no decisions yet",
        header: None,
    }
    .run(show)
}

/// `cutover requests`
pub(super) fn requests(args: &RequestsArgs) -> Result<(), Failure> {
    let query = [
        ("arm", args.arm.as_deref()),
        ("outcome", args.outcome.as_deref()),
        ("rollout", args.rollout.as_deref()),
        ("failed", args.failed.then_some("true")),
    ];
    let list = List {
        path: with_query("/api/v1/requests", &query),
        field: "requests",
    };
    let paint = Paint::stdout();
    let show = |row: &Value| log_table::request(row, paint);
    Shown {
        admin: &args.admin,
        list,
        limit: args.limit,
        follow: args.follow,
        none: "no such requests",
        header: Some(log_table::request_header(paint)),
    }
    .run(show)
}

fn with_query(path: &str, query: &[(&str, Option<&str>)]) -> String {
    let mut path = path.to_owned();
    let given = query
        .iter()
        .filter_map(|(name, value)| Some((name, (*value)?)));
    for ((name, value), mark) in given.zip(std::iter::once('?').chain(std::iter::repeat('&'))) {
        path.push_str(&format!("{mark}{name}={}", encoded(value)));
    }
    path
}

/// A list and how it is shown.
struct Shown<'a> {
    admin: &'a AdminArgs,
    list: List,
    limit: u32,
    follow: bool,
    none: &'static str,
    header: Option<String>,
}

impl Shown<'_> {
    fn run(self, show: impl Fn(&Value) -> String) -> Result<(), Failure> {
        let client = AdminClient::new(self.admin)?;
        let is_json = self.admin.json;
        let header = self.header.filter(|_| !is_json);
        let as_line = |row: &Value| {
            if is_json {
                harmless::json(&row.to_string())
            } else {
                show(&harmless::answer(row.clone()))
            }
        };
        if self.follow {
            if let Some(header) = header {
                stdout::line(&header);
            }
            return follow::follow(&client, &self.list, self.limit, as_line);
        }
        let answer = client.ask(&Method::GET, &self.list.page(self.limit, None), None)?;
        if is_json {
            rollout_commands::print_json(&answer);
            return Ok(());
        }
        let note = text(&answer, "/note").map(harmless::line);
        let rows = self.list.rows(answer);
        match (header, rows.is_empty()) {
            (_, true) => stdout::line(self.none),
            (Some(header), false) => stdout::line(&header),
            (None, false) => {}
        }
        let lines: Vec<String> = rows.iter().rev().map(as_line).collect();
        stdout::raw(
            &lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        );
        if let Some(note) = note {
            stdout::line(&format!("note: {note}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_only_what_was_asked_for() {
        assert_eq!(with_query("/r", &[("arm", None), ("failed", None)]), "/r");
        let query = [
            ("arm", Some("canary")),
            ("outcome", None),
            ("rollout", Some("a&b")),
        ];
        assert_eq!(with_query("/r", &query), "/r?arm=canary&rollout=a%26b");
    }
}
