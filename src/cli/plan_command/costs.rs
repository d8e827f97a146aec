//! What the traffic costs in a month on each arm, from the price tables of the configuration.
//!
//! Pure. A price that is not configured makes a cost unknown, never 0.

use std::collections::BTreeSet;

use super::read::Tokens;
use crate::arm::{Arm, PerArm};
use crate::config::values::Price;
use crate::config::{ArmConfig, Config};

/// Seconds of a month of 30 days.
const MONTH_S: f64 = 30.0 * 86_400.0;

/// US dollars a month with all of the traffic on one arm.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Costs {
    /// The model, as clients name it; `None` when none has a price.
    pub(super) model: Option<String>,
    pub(super) usd: PerArm<Option<f64>>,
}

impl Costs {
    /// The costs of one model.
    ///
    /// # Errors
    /// When prices of several models are configured and none was named, or the named one has no price.
    pub(super) fn of(
        config: &Config,
        model: Option<&str>,
        tokens: &Tokens,
        requests_per_s: f64,
    ) -> Result<Self, String> {
        let arms = &config.arms;
        let names = names(arms);
        let listed = || names.iter().copied().collect::<Vec<_>>().join(", ");
        let model = match model {
            Some(model) if names.contains(model) => model,
            Some(model) if names.is_empty() => {
                return Err(format!(
                    "there is no price for {model}: no arm has `prices` in the configuration"
                ));
            }
            Some(model) => {
                return Err(format!(
                    "there is no price for {model}; priced are: {}",
                    listed()
                ));
            }
            None => match only(arms, &names) {
                Ok(Some(model)) => model,
                Ok(None) => return Ok(Self::default()),
                Err(()) => {
                    return Err(format!(
                        "several models have prices; name one with --model: {}",
                        listed()
                    ));
                }
            },
        };
        let month = |arm: Arm| {
            price(arms.get(arm), model).map(|price| {
                let micro_usd = tokens.input * price.input + tokens.output * price.output;
                micro_usd / 1e6 * requests_per_s * MONTH_S
            })
        };
        Ok(Self {
            model: Some(model.to_owned()),
            usd: PerArm::from_fn(month),
        })
    }

    /// What the migration saves in a month; negative when the canary costs more.
    pub(super) fn savings(&self) -> Option<f64> {
        Some(self.usd.legacy? - self.usd.canary?)
    }
}

/// Names that clients may use for models with a price on some arm.
fn names(arms: &PerArm<ArmConfig>) -> BTreeSet<&str> {
    Arm::BOTH
        .into_iter()
        .map(|arm| arms.get(arm))
        .flat_map(|arm| arm.models.keys().chain(arm.prices.keys()))
        .map(String::as_str)
        .filter(|name| {
            Arm::BOTH
                .into_iter()
                .any(|arm| price(arms.get(arm), name).is_some())
        })
        .collect()
}

/// The only model that matters: priced on both arms, else on legacy, else at all. Names that lead to the
/// same prices are one model.
fn only<'a>(arms: &PerArm<ArmConfig>, names: &BTreeSet<&'a str>) -> Result<Option<&'a str>, ()> {
    let has = |arm: Arm, name: &str| price(arms.get(arm), name).is_some();
    let both = |name: &str| has(Arm::Legacy, name) && has(Arm::Canary, name);
    let legacy = |name: &str| has(Arm::Legacy, name);
    let ranks: [&dyn Fn(&str) -> bool; 3] = [&both, &legacy, &|_| true];
    for rank in ranks {
        let mut found = names.iter().copied().filter(|name| rank(name));
        let Some(first) = found.next() else { continue };
        let target = |name: &str| {
            let PerArm { legacy, canary } = arms;
            (
                sent_as(legacy, name).to_owned(),
                sent_as(canary, name).to_owned(),
            )
        };
        return if found.all(|other| target(other) == target(first)) {
            Ok(Some(first))
        } else {
            Err(())
        };
    }
    Ok(None)
}

/// The arm's name of a client's model.
fn sent_as<'a>(arm: &'a ArmConfig, name: &'a str) -> &'a str {
    arm.models.get(name).map_or(name, String::as_str)
}

fn price<'a>(arm: &'a ArmConfig, name: &'a str) -> Option<&'a Price> {
    arm.prices.get(sent_as(arm, name))
}
