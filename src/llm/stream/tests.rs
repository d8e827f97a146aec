use proptest::prelude::*;

use super::super::sse::EVENT_BYTES_MAX;
use super::super::{error_event, with_clients_own_key};
use super::Dialect::{
    AnthropicMessages as Messages, OpenAiChat as Chat, OpenAiCompletions as Completions,
    OpenAiResponses as Responses,
};
use super::*;

mod ends;

const CHAT: &str = concat!(
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"xyz\"}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo \u{e9}\u{1f600}\"},\"finish_reason\":null}],\"usage\":null}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
    "data: [DONE]\n\n",
);

const MESSAGES: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg\",\"role\":\"assistant\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"input_tokens\":0,\"output_tokens\":15}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

const RESPONSES: &str = concat!(
    "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"status\":\"in_progress\",\"output\":[],\"usage\":null,\"error\":null}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":4,\"delta\":\"Hi\"}\n\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":9,\"response\":{\"id\":\"r\",\"status\":\"completed\",\"error\":null,\"output\":[{\"type\":\"message\"}],\"usage\":{\"input_tokens\":37,\"input_tokens_details\":{\"cached_tokens\":7},\"output_tokens\":11}}}\n\n",
);

/// All that a watch can tell at the end of a stream.
type Facts = (Outcome, bool, bool, Option<Usage>);

fn watch<'a>(
    dialect: Dialect,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    clean_end: bool,
) -> Facts {
    let mut watch = StreamWatch::new(dialect);
    for chunk in chunks {
        watch.feed(chunk);
    }
    let outcome = watch.finish(clean_end);
    (
        outcome,
        watch.has_content(),
        watch.is_terminated(),
        watch.usage(),
    )
}

const fn usage(input: u32, cached: u32, write: u32, output: u32) -> Option<Usage> {
    Some(Usage {
        input_tokens: input,
        cached_input_tokens: cached,
        cache_write_tokens: write,
        output_tokens: output,
        cache_write_1h_tokens: 0,
    })
}

/// The stream gives these facts whole, byte by byte, and with every usual line end.
fn check(dialect: Dialect, stream: &str, expected: Facts) {
    for ending in ["\n", "\r\n", "\r"] {
        let stream = stream.replace('\n', ending);
        let bytes = stream.as_bytes();
        assert_eq!(watch(dialect, [bytes], true), expected, "{stream}");
        let single = watch(dialect, bytes.chunks(1), true);
        assert_eq!(single, expected, "byte by byte: {stream}");
        let sevens = watch(dialect, bytes.chunks(7), true);
        assert_eq!(sevens, expected, "seven bytes each: {stream}");
    }
}

#[test]
fn whole_streams_are_ok_and_metered() {
    check(Chat, CHAT, (Outcome::Ok, true, true, usage(9, 4, 0, 2)));
    check(
        Messages,
        MESSAGES,
        (Outcome::Ok, true, true, usage(113, 100, 3, 15)),
    );
    check(
        Responses,
        RESPONSES,
        (Outcome::Ok, true, true, usage(37, 7, 0, 11)),
    );
    check(
        Completions,
        "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"text\":\"Hi\",\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n",
        (Outcome::Ok, true, true, None),
    );
}

#[test]
fn the_first_content_is_noticed_in_its_own_chunk() {
    let cases = [
        (Chat, CHAT, 1),
        (Messages, MESSAGES, 3),
        (Responses, RESPONSES, 1),
    ];
    for (dialect, stream, first) in cases {
        let mut watch = StreamWatch::new(dialect);
        for (at, event) in stream.split_inclusive("\n\n").enumerate() {
            watch.feed(event.as_bytes());
            assert_eq!(watch.has_content(), at >= first, "{event}");
        }
    }
}

#[test]
fn counts_are_final_with_the_usage_or_the_end_and_not_with_a_first_finish_reason() {
    // Of two choices the first one ends, and each chunk states what is used so far.
    let two_choices = concat!(
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n",
        "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n",
    );
    let cut_off = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}\n\n";
    let no_usage =
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    for (dialect, stream, first) in [
        (Chat, CHAT, Some(4)),
        (Chat, two_choices, Some(2)),
        (Chat, cut_off, None),
        (Chat, no_usage, Some(1)),
        (Messages, MESSAGES, Some(5)),
        (Responses, RESPONSES, Some(2)),
    ] {
        let mut watch = StreamWatch::new(dialect);
        let mut found = None;
        for (at, event) in stream.split_inclusive("\n\n").enumerate() {
            watch.feed(event.as_bytes());
            if watch.has_final_counts() {
                found = found.or(Some(at));
            }
        }
        assert_eq!(found, first, "{stream}");
    }
}

#[test]
fn content_of_a_chat_is_what_a_reader_can_use() {
    let chat = [
        (r#"{"role":"assistant"}"#, false),
        (r#"{"role":"assistant","content":null}"#, false),
        (r#"{"content":""}"#, false),
        (r#"{"content":" "}"#, true),
        (r#"{"reasoning_content":"hm"}"#, true),
        (r#"{"reasoning":"hm","content":""}"#, true),
        (r#"{"refusal":"no"}"#, true),
        (
            r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}"#,
            false,
        ),
        (
            r#"{"tool_calls":[{"function":{"arguments":"{\"a"}}]}"#,
            true,
        ),
        (r#"{"function_call":{"arguments":"{"}}"#, true),
        (r#"{"audio":{"id":"a","data":"AAAA"}}"#, true),
        (r#"{"audio":{"id":"a"}}"#, false),
        (r#"{"audio":{"transcript":"Hi"},"content":null}"#, true),
        (
            r#"{"tool_calls":[{"type":"custom","custom":{"name":"f","input":""}}]}"#,
            false,
        ),
        (
            r#"{"tool_calls":[{"type":"custom","custom":{"input":"x"}}]}"#,
            true,
        ),
        (r#"{"content":null,"reasoning_content":""}"#, false),
        (
            r#"{"reasoning_details":[{"type":"reasoning.text","text":"hm"}]}"#,
            true,
        ),
        (r#"{"extra_content":{"thought_signature":"x"}}"#, false),
    ];
    for (delta, expected) in chat {
        let event = format!("data:{{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
        let mut watch = StreamWatch::new(Chat);
        watch.feed(event.as_bytes());
        assert_eq!(watch.has_content(), expected, "{delta}");
    }
}

#[test]
fn content_is_what_a_reader_can_use_in_the_other_dialects() {
    let messages = [
        (r#"{"type":"text_delta","text":"x"}"#, true),
        (r#"{"type":"thinking_delta","thinking":"x"}"#, true),
        (r#"{"type":"thinking_delta","thinking":""}"#, false),
        (r#"{"type":"signature_delta","signature":"EqQ="}"#, false),
        (r#"{"type":"input_json_delta","partial_json":""}"#, false),
        (r#"{"type":"input_json_delta","partial_json":"{"}"#, true),
        (
            r#"{"type":"citations_delta","citation":{"type":"c"}}"#,
            true,
        ),
    ];
    for (delta, expected) in messages {
        let event = format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"delta\":{delta}}}\n\n"
        );
        let mut watch = StreamWatch::new(Messages);
        watch.feed(event.as_bytes());
        assert_eq!(watch.has_content(), expected, "{delta}");
    }
    for kind in [
        "output_text",
        "reasoning_text",
        "reasoning_summary_text",
        "function_call_arguments",
        "refusal",
        "custom_tool_call_input",
        "code_interpreter_call_code",
        "audio",
        "output_audio",
        "audio.transcript",
        "mcp_call_arguments",
    ] {
        let event = format!(
            "event: response.{kind}.delta\ndata: {{\"type\":\"response.{kind}.delta\",\"delta\":\"x\"}}\n\n"
        );
        let mut watch = StreamWatch::new(Responses);
        watch.feed(event.as_bytes());
        assert!(watch.has_content(), "{kind}");
    }
}

#[test]
fn quirks_of_relays_do_no_harm() {
    let cases = [
        // Comments, blank lines, a byte-order mark, no space after the colon, other fields.
        "\u{feff}: hello\n\nid: 7\nretry: 10\ndata:{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n\n\n: OPENROUTER PROCESSING\n\ndata:{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata:[DONE]\n\n",
        // No [DONE]; no blank line at the end.
        "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}",
        // Running totals in every chunk, finish_reason in every chunk.
        "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":0}}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"y\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n",
        // Several JSON texts in one event.
        "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]} {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n",
        // One JSON text over several lines.
        "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\ndata: \"finish_reason\":\"stop\"}],\ndata: \"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n",
        // The whole answer in one chunk, with spaces around colons.
        "data: {\"choices\" : [{\"message\" : {\"content\":\"x\"}, \"finish_reason\" : \"stop\"}], \"usage\" : {\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n",
        // Usage beside a choice, then a last chunk without choices or finish reason; words in the text.
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{} \\\"error\\\":1\"}}],\"error\":null}\n\ndata: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: {\"id\":\"c\"}\n\ndata: [DONE]\n\n",
    ];
    for stream in cases {
        check(Chat, stream, (Outcome::Ok, true, true, usage(1, 0, 0, 1)));
    }
    let nameless: String = RESPONSES
        .lines()
        .filter(|line| !line.starts_with("event:"))
        .flat_map(|line| [line, "\n"])
        .collect();
    check(
        Responses,
        &nameless,
        (Outcome::Ok, true, true, usage(37, 7, 0, 11)),
    );
}

#[test]
fn usage_is_found_wherever_a_chunk_states_it() {
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let stop = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let stated = "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}";
    let less = stated.replace(":5", ":4");
    let cases = [
        // Beside an empty delta at the end, beside the finish reason, and alone.
        format!(
            "{text}{stop}data: {{\"choices\":[{{\"delta\":{{}}}}],{stated}}}\n\ndata: [DONE]\n\n"
        ),
        format!(
            "{text}data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"stop\"}}],{stated}}}\n\n"
        ),
        format!("{text}{stop}data: {{\"choices\":[],{stated}}}\n\n"),
        // After the end marker, which nobody should do, and some do.
        format!("{text}{stop}data: [DONE]\n\ndata: {{\"choices\":[],{stated}}}\n\n"),
        // Running totals; the last one counts, and null after it takes nothing away.
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\"}}}}],{less}}}\n\n{stop}data: {{\"choices\":[],{stated}}}\n\ndata: {{\"choices\":[],\"usage\":null}}\n\n"
        ),
        // The whole answer in one chunk.
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\"}},\"finish_reason\":\"stop\"}}],{stated}}}\n\ndata: [DONE]\n\n"
        ),
    ];
    for stream in cases {
        check(Chat, &stream, (Outcome::Ok, true, true, usage(5, 0, 0, 3)));
    }
}

#[test]
fn usage_counts_however_a_response_ends() {
    let delta = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";
    let last = |kind: &str, status: &str, rest: &str| {
        format!(
            "{delta}event: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{{\"status\":\"{status}\",{rest}}}}}\n\n"
        )
    };
    let stated = "\"usage\":{\"input_tokens\":5,\"output_tokens\":3}";
    let incomplete = last("response.incomplete", "incomplete", stated);
    check(
        Responses,
        &incomplete,
        (Outcome::Ok, true, true, usage(5, 0, 0, 3)),
    );
    let failed = |usage: &str| {
        let rest = format!("\"error\":{{\"code\":\"server_error\"}},{usage}");
        last("response.failed", "failed", &rest)
    };
    let outcome = Outcome::InBandError;
    check(
        Responses,
        &failed(stated),
        (outcome, true, true, usage(5, 0, 0, 3)),
    );
    check(
        Responses,
        &failed("\"usage\":null"),
        (outcome, true, true, None),
    );
    // A relay that calls all events the same hides nothing.
    let renamed = incomplete.replace("event: response.incomplete", "event: message");
    check(
        Responses,
        &renamed,
        (Outcome::Ok, true, true, usage(5, 0, 0, 3)),
    );
}

#[test]
fn counts_that_only_the_end_of_a_message_states_are_taken_and_zeros_are_not() {
    let begun = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}}\n\n";
    let block = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n";
    let delta = |usage: &str| {
        format!(
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{{{usage}}}}}\n\n"
        )
    };
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let late = delta("\"input_tokens\":7,\"cache_read_input_tokens\":20,\"output_tokens\":4");
    let stream = [begun, block, &late, stop].concat();
    check(
        Messages,
        &stream,
        (Outcome::Ok, true, true, usage(27, 20, 0, 4)),
    );
    let zeros = delta("\"input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":5");
    let stream = [begun, block, &late, &zeros, stop].concat();
    check(
        Messages,
        &stream,
        (Outcome::Ok, true, true, usage(27, 20, 0, 5)),
    );
}

#[test]
fn a_messages_stream_without_event_names_is_metered_but_no_answer() {
    let nameless: String = MESSAGES
        .lines()
        .filter(|line| !line.starts_with("event:"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let facts = (Outcome::SoftError, true, true, usage(113, 100, 3, 15));
    check(Messages, &nameless, facts);
    let stray = format!("{MESSAGES}data: [DONE]\n\n");
    check(
        Messages,
        &stray,
        (Outcome::Ok, true, true, usage(113, 100, 3, 15)),
    );
}

#[test]
fn an_event_too_long_to_read_harms_nothing_after_it() {
    for extra in [0, 1, 100_000] {
        let text = "x".repeat(EVENT_BYTES_MAX + extra);
        let stream =
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n{CHAT}");
        for size in [1000, 65_536, stream.len()] {
            let mut watch = StreamWatch::new(Chat);
            for chunk in stream.as_bytes().chunks(size) {
                watch.feed(chunk);
                assert!(watch.scanner.held_bytes() <= 4 * EVENT_BYTES_MAX);
            }
            assert!(watch.has_content());
            assert_eq!(watch.unread_events(), 1);
            assert_eq!(watch.usage(), usage(9, 4, 0, 2));
            assert_eq!(watch.finish(true), Outcome::Ok);
            assert!(watch.scanner.held_bytes() <= 64 * 1024);
        }
    }
    let image = "x".repeat(2 * EVENT_BYTES_MAX);
    let stream = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":[\"{image}\"]}}}}\n\n"
    );
    let (outcome, ..) = watch(Responses, stream.as_bytes().chunks(5000), true);
    assert_eq!(
        outcome,
        Outcome::Ok,
        "the name alone says that it is complete"
    );
}

#[test]
fn a_watch_is_small_and_holds_nothing_between_whole_events() {
    assert!(size_of::<StreamWatch>() < 300);
    let mut watch = StreamWatch::new(Chat);
    for event in CHAT.split_inclusive("\n\n") {
        watch.feed(event.as_bytes());
        assert_eq!(watch.scanner.held_bytes(), 0);
    }
}

fn any_dialect() -> impl Strategy<Value = Dialect> {
    prop_oneof![
        Just(Chat),
        Just(Completions),
        Just(Messages),
        Just(Responses)
    ]
}

/// Lines as providers and their breakage make them.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let events: Vec<String> = [CHAT, MESSAGES, RESPONSES]
        .iter()
        .flat_map(|stream| stream.split_inclusive('\n').map(str::to_owned))
        .chain(
            [
                "\u{feff}",
                "data:",
                "data: {\"error\":{}}\r\n\r\n",
                "event: error\r",
                "\r\n",
                "\r",
                "\n",
                ":",
                "data",
                "data: [DONE]\r\r",
                "data: {\"a\":1}{\"usage\":{\"prompt_tokens\":3}}\n\n",
                "data: \"error\"\n\n",
                "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
            ]
            .map(str::to_owned),
        )
        .collect();
    let piece = prop_oneof![
        8 => prop::sample::select(events).prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_facts(
        dialect in any_dialect(),
        stream in any_stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        clean_end in any::<bool>(),
    ) {
        let whole = watch(dialect, [stream.as_slice()], clean_end);
        prop_assert_eq!(whole, watch(dialect, stream.chunks(1), clean_end));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
        prop_assert_eq!(whole, watch(dialect, chunks, clean_end));
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(
        dialect in any_dialect(),
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        let mut watch = StreamWatch::new(dialect);
        let mut sum = 0;
        for chunk in &chunks {
            watch.feed(chunk);
            sum += chunk.len();
            prop_assert!(watch.scanner.held_bytes() <= 4 * sum + 64);
        }
        prop_assert!(Outcome::ALL.contains(&watch.finish(true)));
    }
}

#[test]
fn the_last_stated_cost_counts_in_every_dialect() {
    let dialects = [
        (Chat, "\"usage\":{\"prompt_tokens\":9,", CHAT),
        (Messages, "\"usage\":{\"input_tokens\":0,", MESSAGES),
        (Responses, "\"usage\":{\"input_tokens\":37,", RESPONSES),
    ];
    for (dialect, usage, text) in dialects {
        assert!(text.contains(usage), "{text}");
        let paid = text.replace(usage, &format!("{usage}\"cost\":0.0125,"));
        for (text, expected) in [(text, None), (&paid, Some(0.0125))] {
            let mut watch = StreamWatch::new(dialect);
            watch.feed(text.as_bytes());
            assert_eq!(watch.finish(true), Outcome::Ok);
            assert_eq!(watch.reported_cost_usd(), expected, "{text}");
        }
    }
}
