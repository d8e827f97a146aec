//! Following a list of the admin API, as `tail -f` follows a file: each row once, whatever the daemon does.
//!
//! Ids only grow, so the last one that was shown says what is new. A daemon that restarts keeps them; a
//! list that begins again below it is another one and is shown from its start. An empty answer says nothing:
//! the daemon ends a long search for rare rows early.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::Failure;
use super::client::{AdminClient, Asked};
use super::fields::text;
use crate::stdout;

/// How often the daemon is asked.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Rows in one answer at most, as the API has it.
const PAGE: u32 = 1_000;
/// Pages that one look reads at most: whoever falls behind further is told of the gap.
const PAGES: usize = 20;

/// A list of the admin API.
#[derive(Debug)]
pub(super) struct List {
    /// Its path with a query; `limit` and `before` are added.
    pub(super) path: String,
    /// The field of the answer that holds the rows, newest first.
    pub(super) field: &'static str,
}

impl List {
    /// The path of the newest rows, or of those before an id.
    pub(super) fn page(&self, limit: u32, before: Option<i64>) -> String {
        let mark = if self.path.contains('?') { '&' } else { '?' };
        let before = before.map_or_else(String::new, |id| format!("&before={id}"));
        format!("{}{mark}limit={limit}{before}", self.path)
    }

    /// The rows of an answer, newest first.
    pub(super) fn rows(&self, mut answer: Value) -> Vec<Value> {
        match answer.get_mut(self.field).map(Value::take) {
            Some(Value::Array(rows)) => rows,
            _ => Vec::new(),
        }
    }
}

/// What was shown so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    last: Option<i64>,
}

/// What one page holds that was not shown.
#[derive(Debug, PartialEq)]
struct Unseen {
    /// Newest first.
    rows: Vec<Value>,
    /// There may be more before them.
    goes_on: bool,
}

impl Shown {
    /// Forgets what was shown if the list begins again below it.
    fn is_another(&mut self, newest: Option<i64>) -> bool {
        let is_another = newest < self.last && newest.is_some();
        if is_another {
            self.last = None;
        }
        is_another
    }

    fn unseen(&self, page: Vec<Value>, limit: u32) -> Unseen {
        let is_full = page.len() >= limit as usize;
        let mut rows = page;
        let before = rows.len();
        rows.retain(|row| self.last.is_none_or(|last| id_of(row) > last));
        Unseen {
            goes_on: is_full && rows.len() == before && self.last.is_some(),
            rows,
        }
    }
}

fn id_of(row: &Value) -> i64 {
    row.get("id").and_then(Value::as_i64).unwrap_or(0)
}

/// Shows rows as they come until nobody reads them any more. `first` limits the rows of the first look.
pub(super) fn follow(
    client: &AdminClient,
    list: &List,
    first: u32,
    show: impl Fn(&Value) -> String,
) -> Result<(), Failure> {
    let mut shown = Shown::default();
    let mut lost = Lost::default();
    let mut is_first = true;
    loop {
        let limit = if is_first { first.min(PAGE) } else { PAGE };
        match look(client, list, &mut shown, limit) {
            Ok((rows, said)) => {
                lost.is_back();
                // What the rows do not say by themselves, once.
                if let Some(said) = said.filter(|_| is_first) {
                    note(&said);
                }
                is_first = false;
                if !print(rows.iter().map(&show)) {
                    return Ok(());
                }
            }
            Err(Asked::Gone(failure)) if !is_first => lost.tell(&failure),
            Err(Asked::Gone(failure) | Asked::Refused(failure)) => return Err(failure),
        }
        std::thread::sleep(EVERY);
    }
}

/// The rows that were not shown yet, oldest first, and the daemon's note.
fn look(
    client: &AdminClient,
    list: &List,
    shown: &mut Shown,
    limit: u32,
) -> Result<(Vec<Value>, Option<String>), Asked> {
    let ask = |before| client.try_ask(&Method::GET, &list.page(limit, before), None);
    let mut rows: Vec<Value> = Vec::new();
    let answer = ask(None)?;
    let said = text(&answer, "/note").map(str::to_owned);
    let mut page = list.rows(answer);
    if shown.is_another(page.first().map(id_of)) {
        note("this is another list: its ids begin again");
    }
    for _ in 0..PAGES {
        let unseen = shown.unseen(page, limit);
        rows.extend(unseen.rows);
        if !unseen.goes_on {
            break;
        }
        page = list.rows(ask(rows.last().map(id_of))?);
        if page.is_empty() {
            break;
        }
    }
    if rows.len() >= PAGES * PAGE as usize {
        note("too many at once: the oldest of them are not shown");
    }
    if let Some(newest) = rows.first() {
        shown.last = Some(id_of(newest));
    }
    rows.reverse();
    Ok((rows, said))
}

/// False when standard output was closed.
fn print(lines: impl Iterator<Item = String>) -> bool {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    stdout::try_raw(&text)
}

/// Says once that the daemon is gone, and once that it is back.
#[derive(Debug, Default)]
pub(super) struct Lost(bool);

impl Lost {
    /// The daemon did not answer.
    pub(super) fn tell(&mut self, failure: &Failure) {
        if !self.0 {
            note(&format!("{}; trying again", failure.message()));
        }
        self.0 = true;
    }

    /// It did.
    pub(super) fn is_back(&mut self) {
        if self.0 {
            note("the daemon answers again");
        }
        self.0 = false;
    }
}

#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
fn note(text: &str) {
    eprintln!("cutover: {}", super::harmless::line(text));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(ids: &[i64]) -> Vec<Value> {
        ids.iter().map(|id| json!({ "id": id })).collect()
    }

    /// What was shown last, a page, what of it is new, and whether there may be more.
    type Case = (Option<i64>, &'static [i64], &'static [i64], bool);

    #[test]
    fn each_row_is_shown_once() {
        let shown = |last| Shown { last };
        let cases: [Case; 7] = [
            // The first look shows the newest and asks for no more.
            (None, &[9, 8, 7], &[9, 8, 7], false),
            (None, &[], &[], false),
            (Some(9), &[9, 8, 7], &[], false),
            (Some(8), &[9, 8, 7], &[9], false),
            // A full page of new rows: older ones may be new as well.
            (Some(6), &[9, 8, 7], &[9, 8, 7], true),
            (Some(2), &[9, 8, 7], &[9, 8, 7], true),
            (Some(2), &[9, 8], &[9, 8], false),
        ];
        for (last, page, expected, goes_on) in cases {
            let unseen = shown(last).unseen(rows(page), 3);
            let expected = Unseen {
                rows: rows(expected),
                goes_on,
            };
            assert_eq!(unseen, expected, "{last:?} {page:?}");
        }
    }

    #[test]
    fn a_list_that_begins_again_is_shown_from_its_start() {
        for (last, newest, expected) in [
            (None, None, false),
            (None, Some(3), false),
            (Some(3), Some(3), false),
            (Some(3), Some(5), false),
            (Some(3), Some(1), true),
            // A search that ended early found none.
            (Some(3), None, false),
        ] {
            let mut shown = Shown { last };
            assert_eq!(shown.is_another(newest), expected, "{last:?} {newest:?}");
            assert_eq!(shown.last.is_none(), expected || last.is_none());
        }
    }

    #[test]
    fn pages_keep_the_filters() {
        let list = |path: &str| List {
            path: path.to_owned(),
            field: "rows",
        };
        assert_eq!(list("/a").page(5, None), "/a?limit=5");
        assert_eq!(
            list("/a?arm=canary").page(5, Some(7)),
            "/a?arm=canary&limit=5&before=7"
        );
        assert_eq!(list("/a").rows(json!({ "rows": [1] })), vec![json!(1)]);
        assert!(list("/a").rows(json!({ "rows": null })).is_empty());
    }
}
