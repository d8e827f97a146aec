//! The loads, one by one: what each asks of a peer, and what is read off it meanwhile.
//!
//! Every load checks all that comes back; a byte too few is a fault and never a figure.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::clients::{Load, Seen};
use crate::cpu::{Spent, Used};
use crate::figures::{Figure, Figures};
use crate::memory;
use crate::number;
use crate::open_loop::{self, Plan};
use crate::pacer::Pace;
use crate::peers::Running;
use crate::upstream::Upstreams;

/// Client connections that send plain requests.
pub(crate) const CONNECTIONS: u32 = 64;
/// Streams whose events are counted at 10,000 a second.
pub(crate) const STREAMS: u32 = 200;
/// Time between two events of one of them.
pub(crate) const PERIOD: Duration = Duration::from_millis(20);
/// Time between two events of one of the many streams.
pub(crate) const HELD_PERIOD: Duration = Duration::from_secs(1);
/// Plain requests per second when latency is measured.
pub(crate) const RATE: u32 = 2_000;
/// Streams that begin per second when their times are measured, each with so many events.
pub(crate) const STREAM_RATE: u32 = 400;
const EVENTS: u32 = 20;
const WARM_UP: Duration = Duration::from_millis(500);
/// Streams start within this time.
const RAMP: Duration = Duration::from_millis(400);
/// Streams run on for this long after they were measured.
const AFTER: Duration = Duration::from_millis(100);
/// New streams per second while many are opened.
const HELD_RAMP_RATE: u32 = 1_500;
/// All of them are open by then, or it failed.
const HELD_LIMIT: Duration = Duration::from_secs(60);
const HELD_LOOK: Duration = Duration::from_millis(10);
/// A peer that uses less than this within `QUIET_LOOK` has nothing left to do.
const QUIET: Duration = Duration::from_millis(2);
const QUIET_LOOK: Duration = Duration::from_millis(100);
const QUIET_LIMIT: Duration = Duration::from_secs(3);

/// Waits until a peer has done what it put off, for a few seconds at most.
async fn quiet(pid: u32) {
    let begun = Instant::now();
    while begun.elapsed() < QUIET_LIMIT {
        let before = Used::by(pid);
        sleep(QUIET_LOOK).await;
        if Used::by(pid).since(&before).whole < QUIET {
            return;
        }
    }
}

/// Requests per second at saturation, and what a request costs with all that is put off.
pub(crate) async fn saturation(
    running: &Running,
    upstreams: &Upstreams,
    time: Duration,
) -> Result<Figures, String> {
    quiet(running.pid()).await;
    let [_, second_before] = upstreams.requests();
    let asked_before: u64 = upstreams.requests().iter().sum();
    let all = Used::by(running.pid());
    let load = Load::plain(running.address, running.path, CONNECTIONS);
    sleep(WARM_UP).await;
    let answers = || load.seen.answers.get();
    let (before, used, own) = (answers(), Used::by(running.pid()), Used::by_the_bench());
    let begun = Instant::now();
    sleep(time).await;
    let (elapsed, answered) = (begun.elapsed(), answers() - before);
    let spent = Used::by(running.pid()).since(&used);
    let own = Used::by_the_bench().saturating_sub(own);
    let seen = load.end().await?;
    upstreams.take_fault().map_or(Ok(()), Err)?;
    let [_, second] = upstreams.requests();
    let asked: u64 = upstreams.requests().iter().sum();
    // Rows of these requests are still being written: they are part of what a request costs.
    quiet(running.pid()).await;
    let all = Used::by(running.pid()).since(&all);
    let percent = |time: Duration| 100.0 * time.as_secs_f64() / elapsed.as_secs_f64();
    let (whole, plane) = cost(all, seen.answers.get());
    let share = number(second - second_before) / number(asked - asked_before);
    Ok(Figures::from([
        (Figure::RequestsPerS, per(answered, elapsed)),
        (Figure::Busy, percent(spent.whole)),
        (Figure::BenchBusy, percent(own)),
        (Figure::RequestUs, whole),
        (Figure::RequestPlaneUs, plane),
        (Figure::SecondShare, 100.0 * share),
    ]))
}

/// What an event costs, of streams that together send 10,000 a second.
pub(crate) async fn events(
    running: &Running,
    upstreams: &Upstreams,
    time: Duration,
    pace: Pace,
) -> Result<f64, String> {
    quiet(running.pid()).await;
    let pacer = &upstreams.pacer;
    let events = (RAMP + WARM_UP + time + AFTER).as_millis() / PERIOD.as_millis();
    let events = u32::try_from(events).map_err(|e| e.to_string())?;
    let sent_before = plan(upstreams, STREAMS, PERIOD, pace, events);
    let load = Load::streams(running.address, running.path, STREAMS, RAMP, pacer.token);
    sleep(RAMP + WARM_UP).await;
    let before = load.seen.events.get();
    let (begun, used) = (Instant::now(), Used::by(running.pid()));
    sleep(time).await;
    let (elapsed, arrived) = (begun.elapsed(), load.seen.events.get() - before);
    let spent = Used::by(running.pid()).since(&used);
    let seen = load.end().await?;
    whole(&seen, upstreams, sent_before, u64::from(STREAMS))?;
    let planned = f64::from(STREAMS) / PERIOD.as_secs_f64();
    let rate = per(arrived, elapsed);
    if (rate / planned - 1.0).abs() > 0.05 {
        return Err(format!(
            "{rate:.0} events/s arrived instead of {planned:.0}"
        ));
    }
    Ok(cost(spent, arrived).0)
}

/// Holds `streams` open at once and reads what they weigh.
pub(crate) async fn held(
    running: &Running,
    upstreams: &Upstreams,
    streams: u32,
    time: Duration,
) -> Result<Figures, String> {
    quiet(running.pid()).await;
    let pacer = &upstreams.pacer;
    let empty_kib = memory::pss_kib(running.pid());
    let sent_before = plan(upstreams, streams, HELD_PERIOD, Pace::Spread, u32::MAX);
    let ramp = Duration::from_secs(1) * streams / HELD_RAMP_RATE;
    let load = Load::streams(running.address, running.path, streams, ramp, pacer.token);
    let begun = Instant::now();
    let fault = loop {
        if load.seen.open.get() == u64::from(streams) {
            break None;
        }
        if load.seen.has_fault() || begun.elapsed() > HELD_LIMIT {
            break Some(format!("only {} streams opened", load.seen.open.get()));
        }
        sleep(HELD_LOOK).await;
    };
    // Everybody gets an event, and buffers are what they are in the middle of a stream.
    sleep(HELD_PERIOD).await;
    let (begun, before) = (Instant::now(), load.seen.events.get());
    let used = Used::by(running.pid());
    sleep(time.max(HELD_PERIOD)).await;
    let spent = Used::by(running.pid()).since(&used);
    let (elapsed, arrived) = (begun.elapsed(), load.seen.events.get() - before);
    let full_kib = memory::pss_kib(running.pid());
    pacer.finish.set(true);
    let ended = load.end().await;
    if let Some(fault) = fault {
        let why = ended.err().unwrap_or_default();
        return Err(format!("{fault} of {streams} {why}"));
    }
    whole(&ended?, upstreams, sent_before, u64::from(streams))?;
    let planned = f64::from(streams) / HELD_PERIOD.as_secs_f64();
    let mut figures = Figures::from([
        (Figure::Held, f64::from(streams)),
        (
            Figure::StreamKib,
            (full_kib - empty_kib) / f64::from(streams),
        ),
    ]);
    // On a busy machine the bench may send late; nothing is lost, but this is another load then.
    if (per(arrived, elapsed) / planned - 1.0).abs() < 0.1 {
        figures.insert(Figure::HeldUs, cost(spent, arrived).0);
    }
    Ok(figures)
}

/// Latency of plain requests on a schedule, well below saturation, and the sleeps of the peer.
pub(crate) async fn latency(
    address: SocketAddr,
    path: &'static str,
    pid: Option<u32>,
    time: Duration,
) -> Result<Figures, String> {
    if let Some(pid) = pid {
        quiet(pid).await;
    }
    let schedule = Plan {
        rate: RATE,
        connections: CONNECTIONS,
        time,
        streams: None,
    };
    let sleeps_before = pid.map(memory::sleeps);
    let seen = open_loop::play(address, path, schedule).await?;
    let sleeps = pid.map(memory::sleeps);
    let mut latencies = seen.latencies.take();
    let mut figures = Figures::from([
        (Figure::LatencyP50Us, percentile(&mut latencies, 50)?),
        (Figure::LatencyP99Us, percentile(&mut latencies, 99)?),
    ]);
    if let (Some(after), Some(before)) = (sleeps, sleeps_before) {
        let asked = seen.answers.get() + u64::from(CONNECTIONS);
        figures.insert(Figure::Sleeps, (after - before) / number(asked));
    }
    Ok(figures)
}

/// Time to the first content of streams on a schedule, and what their gaps grow by on the way.
pub(crate) async fn ttft(
    address: SocketAddr,
    path: &'static str,
    pid: Option<u32>,
    upstreams: &Upstreams,
    time: Duration,
) -> Result<Figures, String> {
    if let Some(pid) = pid {
        quiet(pid).await;
    }
    let sent_before = plan(upstreams, STREAMS, PERIOD, Pace::Spread, EVENTS);
    let schedule = Plan {
        rate: STREAM_RATE,
        // One stream lasts 0.4 s, so that at most half of them are in use.
        connections: STREAM_RATE,
        time,
        streams: Some(upstreams.pacer.token),
    };
    let seen = open_loop::play(address, path, schedule).await?;
    let streams = u64::from(schedule.requests());
    whole(&seen, upstreams, sent_before, streams)?;
    let (mut first, mut gaps) = (seen.latencies.take(), seen.gaps.take());
    Ok(Figures::from([
        (Figure::TtftP50Us, percentile(&mut first, 50)?),
        (Figure::TtftP99Us, percentile(&mut first, 99)?),
        (Figure::GapP99Us, percentile(&mut gaps, 99)?),
    ]))
}

/// Requests that cutover has counted as not recorded since it started, by its own metrics.
pub(crate) async fn unrecorded(admin: SocketAddr) -> Result<f64, String> {
    let ask = async {
        let mut socket = TcpStream::connect(admin).await?;
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut text = Vec::new();
        socket.read_to_end(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = timeout(HELD_LIMIT, ask)
        .await
        .map_err(|e| format!("metrics: {e}"))?
        .map_err(|e| format!("metrics: {e}"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut lines = text
        .lines()
        .filter(|line| line.starts_with("cutover_dropped_records_total"))
        .peekable();
    if lines.peek().is_none() {
        return Err("metrics name no cutover_dropped_records_total".to_owned());
    }
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

/// What stands in the figures before any load: start, memory and size.
pub(crate) fn at_rest(running: &Running, program: Option<&Path>) -> Figures {
    let mut figures = Figures::from([
        (Figure::StartMs, running.started_in.as_secs_f64() * 1e3),
        (Figure::IdleMib, memory::rss_kib(running.pid()) / 1024.0),
    ]);
    if let Some(size) = program.and_then(memory::size_mb) {
        figures.insert(Figure::BinaryMb, size);
    }
    figures
}

/// Tells the pacer what comes; returns what it had sent so far.
fn plan(
    upstreams: &Upstreams,
    streams: u32,
    period: Duration,
    pace: Pace,
    events: u32,
) -> (u64, u64) {
    let pacer = &upstreams.pacer;
    pacer.streams.set(streams);
    pacer.period.set(period);
    pacer.pace.set(pace);
    pacer.events_per_stream.set(events);
    pacer.finish.set(false);
    (pacer.events.get(), pacer.bytes.get())
}

/// Holds what has arrived against what was sent.
fn whole(
    seen: &Rc<Seen>,
    upstreams: &Upstreams,
    sent_before: (u64, u64),
    streams: u64,
) -> Result<(), String> {
    upstreams.take_fault().map_or(Ok(()), Err)?;
    let pacer = &upstreams.pacer;
    let sent = (
        pacer.events.get() - sent_before.0,
        pacer.bytes.get() - sent_before.1,
    );
    let got = (seen.events.get(), seen.bytes.get());
    if seen.answers.get() == streams && got == sent {
        return Ok(());
    }
    let answers = seen.answers.get();
    Err(format!(
        "{answers} of {streams} streams ended well; (events, bytes) sent: {sent:?}, arrived: {got:?}"
    ))
}

/// Microseconds of the whole peer and of its data plane, per unit.
fn cost(spent: Spent, units: u64) -> (f64, f64) {
    let us = |time: Duration| time.as_secs_f64() * 1e6 / number(units);
    (us(spent.whole), us(spent.data_plane))
}

/// A percentile in microseconds.
fn percentile(nanoseconds: &mut [i64], percent: usize) -> Result<f64, String> {
    nanoseconds.sort_unstable();
    let at = nanoseconds.len().saturating_sub(1) * percent / 100;
    let value = nanoseconds.get(at).ok_or("nothing was timed")?;
    #[expect(clippy::cast_precision_loss, reason = "no run lasts 2^53 nanoseconds")]
    let value = *value as f64;
    Ok(value / 1e3)
}

/// Units per second.
pub(crate) fn per(count: u64, time: Duration) -> f64 {
    number(count) / time.as_secs_f64()
}
