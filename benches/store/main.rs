//! What a sample costs after the request path, and how fast the store is.
//!
//! `cargo bench --bench store` prints the CPU time of one sample from a worker's hand to the disk with rows
//! on and off, the rows per second that the writer sustains, what retention of a day does to those who hand
//! samples over and to those who read, and the cold start on a large database. Names of parts (`samples`,
//! `writer`, `retention`, `start`) after `--` limit it to these; `samples=60000` sets how many samples.
//! It fails when a target is missed by far. The database of `start` has a gigabyte (`CUTOVER_BENCH_MB`).
#![expect(clippy::print_stdout, reason = "a bench speaks to a person")]

use std::error::Error;
use std::process::ExitCode;

mod cpu;
mod made;
mod retention;
mod samples;
mod start;
mod writer;

/// What can be measured.
const PARTS: [&str; 4] = ["samples", "writer", "retention", "start"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` starts it without this flag, to see that it starts.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run it as `cargo bench --bench store`");
        return ExitCode::SUCCESS;
    }
    let asked: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| PARTS.iter().any(|part| argument.starts_with(part)))
        .collect();
    let wants = |part: &str| asked.is_empty() || asked.iter().any(|it| it.starts_with(part));
    let number = asked.iter().find_map(|it| it.split_once('='));
    let number = number.and_then(|(_, number)| number.parse().ok());
    match bench(wants, number) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(wants: impl Fn(&str) -> bool, number: Option<usize>) -> Result<(), Box<dyn Error>> {
    if wants("samples") {
        samples::measure(number.unwrap_or(200_000))?;
    }
    if wants("writer") {
        writer::measure(number.unwrap_or(1_000_000))?;
    }
    if wants("retention") {
        retention::measure(number.unwrap_or(500_000))?;
    }
    if wants("start") {
        start::measure()?;
    }
    Ok(())
}
