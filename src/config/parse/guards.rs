//! `[rollout.guards]`: the limits that the canary must keep.
//!
//! A guard that is not named keeps its default, `"off"` removes it. One that is named has only the
//! limits it names: `max` alone is absolute, and an absent ratio or increase is the neutral one.

use super::super::raw::{Field, Reader, Section, Wrong};
use super::{defaults, leaf};
use crate::controller::policy::{GuardKind, GuardSpec, Margin};

const LIMITS: [&str; 3] = ["max", "max-ratio", "max-increase"];

pub(super) fn guards(reader: &mut Reader<'_>, rollout: &Section<'_>) -> Vec<GuardSpec> {
    let names: Vec<&str> = GuardKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let faults_before = reader.faults.len();
    let section = match rollout.get("guards") {
        Some(field) if field.value.is_table() => {
            let section = Section::of_table(&field);
            reader.check_keys_against(&section, &names);
            section
        }
        Some(field) => {
            reader.fault(&field.place, field.expected("a table of guards"));
            return Vec::new();
        }
        None => Section::absent(rollout.place_of("guards")),
    };
    let mut guards = Vec::new();
    for kind in GuardKind::ALL {
        let guard = match section.get(kind.as_str()) {
            Some(field) if leaf::is_off(&field) => None,
            Some(field) => guard(reader, &field, kind),
            None => Some(defaults::guard(kind)),
        };
        guards.extend(guard);
    }
    if guards.is_empty() && reader.faults.len() == faults_before {
        let wrong = Wrong::new(
            "every guard is off, so nothing would ever stop a bad canary",
            "leave at least one guard on, best error-rate",
        );
        reader.fault(&section.place, wrong);
    }
    guards
}

fn guard(reader: &mut Reader<'_>, field: &Field<'_>, kind: GuardKind) -> Option<GuardSpec> {
    let example = if kind.is_time() {
        "{ max-ratio = 1.5, max = \"20s\" }"
    } else {
        "{ max = \"5%\", max-ratio = 1.2, max-increase = \"0.4%\" }"
    };
    if !field.value.is_table() {
        let wrong = field.expected(&format!("a table like {example}, or \"off\","));
        let wrong = Wrong::new(wrong.problem, format!("write {example} or \"off\""));
        reader.fault(&field.place, wrong);
        return None;
    }
    let section = Section::of_table(field);
    reader.check_keys_against(&section, &LIMITS);
    let faults_before = reader.faults.len();
    let ceiling = reader.read(&section, "max", |field| ceiling(field, kind));
    let ratio = reader.read(&section, "max-ratio", ratio);
    let increase = increase(reader, &section, kind);
    if reader.faults.len() > faults_before {
        return None;
    }
    let relative = (ratio.is_some() || increase.is_some()).then(|| Margin {
        ratio: ratio.unwrap_or(defaults::ABSENT_RATIO),
        increase: increase.unwrap_or(defaults::ABSENT_INCREASE),
    });
    if relative.is_none() && ceiling.is_none() {
        let wrong = Wrong::new(
            "this guard sets no limit",
            format!("write {example}, or \"off\" to remove the guard"),
        );
        reader.fault(&section.place, wrong);
        return None;
    }
    if relative.is_some_and(|margin| margin.ratio <= 1.0 && margin.increase <= 0.0) {
        reader.warn(
            &section.place,
            "no margin at all: an equal canary can never be proven healthy",
            "raise max-ratio or max-increase",
        );
    }
    Some(GuardSpec {
        kind,
        relative,
        ceiling,
    })
}

fn ceiling(field: &Field<'_>, kind: GuardKind) -> Result<f64, Wrong> {
    if kind.is_time() {
        // A duration is at most ten years, far below 2^53 ms.
        return leaf::positive_duration(field).map(|max| max.as_secs_f64() * 1_000.0);
    }
    let share = leaf::share(field)?;
    if share > 0.0 {
        Ok(share)
    } else {
        Err(Wrong::new(
            "a ceiling of 0% is crossed by the first failure",
            "write a share above 0%, like \"5%\"",
        ))
    }
}

fn ratio(field: &Field<'_>) -> Result<f64, Wrong> {
    let ratio = leaf::number(field)?;
    if (0.01..=1_000.0).contains(&ratio) {
        Ok(ratio)
    } else {
        Err(Wrong::new(
            "a ratio lies between 0.01 and 1000",
            "write a factor on legacy's value, like 1.5",
        ))
    }
}

fn increase(reader: &mut Reader<'_>, section: &Section<'_>, kind: GuardKind) -> Option<f64> {
    let field = section.get("max-increase")?;
    if kind.is_time() {
        let wrong = Wrong::new(
            "a guard on times takes no max-increase",
            "use max-ratio = 1.5, or max = \"20s\"",
        );
        reader.fault(&field.place, wrong);
        return None;
    }
    reader.take(&field, leaf::share)
}
