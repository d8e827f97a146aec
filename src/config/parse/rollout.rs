//! `[[rollout]]`: what is covered, the ladder of weights, and the rules of the controller.
//!
//! Reads values and fills in defaults. No rollout in the file means one with every default.

use http::HeaderName;

use super::super::raw::{Field, Place, Reader, Section, Wrong};
use super::super::values::Glob;
use super::super::{RolloutConfig, Sticky};
use super::{daemon, defaults, guards, leaf};
use crate::arm::Weight;
use crate::controller::policy::{OnHarm, Policy, Stage, TripPolicy};

/// Each one with the place that its faults belong to.
pub(super) fn rollouts(reader: &mut Reader<'_>, root: &Section<'_>) -> Vec<(RolloutConfig, Place)> {
    let Some(field) = root.get("rollout") else {
        let absent = Section::absent(root.place_of("rollout"));
        return vec![(rollout(reader, &absent), absent.place)];
    };
    let mut elements = field.elements().unwrap_or_else(|| vec![field.clone()]);
    if let [only] = elements.as_mut_slice() {
        // With a single rollout its number says nothing.
        only.place.path.clone_from(&field.place.path);
    }
    let mut rollouts = Vec::new();
    for element in &elements {
        let section = reader.open(element, "rollout");
        if element.value.is_table() {
            let place = section.place_of("name");
            rollouts.push((rollout(reader, &section), place));
        }
    }
    rollouts
}

fn rollout(reader: &mut Reader<'_>, section: &Section<'_>) -> RolloutConfig {
    let covered = reader.section(section, "match", "rollout.match");
    let mut globs = |key: &str| -> Vec<Glob> {
        let texts = reader.read(&covered, key, leaf::texts).unwrap_or_default();
        texts.iter().map(|text| Glob::new(text)).collect()
    };
    let (match_models, match_paths) = (globs("models"), globs("paths"));
    let sticky = reader
        .read(section, "sticky", sticky)
        .unwrap_or(Sticky::Auto);
    RolloutConfig {
        match_models,
        match_paths,
        name: reader
            .read(section, "name", name)
            .unwrap_or_else(|| defaults::ROLLOUT_NAME.to_owned()),
        failover: reader
            .read(section, "failover", leaf::boolean)
            .unwrap_or(defaults::FAILOVER),
        policy: policy(reader, section, sticky == Sticky::None),
        sticky,
    }
}

/// The rules of a rollout that sets none.
pub(super) fn default_policy() -> Policy {
    let mut reader = Reader::new("", &|_| None);
    let nowhere = Place {
        path: String::new(),
        span: 0..0,
    };
    policy(&mut reader, &Section::absent(nowhere), false)
}

fn policy(reader: &mut Reader<'_>, section: &Section<'_>, independent_split: bool) -> Policy {
    Policy {
        warm_up_requests: reader
            .read(section, "warm-up", |field| {
                leaf::whole(field, 0, u64::from(u32::MAX))
            })
            .unwrap_or(defaults::WARM_UP_REQUESTS),
        stages: stages(reader, section),
        on_harm: on_harm(reader, section),
        alpha_rollback: reader
            .read(section, "confidence", leaf::alpha)
            .unwrap_or_else(|| leaf::alpha_of(defaults::CONFIDENCE_PERCENT)),
        alpha_promote: reader
            .read(section, "promote-confidence", leaf::alpha)
            .unwrap_or_else(|| leaf::alpha_of(defaults::PROMOTE_CONFIDENCE_PERCENT)),
        trip: trip(reader, section),
        retreat: retreat(reader, section),
        cooldown_ms: reader
            .read(section, "cooldown", leaf::duration_ms)
            .unwrap_or_else(|| leaf::ms(defaults::COOLDOWN)),
        max_attempts: reader
            .read(section, "max-attempts", |field| small(field, 1_000))
            .unwrap_or(defaults::MAX_ATTEMPTS),
        independent_split,
        guards: guards::guards(reader, section),
    }
}

fn on_harm(reader: &mut Reader<'_>, rollout: &Section<'_>) -> OnHarm {
    let words = [
        ("roll-back", OnHarm::RollBack),
        ("step-back", OnHarm::StepBack),
        ("hold", OnHarm::Hold),
    ];
    reader
        .read(rollout, "on-harm", |field| leaf::word(field, &words))
        .unwrap_or(OnHarm::RollBack)
}

fn small(field: &Field<'_>, most: u32) -> Result<u32, Wrong> {
    leaf::whole(field, 1, u64::from(most)).map(|number| u32::try_from(number).unwrap_or(most))
}

fn name(field: &Field<'_>) -> Result<String, Wrong> {
    let name = leaf::text(field)?;
    let good = name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if good {
        Ok(name)
    } else {
        Err(Wrong::new(
            "a rollout's name goes into URLs and metrics",
            "use 1 to 64 of a-z, 0-9, - and _",
        ))
    }
}

fn sticky(field: &Field<'_>) -> Result<Sticky, Wrong> {
    let what = "\"auto\", \"none\", \"header:NAME\" or \"body:FIELD\"";
    let text = field.value.as_str().ok_or_else(|| field.expected(what))?;
    let remedy = format!("write {what}");
    match text.split_once(':') {
        None if text == "auto" => Ok(Sticky::Auto),
        None if text == "none" => Ok(Sticky::None),
        Some(("header", header)) => HeaderName::from_bytes(header.trim().as_bytes())
            .map(Sticky::Header)
            .map_err(|_| Wrong::new("this is no name of a header", remedy)),
        Some(("body", key)) if !key.trim().is_empty() => Ok(Sticky::Body(key.trim().to_owned())),
        _ => Err(Wrong::new("this is no sticky key", remedy)),
    }
}

fn stages(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<Stage> {
    let Some(field) = section.get("stages") else {
        return defaults::stages();
    };
    let Some(elements) = field.elements() else {
        let what = "a list like [ { weight = \"5%\", dwell = \"1h\" }, { weight = \"100%\" } ]";
        reader.fault(&field.place, field.expected(what));
        return defaults::stages();
    };
    if elements.is_empty() {
        let wrong = Wrong::new("no stage at all", "write at least one, or remove the key");
        reader.fault(&field.place, wrong);
    }
    let mut stages: Vec<Stage> = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        let is_last = index + 1 == elements.len();
        let Some((stage, place)) = stage(reader, element, is_last) else {
            continue;
        };
        if let Some(before) = stages.last()
            && stage.weight <= before.weight
        {
            let wrong = Wrong::new(
                format!(
                    "{} after {}: weights must rise from stage to stage",
                    stage.weight, before.weight
                ),
                "put the stages in rising order, each weight once",
            );
            reader.fault(&place, wrong);
        }
        stages.push(stage);
    }
    stages
}

/// A stage and the place of its weight.
fn stage(reader: &mut Reader<'_>, element: &Field<'_>, is_last: bool) -> Option<(Stage, Place)> {
    let default_dwell = if is_last {
        defaults::LAST_DWELL_MS
    } else {
        defaults::DWELL_MS
    };
    if element.value.is_str() {
        let weight = reader.take(element, leaf::weight)?;
        let stage = Stage {
            weight,
            dwell_ms: default_dwell,
            approve: false,
        };
        return Some((stage, element.place.clone()));
    }
    let section = reader.open(element, "rollout.stages");
    element.value.as_table()?;
    daemon::not_built(reader, &section, "shadow", "a shadow stage");
    let dwell_ms = reader
        .read(&section, "dwell", leaf::duration_ms)
        .unwrap_or(default_dwell);
    let approve = reader
        .read(&section, "approve", leaf::boolean)
        .unwrap_or(false);
    if section.get("weight").is_none() && section.get("shadow").is_none() {
        let wrong = Wrong::new("a stage without weight", "add weight = \"5%\"");
        reader.fault(&section.place, wrong);
    }
    let weight = reader.read(&section, "weight", leaf::weight)?;
    let stage = Stage {
        weight,
        dwell_ms,
        approve,
    };
    Some((stage, section.place_of("weight")))
}

fn trip(reader: &mut Reader<'_>, rollout: &Section<'_>) -> Option<TripPolicy> {
    let Some(field) = rollout.get("trip") else {
        return Some(defaults::TRIP);
    };
    if leaf::is_off(&field) {
        reader.warn(
            &field.place,
            "without the trip, an outage of the canary lasts until the rollback is proven",
            "remove this line unless that is meant",
        );
        return None;
    }
    if !field.value.is_table() {
        let what = "{ cooldown = \"5m\", max-per-day = 3 } or \"off\"";
        reader.fault(&field.place, field.expected(what));
        return None;
    }
    let section = reader.open(&field, "rollout.trip");
    Some(TripPolicy {
        cooldown_ms: reader
            .read(&section, "cooldown", leaf::positive_duration)
            .map_or(defaults::TRIP.cooldown_ms, leaf::ms),
        max_per_day: reader
            .read(&section, "max-per-day", |field| small(field, 1_000))
            .unwrap_or(defaults::TRIP.max_per_day),
    })
}

fn retreat(reader: &mut Reader<'_>, rollout: &Section<'_>) -> Option<Weight> {
    let Some(field) = rollout.get("retreat") else {
        return Weight::from_bps(defaults::RETREAT_BPS);
    };
    if leaf::is_off(&field) {
        return None;
    }
    reader.take(&field, |field| {
        if !field.value.is_str() {
            return Err(field.expected("a share like \"50%\", or \"off\","));
        }
        let weight = leaf::weight(field)?;
        if weight == Weight::FULL {
            return Err(Wrong::new(
                "a retreat to 100% is none",
                "write a share below 100%, like \"50%\", or \"off\"",
            ));
        }
        Ok(weight)
    })
}
