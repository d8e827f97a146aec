use proptest::prelude::*;

use super::*;

const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}],\"usage\":null}\n\n";
const TOKEN: &str =
    "data:{\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{} \u{e9}\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const USAGE_EVENT: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";

/// Other shapes of the event that goes.
const GO: [&str; 5] = [
    USAGE_EVENT,
    "data:{\"usage\":{},\"choices\": [ ]}\n\n",
    "id: 7\nevent: message\ndata: {\"choices\":[],\ndata: \"usage\":{\"total_tokens\":1}}\nretry: 1\n\n",
    "event: x\n: a comment within\ndata: {\"error\":null,\"choices\":[],\"usage\":{\"a\":1}}\n\n",
    "data: {\"choices\":[],\"usage\":{\"a\":1},\"choices\":[]}\n\n",
];

/// Events that look like it, and whatever else streams hold.
const STAY: [&str; 14] = [
    ROLE,
    TOKEN,
    DONE,
    "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":1}}\n\n",
    "data: {\"choices\":[],\"usage\":null}\n\n",
    "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"a\":1},\"error\":{\"message\":\"x\"}}\n\n",
    "data: {\"usage\":{\"a\":1}}\n\n",
    "data: {\"choices\":[],\"usage\":{\"a\":1}}{\"choices\":[]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"a\":1}\n\n",
    ": {\"choices\":[],\"usage\":{\"a\":1}}\n\n",
    ": OPENROUTER PROCESSING\n",
    "\n",
    "event: error\ndata: \"usage\"\n\n",
];

fn strip<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut strip = UsageStrip::default();
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(&strip.feed(&Bytes::copy_from_slice(chunk)));
        assert!(strip.held_bytes() <= HELD_BYTES_MAX);
    }
    out.extend_from_slice(&strip.end());
    out
}

#[test]
fn exactly_the_usage_event_goes_wherever_chunks_and_lines_end() {
    for extra in GO {
        let given = [ROLE, TOKEN, extra, ": ping\n\n", extra, extra, DONE].concat();
        let expected = [ROLE, TOKEN, ": ping\n\n", DONE].concat();
        for line_end in ["\n", "\r\n", "\r"] {
            for begin in ["", "\u{feff}"] {
                let with = |text: &str| format!("{begin}{}", text.replace('\n', line_end));
                let (given, expected) = (with(&given), with(&expected));
                let check = |chunks: &[&[u8]]| {
                    let out = String::from_utf8(strip(chunks.iter().copied())).unwrap();
                    assert_eq!(out, expected, "{extra} {line_end:?}");
                };
                check(&[given.as_bytes()]);
                check(
                    &given
                        .as_bytes()
                        .chunks(1)
                        .flat_map(|byte| [byte, b""])
                        .collect::<Vec<_>>(),
                );
                for at in 0..given.len() {
                    let (a, b) = given.as_bytes().split_at(at);
                    check(&[a, b]);
                }
            }
        }
    }
}

#[test]
fn a_usage_event_that_lacks_its_end_goes_at_the_end_of_the_body() {
    for cut in [1, 2] {
        let last = USAGE_EVENT.split_at(USAGE_EVENT.len() - cut).0;
        let given = [TOKEN, last].concat();
        assert_eq!(strip(given.as_bytes().chunks(5)), TOKEN.as_bytes());
    }
    let half = [TOKEN, USAGE_EVENT.split_at(40).0].concat();
    assert_eq!(strip([half.as_bytes()]), half.as_bytes());
}

#[test]
fn whole_events_and_comments_never_wait_and_unchanged_chunks_are_not_copied() {
    let mut strip = UsageStrip::default();
    for text in [TOKEN, ": ping\n", "\n", "\r\n", ROLE, "data: x\r\n\r\n"] {
        let chunk = Bytes::from_static(text.as_bytes());
        let passed = strip.feed(&chunk);
        assert_eq!(
            (passed.as_ptr(), passed.len()),
            (chunk.as_ptr(), chunk.len()),
            "{text}"
        );
    }
    assert_eq!(
        strip.feed(&Bytes::from_static(b"data: a\n\ndata: ")),
        "data: a\n\n"
    );
    assert_eq!(strip.held_bytes(), 6);
}

#[test]
fn an_event_over_the_bound_passes_as_it_comes_and_the_next_one_is_looked_at() {
    let long = "x".repeat(3 * HELD_BYTES_MAX);
    let huge = format!("data: {{\"choices\":[],\"x\":\"{long}\",\"usage\":{{\"a\":1}}}}\n\n");
    let given = [TOKEN, &huge, USAGE_EVENT, DONE].concat();
    let expected = [TOKEN, &huge, DONE].concat();
    for size in [1, 1_000, 10_000] {
        assert!(
            strip(given.as_bytes().chunks(size)) == expected.as_bytes(),
            "{size}"
        );
    }
}

#[test]
fn a_refusal_is_known_by_the_words_it_names() {
    for (body, expected) in [
        (
            r#"{"error":{"message":"Unknown parameter: 'stream_options'."}}"#,
            true,
        ),
        (
            r#"{"detail":[{"loc":["body","stream_options","include_usage"]}]}"#,
            true,
        ),
        (
            r#"{"error":{"message":"include_usage is not supported"}}"#,
            true,
        ),
        (
            r#"{"error":{"message":"Unknown parameter: 'logprobs'."}}"#,
            false,
        ),
        ("", false),
    ] {
        assert_eq!(names_usage_option(body.as_bytes()), expected, "{body}");
    }
}

proptest! {
    #[test]
    fn what_goes_does_not_depend_on_how_the_bytes_are_split(
        pieces in prop::collection::vec(prop_oneof![
            3 => prop::sample::select(&STAY[..]).prop_map(|text| (text, true)),
            1 => prop::sample::select(&GO[..]).prop_map(|text| (text, false)),
        ], 0..12),
        line_end in prop::sample::select(&["\n", "\r\n", "\r"][..]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let text = |stays_only: bool| {
            let kept = pieces.iter().filter(|(_, stays)| *stays || !stays_only);
            kept.map(|(text, _)| text.replace('\n', line_end)).collect::<String>()
        };
        let (given, expected) = (text(false), text(true));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(given.len() + 1)).collect();
        cuts.extend([0, given.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|pair| &given.as_bytes()[pair[0]..pair[1]]);
        prop_assert_eq!(String::from_utf8(strip(chunks)).unwrap(), expected);
    }

    #[test]
    fn any_bytes_give_the_same_whole_and_in_single_bytes(
        stream in prop::collection::vec(prop_oneof![
            prop::sample::select(&b"\r\n: ad"[..]),
            any::<u8>(),
        ], 0..300),
    ) {
        prop_assert_eq!(strip([stream.as_slice()]), strip(stream.chunks(1)));
    }
}
