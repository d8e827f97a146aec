//! The scanner of events: lines, fields and ends, cut anywhere, under every dialect at once.
#![no_main]

#[expect(dead_code, reason = "whole answers have targets of their own")]
mod dialect;

use cutover::llm::Dialect;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for dialect in [
        Dialect::OpenAiChat,
        Dialect::OpenAiResponses,
        Dialect::AnthropicMessages,
    ] {
        dialect::read_stream(dialect, data);
    }
});
