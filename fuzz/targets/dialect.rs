//! What holds for the answers of every dialect, whatever bytes they are.

use std::collections::BTreeSet;

use bytes::Bytes;
use cutover::llm::{self, Dialect, ModelEcho, StreamWatch, UsageStrip};
use cutover::outcome::Outcome;

/// Pieces of the data, cut where its own first bytes say.
pub fn pieces(data: &[u8]) -> Vec<&[u8]> {
    let mut rest = data;
    let mut pieces = Vec::new();
    for turn in 0.. {
        if rest.is_empty() {
            break;
        }
        let step = usize::from(data.get(turn % 16).copied().unwrap_or(1) % 23) + 1;
        let (piece, after) = rest.split_at(step.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// All that a watch can tell, in words.
fn facts(mut watch: StreamWatch) -> String {
    let before = format!(
        "{} {} {:?} {:?} {}",
        watch.has_content(),
        watch.is_terminated(),
        watch.error(),
        watch.usage(),
        watch.unread_events(),
    );
    let outcome = watch.finish(true);
    assert_ne!(outcome, Outcome::Other);
    format!("{before} {outcome} {:?}", watch.usage())
}

/// A stream is read alike however it is cut, and the name of the model is put back without loss.
pub fn read_stream(dialect: Dialect, data: &[u8]) {
    let mut whole = StreamWatch::new(dialect);
    whole.feed(data);
    let mut cut = StreamWatch::new(dialect);
    for piece in pieces(data) {
        cut.feed(piece);
    }
    assert_eq!(facts(whole), facts(cut));
    assert_eq!(ids(dialect, &[data]), ids(dialect, &pieces(data)));
    echo(dialect, true, data);
    strip(data);
}

/// The state that a stream gives out, cut like this.
fn ids(dialect: Dialect, pieces: &[&[u8]]) -> BTreeSet<u64> {
    let mut watch = StreamWatch::learning(dialect);
    let mut ids = BTreeSet::new();
    for piece in pieces {
        watch.feed(piece);
        ids.extend(watch.take_ids());
    }
    watch.finish(true);
    ids.extend(watch.take_ids());
    ids
}

/// The usage event is taken out alike however the stream is cut, and nothing else is.
fn strip(data: &[u8]) {
    let stripped = |pieces: &[&[u8]]| {
        let mut strip = UsageStrip::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&strip.feed(&Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&strip.end());
        out
    };
    let whole = stripped(&[data]);
    assert_eq!(whole, stripped(&pieces(data)), "the cut matters");
    let names_usage = data.windows(7).any(|window| window == b"\"usage\"");
    assert!(names_usage || whole == data, "bytes were changed");
}

/// A whole answer is read, by its status, without a fault of ours.
pub fn read_plain(dialect: Dialect, data: &[u8]) {
    for content_type in [None, Some("application/json"), Some("text/html")] {
        let facts = llm::read_plain(dialect, 200, content_type, data);
        assert_ne!(facts.outcome, Outcome::Internal);
    }
    for status in [400, 401, 402, 404, 413, 429, 500, 529] {
        let outcome = llm::classify_status(Some(dialect), status, true, Some(data));
        assert_ne!(outcome, Outcome::Ok, "{status}");
        let outcome = llm::with_clients_own_key(outcome);
        assert!(!matches!(outcome, Outcome::Auth | Outcome::Quota));
    }
    std::hint::black_box(llm::ids_of_answer(Some(dialect), data));
    echo(dialect, false, data);
}

fn echo(dialect: Dialect, streamed: bool, data: &[u8]) {
    let put_back = |pieces: &[&[u8]]| {
        let mut echo = ModelEcho::new(dialect, streamed, "the-clients-name");
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&echo.feed(&Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&echo.end());
        out
    };
    let whole = put_back(&[data]);
    assert_eq!(whole, put_back(&pieces(data)), "the cut matters");
    let names_model = data.windows(7).any(|window| window == b"\"model\"");
    assert!(names_model || whole == data, "bytes were changed");
}
