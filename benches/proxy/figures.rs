//! What is measured: every figure by name, how it compares with nginx, and the target it has.
//!
//! Pure. One round of one peer is a set of figures; what could not be measured is not in it.

use std::collections::BTreeMap;

/// The figures of one round of one peer, each in its figure's own unit.
pub(crate) type Figures = BTreeMap<Figure, f64>;

/// Everything that is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Plain requests per second at saturation.
    RequestsPerS,
    /// Share of its core that the proxy used then, in percent.
    Busy,
    /// Share of its core that the bench used then, in percent.
    BenchBusy,
    /// CPU time per plain request, whole process, all that was put off included.
    RequestUs,
    /// CPU time per plain request, threads that carry traffic.
    RequestPlaneUs,
    /// CPU time per event of 200 streams, events evenly spread.
    SpreadUs,
    /// CPU time per event of 200 streams, ten events at a time.
    BurstUs,
    /// Streams held open at once, of which every event arrived.
    Held,
    /// Memory per open stream.
    StreamKib,
    /// CPU time per event of that many streams.
    HeldUs,
    /// Median latency of a plain request at a low rate.
    LatencyP50Us,
    /// Its 99th percentile.
    LatencyP99Us,
    /// Median time to the first content of a stream.
    TtftP50Us,
    /// Its 99th percentile.
    TtftP99Us,
    /// How much longer the gap between two events is for the client than it was for the provider.
    GapP99Us,
    /// How often the proxy went to sleep, per plain request at a low rate.
    Sleeps,
    /// System calls per plain request at a low rate.
    SystemCalls,
    /// From the start of the process to the first answer.
    StartMs,
    /// Resident memory of a proxy that has answered one request.
    IdleMib,
    /// Size of the program.
    BinaryMb,
    /// CPU time per request with recording on, to that with recording off.
    RecordingRatio,
    /// CPU time per request, whole process, recording off.
    UnrecordedUs,
    /// CPU time per request, whole process, on a path that is not metered.
    UnmeteredUs,
    /// CPU time per event on that path, events evenly spread.
    UnmeteredSpreadUs,
    /// Requests per second of two workers that share both cores with the bench.
    TwoRequestsPerS,
    /// CPU time per request of two workers, whole process.
    TwoRequestUs,
    /// The same, to one worker.
    TwoRatio,
    /// Share of the plain requests that went to the second provider, in percent.
    SecondShare,
    /// Requests that cutover measured but could not record.
    Unrecorded,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// So many times nginx, or less; the second is what would be better still.
    RatioAtMost(f64, Option<f64>),
    /// So many times nginx, or more.
    RatioAtLeast(f64, Option<f64>),
    /// So much, or less.
    AtMost(f64),
    /// So much, or more.
    AtLeast(f64),
}

/// How a figure stands in the table.
pub(crate) struct Shown {
    /// Its name with its unit.
    pub(crate) label: &'static str,
    /// Its name in JSON.
    pub(crate) key: &'static str,
    /// Digits behind the point.
    pub(crate) digits: usize,
    /// True if the table divides it by nginx's.
    pub(crate) has_ratio: bool,
    /// True if the time without a proxy is taken off.
    pub(crate) is_added: bool,
    /// What it has to be.
    pub(crate) target: Option<Target>,
}

impl Figure {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 29] = [
        Self::RequestsPerS,
        Self::Busy,
        Self::BenchBusy,
        Self::RequestUs,
        Self::RequestPlaneUs,
        Self::SpreadUs,
        Self::BurstUs,
        Self::Held,
        Self::StreamKib,
        Self::HeldUs,
        Self::LatencyP50Us,
        Self::LatencyP99Us,
        Self::TtftP50Us,
        Self::TtftP99Us,
        Self::GapP99Us,
        Self::Sleeps,
        Self::SystemCalls,
        Self::StartMs,
        Self::IdleMib,
        Self::BinaryMb,
        Self::RecordingRatio,
        Self::UnrecordedUs,
        Self::UnmeteredUs,
        Self::UnmeteredSpreadUs,
        Self::TwoRequestsPerS,
        Self::TwoRequestUs,
        Self::TwoRatio,
        Self::SecondShare,
        Self::Unrecorded,
    ];

    /// How it stands in the table.
    #[expect(
        clippy::too_many_lines,
        reason = "a table of facts, one line per figure"
    )]
    pub(crate) fn shown(self) -> Shown {
        use Target::{AtLeast, AtMost, RatioAtLeast, RatioAtMost};
        let plain = |label, key, digits| Shown {
            label,
            key,
            digits,
            has_ratio: false,
            is_added: false,
            target: None,
        };
        let ratio = |label, key, digits, target| Shown {
            has_ratio: true,
            target,
            ..plain(label, key, digits)
        };
        let added = |label, key, target| Shown {
            is_added: true,
            ..ratio(label, key, 0, target)
        };
        let limit = |label, key, digits, target| Shown {
            target: Some(target),
            ..plain(label, key, digits)
        };
        match self {
            Self::RequestsPerS => ratio(
                "requests/s at saturation",
                "requests_per_s",
                0,
                Some(RatioAtLeast(0.85, Some(1.0))),
            ),
            Self::Busy => plain("- its core busy, %", "core_busy_percent", 0),
            Self::BenchBusy => plain("- the bench's core busy, %", "bench_busy_percent", 0),
            Self::RequestUs => ratio(
                "CPU \u{b5}s/request, whole process",
                "request_us",
                1,
                Some(RatioAtMost(1.25, Some(1.0))),
            ),
            Self::RequestPlaneUs => ratio(
                "CPU \u{b5}s/request, data plane",
                "request_data_plane_us",
                1,
                Some(RatioAtMost(1.1, None)),
            ),
            Self::SpreadUs => ratio(
                "CPU \u{b5}s/chunk, evenly spread",
                "chunk_spread_us",
                1,
                Some(RatioAtMost(1.1, Some(1.0))),
            ),
            Self::BurstUs => ratio(
                "CPU \u{b5}s/chunk, ten at a time",
                "chunk_burst_us",
                1,
                Some(RatioAtMost(1.1, Some(1.0))),
            ),
            Self::Held => limit(
                "streams held, no chunk lost",
                "streams_held",
                0,
                AtLeast(9_000.0),
            ),
            Self::StreamKib => ratio(
                "PSS KiB per open stream",
                "stream_pss_kib",
                1,
                Some(RatioAtMost(1.3, Some(1.0))),
            ),
            Self::HeldUs => ratio(
                "CPU \u{b5}s/chunk of these streams",
                "chunk_held_us",
                1,
                None,
            ),
            Self::LatencyP50Us => added(
                "added latency p50, \u{b5}s",
                "added_latency_p50_us",
                Some(RatioAtMost(1.0, None)),
            ),
            Self::LatencyP99Us => added(
                "added latency p99, \u{b5}s",
                "added_latency_p99_us",
                Some(RatioAtMost(1.0, None)),
            ),
            Self::TtftP50Us => added("added TTFT p50, \u{b5}s", "added_ttft_p50_us", None),
            Self::TtftP99Us => added(
                "added TTFT p99, \u{b5}s",
                "added_ttft_p99_us",
                Some(AtMost(1_000.0)),
            ),
            Self::GapP99Us => added(
                "added gap between chunks p99, \u{b5}s",
                "added_gap_p99_us",
                Some(AtMost(1_000.0)),
            ),
            Self::Sleeps => plain("sleeps/request", "sleeps_per_request", 2),
            Self::SystemCalls => plain("system calls/request", "system_calls_per_request", 1),
            Self::StartMs => limit("start to first answer, ms", "start_ms", 0, AtMost(100.0)),
            Self::IdleMib => limit("idle RSS, MiB", "idle_rss_mib", 1, AtMost(40.0)),
            Self::BinaryMb => limit("program, MB", "binary_mb", 1, AtMost(25.0)),
            Self::RecordingRatio => limit(
                "CPU/request, recording on to off",
                "recording_ratio",
                2,
                AtMost(1.1),
            ),
            Self::UnrecordedUs => plain(
                "- CPU \u{b5}s/request, recording off",
                "request_unrecorded_us",
                1,
            ),
            Self::UnmeteredUs => plain(
                "- CPU \u{b5}s/request, passed unread",
                "request_unmetered_us",
                1,
            ),
            Self::UnmeteredSpreadUs => plain(
                "- CPU \u{b5}s/chunk, passed unread",
                "chunk_unmetered_us",
                1,
            ),
            Self::TwoRequestsPerS => {
                plain("two workers: requests/s", "two_workers_requests_per_s", 0)
            }
            Self::TwoRequestUs => plain(
                "two workers: CPU \u{b5}s/request",
                "two_workers_request_us",
                1,
            ),
            Self::TwoRatio => plain(
                "two workers: CPU/request to one worker",
                "two_workers_ratio",
                2,
            ),
            Self::SecondShare => plain(
                "requests to the second provider, %",
                "second_share_percent",
                0,
            ),
            Self::Unrecorded => limit("requests not recorded", "not_recorded", 0, AtMost(0.0)),
        }
    }
}
