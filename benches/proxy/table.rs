//! Turns the rounds into the table that people read and the JSON that programs read: medians, ratios
//! within each round, and whether each target is met.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::figures::{Figure, Figures, Shown, Target};
use crate::peers::Peer;

/// The rounds of every peer; a round that failed is empty, so that rounds stay side by side.
pub(crate) type Rounds = BTreeMap<Peer, Vec<Figures>>;

/// One figure of one peer over all rounds.
#[derive(Debug, Clone, Copy)]
struct Middle {
    median: f64,
    low: f64,
    high: f64,
}

/// How a target came out.
struct Verdict {
    is_met: bool,
    text: String,
}

const COLUMNS: [Peer; 4] = [Peer::Direct, Peer::Nginx, Peer::Haproxy, Peer::Cutover];
const HEAD: &str = "\
| | no proxy | nginx | HAProxy | cutover | HAProxy to nginx | cutover to nginx | lowest and highest | target | |
|---|---|---|---|---|---|---|---|---|---|
";

/// The table in Markdown, with how many targets are met as its last line.
pub(crate) fn markdown(rounds: &Rounds) -> String {
    let mut text = HEAD.to_owned();
    let (mut met, mut all) = (0, 0);
    for figure in Figure::ALL {
        let shown = figure.shown();
        let cells = COLUMNS.map(|peer| value(rounds, peer, figure));
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let number = |middle: &Middle| with_commas(middle.median, shown.digits);
        let cells = cells.map(|cell| cell.as_ref().map_or_else(|| "-".to_owned(), number));
        let ratios = [Peer::Haproxy, Peer::Cutover].map(|peer| ratio(rounds, peer, &shown, figure));
        let ratio_cells = ratios
            .map(|ratio| ratio.map_or_else(|| "-".to_owned(), |r| format!("{:.2}", r.median)));
        let [_, own] = ratios;
        let spread = own.or_else(|| value(rounds, Peer::Cutover, figure));
        let digits = if own.is_some() { 2 } else { shown.digits };
        let spread = spread.map_or_else(
            || "-".to_owned(),
            |m| {
                let (low, high) = (with_commas(m.low, digits), with_commas(m.high, digits));
                format!("{low} to {high}")
            },
        );
        let verdict = verdict(rounds, figure);
        if let Some(verdict) = &verdict {
            all += 1;
            met += usize::from(verdict.is_met);
        }
        // Writing to a String cannot fail, here and below.
        let _written = writeln!(
            text,
            "| {} | {} | {} | {spread} | {} | {} |",
            shown.label,
            cells.join(" | "),
            ratio_cells.join(" | "),
            shown.target.map_or(String::new(), target_text),
            verdict.map_or(String::new(), |v| v.text)
        );
    }
    format!("{text}\nTargets met: {met} of {all}.\n")
}

/// Every figure: each round, and what the table says of it.
pub(crate) fn json(rounds: &Rounds) -> Value {
    let mut figures = Map::new();
    for figure in Figure::ALL {
        let shown = figure.shown();
        let mut peers = Map::new();
        for (peer, all) in rounds {
            let values: Vec<Option<f64>> = all.iter().map(|r| r.get(&figure).copied()).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let ratio = ratio(rounds, *peer, &shown, figure).map(|r| r.median);
            let median = value(rounds, *peer, figure).map(|m| m.median);
            let entry = json!({ "rounds": values, "median": median, "to_nginx": ratio });
            peers.insert(peer.name().to_owned(), entry);
        }
        if peers.is_empty() {
            continue;
        }
        let met = verdict(rounds, figure).map(|verdict| verdict.is_met);
        let target = shown.target.map(target_text);
        let entry = json!({
            "label": shown.label,
            "is_added": shown.is_added,
            "peers": peers,
            "target": target,
            "met": met,
        });
        figures.insert(shown.key.to_owned(), entry);
    }
    Value::Object(figures)
}

/// What a peer shows; for an added time, without what it takes without a proxy.
fn value(rounds: &Rounds, peer: Peer, figure: Figure) -> Option<Middle> {
    let own = rounds.get(&peer)?;
    let values = (0..own.len()).filter_map(|round| in_round(rounds, peer, figure, round));
    Middle::of(values.collect())
}

fn in_round(rounds: &Rounds, peer: Peer, figure: Figure, round: usize) -> Option<f64> {
    let absolute = |peer| {
        let own: Option<&Figures> = rounds.get(&peer)?.get(round);
        own?.get(&figure).copied()
    };
    if figure.shown().is_added && peer != Peer::Direct {
        return Some(absolute(peer)? - absolute(Peer::Direct)?);
    }
    absolute(peer)
}

/// A peer to all of nginx. A ratio holds within one round only: what else the machine did then
/// slowed both.
fn ratio(rounds: &Rounds, peer: Peer, shown: &Shown, figure: Figure) -> Option<Middle> {
    if !shown.has_ratio {
        return None;
    }
    let own = rounds.get(&peer)?;
    let ratios = (0..own.len()).filter_map(|round| {
        let nginx = in_round(rounds, Peer::Nginx, figure, round)?;
        let mine = in_round(rounds, peer, figure, round)?;
        // A noisy round can even be quicker with nginx than without: it says nothing about others.
        (nginx > 0.0).then(|| mine / nginx)
    });
    Middle::of(ratios.collect())
}

fn verdict(rounds: &Rounds, figure: Figure) -> Option<Verdict> {
    let shown = figure.shown();
    let target = shown.target?;
    // With one peer alone there is nothing to judge.
    if [Peer::Nginx, Peer::Cutover]
        .iter()
        .any(|peer| !rounds.contains_key(peer))
    {
        return None;
    }
    let (value, ratio) = (
        value(rounds, Peer::Cutover, figure),
        ratio(rounds, Peer::Cutover, &shown, figure),
    );
    let middle = match target {
        Target::RatioAtMost(..) | Target::RatioAtLeast(..) => ratio,
        Target::AtMost(_) | Target::AtLeast(_) => value,
    };
    let Some(middle) = middle else {
        return Some(Verdict {
            is_met: false,
            text: "not measured".to_owned(),
        });
    };
    let holds = |limit: f64| match target {
        Target::RatioAtMost(..) | Target::AtMost(_) => middle.median <= limit,
        Target::RatioAtLeast(..) | Target::AtLeast(_) => middle.median >= limit,
    };
    let (limit, stretch) = match target {
        Target::RatioAtMost(limit, stretch) | Target::RatioAtLeast(limit, stretch) => {
            (limit, stretch)
        }
        Target::AtMost(limit) | Target::AtLeast(limit) => (limit, None),
    };
    let is_met = holds(limit);
    let text = match (is_met, stretch.is_some_and(holds)) {
        (false, _) => "**not met**",
        (true, true) => "met, and better",
        (true, false) => "met",
    };
    Some(Verdict {
        is_met,
        text: text.to_owned(),
    })
}

fn target_text(target: Target) -> String {
    let better =
        |stretch: Option<f64>| stretch.map_or(String::new(), |s| format!(" (better: {s})"));
    match target {
        Target::RatioAtMost(limit, stretch) => {
            format!("\u{2264} {limit} \u{d7} nginx{}", better(stretch))
        }
        Target::RatioAtLeast(limit, stretch) => {
            format!("\u{2265} {limit} \u{d7} nginx{}", better(stretch))
        }
        Target::AtMost(limit) => format!(
            "\u{2264} {}",
            with_commas(limit, usize::from(limit.fract() > 0.0))
        ),
        Target::AtLeast(limit) => format!("\u{2265} {}", with_commas(limit, 0)),
    }
}

impl Middle {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get(values.len().saturating_sub(1) / 2)?;
        Some(Self {
            median: f64::midpoint(lower, upper),
            low: *values.first()?,
            high: *values.last()?,
        })
    }
}

/// A number as people read it: 9,000 and 17.7.
fn with_commas(number: f64, digits: usize) -> String {
    let plain = format!("{number:.digits$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut text = String::new();
    for (n, digit) in whole.chars().enumerate() {
        let behind = whole.len() - n;
        if n > 0 && behind % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
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
    let versions = Peer::RIVALS.map(|peer| {
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
