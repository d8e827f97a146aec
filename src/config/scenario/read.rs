//! The tables of a scenario and their keys, with every default.
//!
//! Pure. Notes faults in the reader and goes on; a wrong value counts as absent.
#![deny(clippy::disallowed_methods)]

use super::{Behaviour, Change, Incident, Scenario, SlowTail, Times};
use crate::arm::{Arm, PerArm};
use crate::config::parse::leaf;
use crate::config::raw::{Field, Reader, Section, Wrong};

const ROOT: [&str; 7] = [
    "duration", "tick", "traffic", "legacy", "canary", "change", "incident",
];
const TRAFFIC: [&str; 2] = ["rate", "daily-swing"];
const ARM: [&str; 6] = [
    "error-rate",
    "clusters",
    "latency",
    "ttft",
    "streamed",
    "slow-tail",
];
const TIMES: [&str; 2] = ["median", "sigma"];
const TAIL: [&str; 2] = ["share", "factor"];
const CHANGE: [&str; 6] = [
    "at",
    "for",
    "arm",
    "error-rate",
    "latency-factor",
    "ttft-factor",
];
const INCIDENT: [&str; 3] = ["every", "for", "error-rate"];

const DAY_MS: i64 = 86_400_000;
const DURATION_MS: i64 = 30 * DAY_MS;
const TICK_MS: i64 = 10_000;
const RATE_PER_S: f64 = 10.0;
const LEGACY: Behaviour = Behaviour {
    error_rate: 0.005,
    clusters: 1.0,
    latency: Times {
        median_ms: 800.0,
        sigma: 0.8,
    },
    ttft: Times {
        median_ms: 200.0,
        sigma: 0.5,
    },
    streamed: 0.0,
    slow_tail: None,
};
/// More looks than that in one run are a slip of the finger.
const TICKS_MAX: i64 = 50_000_000;
/// More requests between two looks would take for ever.
const REQUESTS_PER_TICK_MAX: f64 = 1e6;

/// `None` only after a syntax error; otherwise faults are in the reader.
pub(super) fn scenario(reader: &mut Reader<'_>) -> Option<Scenario> {
    let document = reader.document()?;
    let root = Section::root(&document);
    reader.check_keys_against(&root, &ROOT);
    let traffic = section(reader, &root, "traffic", &TRAFFIC);
    let legacy = arm(reader, &root, "legacy", &LEGACY);
    let scenario = Scenario {
        duration_ms: time(reader, &root, "duration").unwrap_or(DURATION_MS),
        tick_ms: time(reader, &root, "tick").unwrap_or(TICK_MS),
        rate_per_s: reader.read(&traffic, "rate", rate).unwrap_or(RATE_PER_S),
        daily_swing: reader
            .read(&traffic, "daily-swing", fraction)
            .unwrap_or(0.0),
        arms: PerArm {
            legacy,
            canary: arm(reader, &root, "canary", &legacy),
        },
        changes: all(reader, &root, "change", &CHANGE, change),
        incidents: all(reader, &root, "incident", &INCIDENT, incident),
    };
    check(reader, &root, &scenario);
    Some(scenario)
}

/// The table that `key` names; empty if it is absent or wrong.
fn section<'d>(
    reader: &mut Reader<'_>,
    parent: &Section<'d>,
    key: &str,
    known: &[&str],
) -> Section<'d> {
    match parent.get(key) {
        Some(field) => open(reader, &field, known),
        None => Section::absent(parent.place_of(key)),
    }
}

fn open<'d>(reader: &mut Reader<'_>, field: &Field<'d>, known: &[&str]) -> Section<'d> {
    if !field.value.is_table() {
        reader.fault(&field.place, field.expected("a table"));
    }
    let section = Section::of_table(field);
    reader.check_keys_against(&section, known);
    section
}

/// Each of the tables `[[key]]`, read by `read`.
fn all<T>(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
    key: &str,
    known: &[&str],
    read: impl Fn(&mut Reader<'_>, &Section<'_>) -> T,
) -> Vec<T> {
    let Some(field) = root.get(key) else {
        return Vec::new();
    };
    let elements = field.elements().unwrap_or_else(|| vec![field.clone()]);
    let mut found = Vec::new();
    for element in &elements {
        let section = open(reader, element, known);
        found.push(read(reader, &section));
    }
    found
}

fn arm(reader: &mut Reader<'_>, root: &Section<'_>, key: &str, absent: &Behaviour) -> Behaviour {
    let section = section(reader, root, key, &ARM);
    let latency = times(reader, &section, "latency", absent.latency);
    let ttft = times(reader, &section, "ttft", absent.ttft);
    // Who tells times of streams has streams.
    let streamed = if section.get("ttft").is_some() && absent.streamed <= 0.0 {
        1.0
    } else {
        absent.streamed
    };
    Behaviour {
        error_rate: reader
            .read(&section, "error-rate", leaf::share)
            .unwrap_or(absent.error_rate),
        clusters: reader
            .read(&section, "clusters", clusters)
            .unwrap_or(absent.clusters),
        latency,
        ttft,
        streamed: reader
            .read(&section, "streamed", leaf::share)
            .unwrap_or(streamed),
        slow_tail: section
            .get("slow-tail")
            .map(|field| slow_tail(reader, &field))
            .or(absent.slow_tail),
    }
}

fn times(reader: &mut Reader<'_>, arm: &Section<'_>, key: &str, absent: Times) -> Times {
    let section = section(reader, arm, key, &TIMES);
    Times {
        median_ms: reader
            .read(&section, "median", leaf::positive_duration)
            .map_or(absent.median_ms, |median| median.as_secs_f64() * 1_000.0),
        sigma: reader
            .read(&section, "sigma", sigma)
            .unwrap_or(absent.sigma),
    }
}

fn slow_tail(reader: &mut Reader<'_>, field: &Field<'_>) -> SlowTail {
    let section = open(reader, field, &TAIL);
    SlowTail {
        share: reader
            .read(&section, "share", leaf::share)
            .unwrap_or_default(),
        factor: reader.read(&section, "factor", factor).unwrap_or(1.0),
    }
}

fn change(reader: &mut Reader<'_>, section: &Section<'_>) -> Change {
    let arms = [
        ("canary", Some(Arm::Canary)),
        ("legacy", Some(Arm::Legacy)),
        ("both", None),
    ];
    let arm = reader
        .read(section, "arm", |field| leaf::word(field, &arms))
        .unwrap_or(Some(Arm::Canary));
    let at_ms = reader
        .read(section, "at", leaf::duration_ms)
        .unwrap_or_default();
    let for_ms = time(reader, section, "for");
    Change {
        at_ms,
        until_ms: for_ms.map_or(i64::MAX, |for_ms| at_ms + for_ms),
        arms: PerArm::from_fn(|touched| arm.is_none_or(|arm| arm == touched)),
        error_rate: reader.read(section, "error-rate", leaf::share),
        latency_factor: reader
            .read(section, "latency-factor", factor)
            .unwrap_or(1.0),
        ttft_factor: reader.read(section, "ttft-factor", factor).unwrap_or(1.0),
    }
}

fn incident(reader: &mut Reader<'_>, section: &Section<'_>) -> Incident {
    Incident {
        every_ms: time(reader, section, "every").unwrap_or(DAY_MS / 2),
        for_ms: time(reader, section, "for").unwrap_or(120_000),
        error_rate: reader
            .read(section, "error-rate", leaf::share)
            .unwrap_or(0.2),
    }
}

/// What only several values together can get wrong.
fn check(reader: &mut Reader<'_>, root: &Section<'_>, scenario: &Scenario) {
    let place = root.place_of("tick");
    if scenario.tick_ms > scenario.duration_ms {
        let wrong = Wrong::new(
            "the tick is longer than the run",
            "write a tick like \"10s\", or a longer duration",
        );
        reader.fault(&place, wrong);
    } else if scenario.duration_ms / scenario.tick_ms > TICKS_MAX {
        let wrong = Wrong::new(
            "more than 50 million ticks in a run",
            "write a longer tick or a shorter duration",
        );
        reader.fault(&place, wrong);
    }
    let per_tick = scenario.rate_per_s * scenario.tick_ms as f64 / 1_000.0;
    if per_tick > REQUESTS_PER_TICK_MAX {
        let wrong = Wrong::new(
            "more than a million requests in a tick",
            "write a shorter tick or a lower rate",
        );
        reader.fault(&place, wrong);
    }
}

fn time(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<i64> {
    reader
        .read(section, key, leaf::positive_duration)
        .map(leaf::ms)
}

/// Requests per second: a number, or a text with its unit of time.
fn rate(field: &Field<'_>) -> Result<f64, Wrong> {
    let remedy = "write requests per second, like 10 or 0.5, or a text like \"10/min\"";
    let wrong = || Wrong::new("this is no rate", remedy);
    let per_s = match field.value.as_str() {
        None => leaf::number(field).map_err(|wrong| Wrong::new(wrong.problem, remedy))?,
        Some(text) => {
            let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
            let seconds = match unit.trim() {
                "s" => 1.0,
                "min" | "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return Err(wrong()),
            };
            count.trim().parse::<f64>().map_err(|_| wrong())? / seconds
        }
    };
    if per_s > 0.0 && per_s <= 1e9 {
        Ok(per_s)
    } else {
        Err(wrong())
    }
}

/// A number from 0 to 1, or a share.
fn fraction(field: &Field<'_>) -> Result<f64, Wrong> {
    if field.value.is_str() {
        return leaf::share(field);
    }
    leaf::number(field).and_then(|number| {
        if number <= 1.0 {
            return Ok(number);
        }
        Err(Wrong::new(
            "the number is out of range",
            "write a number from 0 to 1",
        ))
    })
}

fn between(field: &Field<'_>, least: f64, most: f64, remedy: &str) -> Result<f64, Wrong> {
    let number = leaf::number(field)?;
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(Wrong::new("the number is out of range", remedy))
}

fn sigma(field: &Field<'_>) -> Result<f64, Wrong> {
    between(field, 0.0, 5.0, "write a number from 0 to 5, like 0.8")
}

fn factor(field: &Field<'_>) -> Result<f64, Wrong> {
    between(
        field,
        0.001,
        1_000.0,
        "write a factor from 0.001 to 1000, like 2.0",
    )
}

fn clusters(field: &Field<'_>) -> Result<f64, Wrong> {
    let remedy = "write how many failures come together, from 1 to 1000";
    between(field, 1.0, 1_000.0, remedy)
}
