//! The answer of `cutover plan` for a person: a table, three sentences, advice.

use super::Answer;
use super::costs::Costs;
use crate::cli::table;
use crate::clock::for_people;
use crate::controller::plan::{Proof, Spread, StagePlan, Traffic, rate_words, roughly};

pub(super) fn answer(answer: &Answer) -> String {
    let rules = answer.config.as_deref().unwrap_or("built-in rules");
    let mut text = format!(
        "rollout {} ({rules}) at {}\n\n",
        answer.rollout,
        traffic(&answer.traffic)
    );
    let mut rows = vec![
        [
            "stage",
            "weight",
            "canary requests",
            "proof takes",
            "dwell",
            "stage lasts",
            "decided by",
        ]
        .map(str::to_owned),
    ];
    let of = answer.plan.stages.len();
    let stages = answer.plan.stages.iter().enumerate();
    rows.extend(stages.map(|(index, stage)| row(index, of, stage)));
    table::write_columns(&mut text, &rows);
    text.push('\n');
    if answer.warm_up_requests > 0 {
        text.push_str(&format!(
            "warm-up      {} legacy requests, about {}\n",
            thousands(answer.warm_up_requests as f64),
            roughly(answer.plan.warm_up_ms as f64)
        ));
    }
    text.push_str(&match answer.plan.total_ms {
        Some(total) => {
            let (usual, slow) = (roughly(total.usual), roughly(total.p90));
            if usual == slow {
                format!("migration    about {usual} in all\n")
            } else {
                format!("migration    about {usual} in all; one in ten takes more than {slow}\n")
            }
        }
        None => "migration    never ends by itself\n".to_owned(),
    });
    text.push_str(&costs(answer));
    if !answer.advice.is_empty() {
        text.push_str("\nadvice\n");
    }
    for advice in &answer.advice {
        text.push_str(&format!("  - {advice}\n"));
    }
    text
}

fn traffic(traffic: &Traffic) -> String {
    let mut parts = vec![
        rate_words(traffic.requests_per_s),
        format!("legacy errors {}", percent(traffic.legacy_error_rate)),
    ];
    if let Some(streamed) = traffic.streamed {
        parts.push(format!("{} streamed", percent(streamed)));
    }
    parts.join(", ")
}

fn row(index: usize, of: usize, stage: &StagePlan) -> [String; 7] {
    let (requests, taken) = match stage.proof {
        Proof::Takes { requests, ms, .. } => (
            both(requests, |count| thousands(two_digits(count))),
            both(ms, roughly),
        ),
        Proof::NotNeeded => ("-".to_owned(), "-".to_owned()),
        Proof::Never(_) | Proof::NoGuard => ("never".to_owned(), "never".to_owned()),
    };
    let decides = match stage.proof {
        Proof::Takes { slowest, ms, .. } if ms.usual > stage.dwell_ms as f64 => {
            format!("proof ({})", slowest.as_str())
        }
        Proof::Never(guard) => format!("proof ({})", guard.as_str()),
        Proof::NotNeeded if stage.dwell_ms == 0 => "-".to_owned(),
        Proof::Takes { .. } | Proof::NotNeeded | Proof::NoGuard => {
            stage.dominates().as_str().to_owned()
        }
    };
    let gate = if stage.approve { ", then approval" } else { "" };
    [
        format!("{}/{of}", index + 1),
        stage.weight.to_string(),
        requests,
        taken,
        match stage.dwell_ms {
            0 => "-".to_owned(),
            dwell_ms => for_people(dwell_ms),
        },
        match stage.time_ms {
            None => "no end".to_owned(),
            Some(time) if time.p90 <= 0.0 => "-".to_owned(),
            Some(time) => both(time, roughly),
        },
        format!("{decides}{gate}"),
    ]
}

/// `2,400 (4,600)`, or one value where both are the same.
fn both(spread: Spread, word: impl Fn(f64) -> String) -> String {
    let (usual, p90) = (word(spread.usual), word(spread.p90));
    if usual == p90 {
        usual
    } else {
        format!("{usual} ({p90})")
    }
}

fn costs(answer: &Answer) -> String {
    let Some(costs) = &answer.costs else {
        return String::new();
    };
    let Costs { model, usd } = costs;
    let of = model
        .as_ref()
        .map_or(String::new(), |model| format!(" ({model})"));
    let mut text = format!(
        "per month    legacy {}, canary {}, saves {}{of}\n",
        dollars(usd.legacy),
        dollars(usd.canary),
        dollars(costs.savings())
    );
    if costs.savings().is_none() {
        let remedy = match answer.config {
            Some(_) => "add `prices` to both arms for what is unknown",
            None => "name a configuration with `prices` for both arms with --config",
        };
        text.push_str(&format!("             {remedy}\n"));
    }
    text
}

fn dollars(usd: Option<f64>) -> String {
    match usd {
        None => "unknown".to_owned(),
        Some(usd) => {
            let sign = if usd < 0.0 { "-" } else { "" };
            let usd = usd.abs();
            if usd < 100.0 {
                format!("{sign}${usd:.2}")
            } else {
                format!("{sign}${}", thousands(usd))
            }
        }
    }
}

fn percent(share: f64) -> String {
    let text = format!("{:.3}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Rounded to two significant digits, as estimates are.
fn two_digits(count: f64) -> f64 {
    let unit = 10f64.powf((count.max(1.0).log10().floor() - 1.0).max(0.0));
    (count / unit).round() * unit
}

fn thousands(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
