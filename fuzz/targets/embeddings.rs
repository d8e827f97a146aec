//! Answers of one dialect: streams and whole bodies.
#![no_main]

mod dialect;

use cutover::llm::Dialect;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    dialect::read_stream(Dialect::OpenAiEmbeddings, data);
    dialect::read_plain(Dialect::OpenAiEmbeddings, data);
});
