//! Turns the rounds into the table that people read: medians, and ratios within each round.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::peers::Peer;

/// One round of one peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// Plain requests per second at saturation.
    pub(crate) requests_per_s: f64,
    /// Share of the proxy's core that was busy meanwhile, 0 to 1.
    pub(crate) busy: f64,
    /// CPU time per plain request.
    pub(crate) request: Cost,
    /// CPU time per event of a stream, events evenly spread.
    pub(crate) spread_event: Cost,
    /// CPU time per event of a stream, events in bursts.
    pub(crate) burst_event: Cost,
    /// Share of the plain requests that went to the second upstream, 0 to 1.
    pub(crate) second_share: f64,
}

/// CPU time per unit of work, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Of the whole process.
    pub(crate) whole_us: f64,
    /// Of the threads that carry traffic.
    pub(crate) data_plane_us: f64,
}

/// One peer's rounds, or why there are none.
#[derive(Debug)]
pub(crate) struct Row {
    /// Who.
    pub(crate) peer: Peer,
    /// One per round that went well.
    pub(crate) rounds: Vec<Round>,
    /// Why it was not measured.
    pub(crate) remark: Option<String>,
}

const REQUESTS: &str = "\
| peer | requests/s | core busy | CPU \u{b5}s/request | data plane | to nginx | data plane | second arm |
|---|---|---|---|---|---|---|---|
";
const EVENTS: &str = "\
| peer | spread: CPU \u{b5}s/event | data plane | to nginx | data plane | bursts: CPU \u{b5}s/event | data plane \
| to nginx | data plane |
|---|---|---|---|---|---|---|---|---|
";

/// Both tables, in Markdown.
pub(crate) fn tables(rows: &[Row]) -> String {
    let yardstick = rows
        .iter()
        .find(|row| row.peer == Peer::Nginx)
        .map(|row| &row.rounds[..]);
    let yardstick = yardstick.unwrap_or_default();
    let mut requests = REQUESTS.to_owned();
    let mut events = EVENTS.to_owned();
    for row in rows {
        let (name, of) = (row.peer.name(), |figure| median_of(row, figure));
        if let Some(remark) = &row.remark {
            // Writing to a String cannot fail, here and below.
            let _written = writeln!(requests, "| {name} | {remark} |||||||");
            continue;
        }
        let _written = writeln!(
            requests,
            "| {name} | {:.0} | {:.0}% | {} | {:.0}% |",
            of(|round| round.requests_per_s),
            100.0 * of(|round| round.busy),
            costs(row, yardstick, |round| round.request),
            100.0 * of(|round| round.second_share),
        );
        let spread = costs(row, yardstick, |round| round.spread_event);
        let bursts = costs(row, yardstick, |round| round.burst_event);
        let _written = writeln!(events, "| {name} | {spread} | {bursts} |");
    }
    format!("{requests}\n{events}{}", metering(rows))
}

/// What reading the events costs over passing them unread, if both were measured.
fn metering(rows: &[Row]) -> String {
    let rounds = |peer| {
        let row = rows.iter().find(|row| row.peer == peer);
        row.map(|row| &row.rounds[..]).unwrap_or_default()
    };
    let more = |cost: fn(&Round) -> Cost| {
        let pairs = rounds(Peer::Cutover).iter().zip(rounds(Peer::Unmetered));
        let ratios = pairs.map(|(read, unread)| cost(read).whole_us / cost(unread).whole_us);
        100.0 * (median(ratios.collect()) - 1.0)
    };
    if rounds(Peer::Unmetered).is_empty() || rounds(Peer::Cutover).is_empty() {
        return String::new();
    }
    format!(
        "\nMetering a stream costs {:.1}% more CPU than passing it unread, {:.1}% in bursts (median within \
         rounds).\n",
        more(|round| round.spread_event),
        more(|round| round.burst_event)
    )
}

fn median_of(row: &Row, figure: fn(&Round) -> f64) -> f64 {
    median(row.rounds.iter().map(figure).collect())
}

/// Four cells: whole process, data plane, and both divided by the whole of nginx.
fn costs(row: &Row, yardstick: &[Round], cost: fn(&Round) -> Cost) -> String {
    let figure =
        |part: fn(&Cost) -> f64| median(row.rounds.iter().map(|r| part(&cost(r))).collect());
    // A ratio holds within one round only: what else the machine did then slowed both.
    let ratio = |part: fn(&Cost) -> f64| {
        let pairs = row.rounds.iter().zip(yardstick);
        let ratios: Vec<f64> = pairs
            .map(|(mine, nginx)| part(&cost(mine)) / cost(nginx).whole_us)
            .collect();
        if ratios.is_empty() {
            "-".to_owned()
        } else {
            format!("{:.2}", median(ratios))
        }
    };
    let whole: fn(&Cost) -> f64 = |cost| cost.whole_us;
    let plane: fn(&Cost) -> f64 = |cost| cost.data_plane_us;
    format!(
        "{:.1} | {:.1} | {} | {}",
        figure(whole),
        figure(plane),
        ratio(whole),
        ratio(plane)
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

/// What the figures were taken on and with; nothing that tells whose machine it was.
pub(crate) fn facts() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = || {
        cpuinfo
            .lines()
            .filter(|line| line.starts_with("model name"))
    };
    let model = models()
        .next()
        .and_then(|line| line.split_once(": "))
        .map_or("unknown", |m| m.1);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!(
        "- CPU: {model}, {} cores\n- kernel: {}\n",
        models().count(),
        kernel.trim()
    );
    let compiler = Command::new("rustc")
        .arg("--version")
        .output()
        .map(|output| output.stdout);
    let compiler = compiler.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
    let versions = [Peer::Nginx, Peer::Haproxy, Peer::Cutover].map(|peer| {
        let version = peer.version().unwrap_or_else(|| "none".to_owned());
        format!("{} {version}", peer.name())
    });
    let _written = writeln!(
        text,
        "- versions: {}, {}",
        versions.join(", "),
        compiler.unwrap_or_else(|_| "compiler unknown".to_owned())
    );
    text
}
