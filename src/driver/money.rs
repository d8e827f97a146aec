//! Money: what each attempt cost, where that stands in the account of costs, and what budgets are left.
//!
//! An unknown cost is unknown and counted, never 0. Names come from clients and are bounded per day, so that
//! no client can make the account grow. Nothing here ever changes traffic: budgets only tell.

use std::collections::{BTreeMap, BTreeSet};

use crate::alert::Alert;
use crate::alert::kind::AlertKind;
use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::config::{BudgetConfig, Config};
use crate::llm;
use crate::sample::Sample;
use crate::store::{Bill, BudgetTold, DayCost, Spent, day_of};

mod budget;
mod day;

pub use budget::BudgetStatus;

use budget::Reached;
use day::Day;

/// An alert names so many of them.
const NAMED_MOST: usize = 10;
/// So many models without a price are named in the log, then there is silence.
const WARNED_MOST: usize = 64;
/// Of a model's name, receivers are shown so many characters.
const MODEL_SHOWN: usize = 100;
/// Attempts may end on the days after they began; a clock that jumps makes days as well.
const DAYS_MOST: usize = 3;

/// The driver's account.
#[derive(Debug, Default)]
pub(super) struct Money {
    days: BTreeMap<i64, Day>,
    /// Models without a price that were told of.
    warned: BTreeSet<(Arm, Box<str>)>,
    /// What was told of budgets and is not recorded yet.
    told: Vec<BudgetTold>,
    /// What was told of budgets of days that may not be over.
    open: Vec<BudgetTold>,
    /// Models without a price that receivers are to be told of.
    unpriced: Vec<(Arm, String)>,
    /// What else receivers are to be told.
    alerts: Vec<Alert>,
}

impl Money {
    /// Goes on from what is stored. Tells what the stored sums of today reach beyond what was told before:
    /// a budget may have been added or lowered while nothing ran.
    pub(super) fn restore(
        config: &Config,
        costs: &[DayCost],
        told: &[BudgetTold],
        now: UnixMillis,
    ) -> Self {
        let mut days: BTreeMap<i64, Day> = BTreeMap::new();
        for cost in costs {
            let day = days.entry(cost.bill.day).or_default();
            day.add(cost.arm, &cost.bill, &cost.spent);
        }
        let mut money = Self {
            days,
            open: told.to_vec(),
            ..Self::default()
        };
        money.watch(&[], &config.budgets, told, now);
        money
    }

    /// What was told of budgets since the last call, to be recorded.
    pub(super) fn take_told(&mut self) -> Vec<BudgetTold> {
        std::mem::take(&mut self.told)
    }

    /// What receivers are to be told, since the last call.
    pub(super) fn take_alerts(&mut self) -> Vec<Alert> {
        let mut alerts = std::mem::take(&mut self.alerts);
        alerts.extend(unpriced_alert(&std::mem::take(&mut self.unpriced)));
        alerts
    }

    /// Tomorrow is another budget: incidents of days that are over end.
    pub(super) fn end_days(&mut self, now: UnixMillis) {
        let today = day_of(now);
        let is_over = |told: &mut BudgetTold| told.day < today;
        let over = self.open.extract_if(.., is_over);
        self.alerts.extend(over.map(|told| budget::end_of(&told)));
    }

    fn tell(&mut self, reached: &[Reached]) {
        self.alerts.extend(reached.iter().map(Reached::tell));
        self.told.extend(reached.iter().map(Reached::told));
        self.open.extend(reached.iter().map(Reached::told));
    }

    /// Books an attempt: what it cost, if that is known, and where it stands, if it may have cost anything.
    /// Tells of budgets that it reached, and of a model without a price.
    pub(super) fn book(&mut self, config: &Config, sample: &Sample) -> (Option<f64>, Option<Bill>) {
        let cost_usd = cost_of(config, sample);
        if self.should_warn(config, sample) {
            let model = model_of(config, sample);
            warn_unpriced(sample.arm, model);
            // Names come from clients: a long one must not fill a receiver's screen.
            let shown = model.chars().take(MODEL_SHOWN).collect();
            self.unpriced.push((sample.arm, shown));
        }
        let (bill, reached) = self.spend(config, sample, cost_usd);
        self.tell(&reached);
        (cost_usd, bill)
    }

    fn spend(
        &mut self,
        config: &Config,
        sample: &Sample,
        cost_usd: Option<f64>,
    ) -> (Option<Bill>, Vec<Reached>) {
        if !sample.was_served() {
            return (None, Vec::new());
        }
        let (number, day) = self.day_at(config, sample.started_at);
        let bill = day.bill(number, config, model_of(config, sample), sample);
        let spent = Spent::by(sample, cost_usd);
        let reached = day.spend(&config.budgets, sample.arm, &bill, &spent);
        (Some(bill), reached)
    }

    /// The day of an attempt that began then. One that is older than all that are kept is booked on the
    /// oldest of them.
    fn day_at(&mut self, config: &Config, at: UnixMillis) -> (i64, &mut Day) {
        let mut number = day_of(at);
        if !self.days.contains_key(&number) {
            while self.days.len() >= DAYS_MOST {
                match self.days.first_key_value() {
                    Some((oldest, _)) if number < *oldest => {
                        number = *oldest;
                        break;
                    }
                    _ => drop(self.days.pop_first()),
                }
            }
        }
        let day = self.days.entry(number);
        let day = day.or_insert_with(|| Day::new(config.budgets.len()));
        (number, day)
    }

    /// True once for a model that has tokens but no price although others of its arm have one.
    fn should_warn(&mut self, config: &Config, sample: &Sample) -> bool {
        let prices = &config.arms.get(sample.arm).prices;
        let model = model_of(config, sample);
        sample.usage.is_some()
            && !prices.is_empty()
            && !prices.contains_key(model)
            && self.warned.len() < WARNED_MOST
            && self.warned.insert((sample.arm, model.into()))
    }

    /// Watches other budgets from now on. One that is new and reached already is told of at once.
    pub(super) fn reconfigure(&mut self, old: &Config, next: &Config, now: UnixMillis) {
        self.watch(&old.budgets, &next.budgets, &[], now);
    }

    /// Of days that are over nobody is told.
    fn watch(
        &mut self,
        old: &[BudgetConfig],
        next: &[BudgetConfig],
        told: &[BudgetTold],
        now: UnixMillis,
    ) {
        let mut of_today = Vec::new();
        for (number, day) in &mut self.days {
            let reached = day.watch(*number, old, next, told);
            if *number == day_of(now) {
                of_today = reached;
            }
        }
        self.tell(&of_today);
    }

    /// What is spent today.
    pub(super) fn status(&self, config: &Config, now: UnixMillis) -> Vec<BudgetStatus> {
        let day = self.days.get(&day_of(now));
        let budgets = config.budgets.iter().enumerate();
        budgets
            .map(|(place, budget)| {
                let spent = day.map(|day| day.spent(place)).unwrap_or_default();
                BudgetStatus::of(budget, day_of(now), &spent)
            })
            .collect()
    }
}

/// What an attempt cost in US dollars: known if its answer stated all of its tokens and its model has a
/// price. A stream that broke off has stated only some.
fn cost_of(config: &Config, sample: &Sample) -> Option<f64> {
    let usage = sample.usage.as_ref().filter(|_| sample.complete)?;
    let prices = &config.arms.get(sample.arm).prices;
    prices
        .get(model_of(config, sample))
        .map(|price| llm::cost_usd(price, usage))
}

/// The arm's own name of the model; empty if the request named none.
pub(super) fn model_of<'a>(config: &'a Config, sample: &'a Sample) -> &'a str {
    let asked = sample.model.as_deref().unwrap_or_default();
    let models = &config.arms.get(sample.arm).models;
    models.get(asked).map_or(asked, String::as_str)
}

fn warn_unpriced(arm: Arm, model: &str) {
    tracing::warn!(
        alert = AlertKind::Unpriced.as_str(),
        %arm,
        model,
        "this model has no price: what it costs is unknown and in no budget; add it to the prices of this arm"
    );
}

/// One message for all models that were found at once: after a restart those of a whole day may be.
fn unpriced_alert(found: &[(Arm, String)]) -> Option<Alert> {
    let unknown = "what it costs is unknown and in no budget; add it to";
    let (subject, text) = match found {
        [] => return None,
        [(arm, model)] => (
            format!("{arm} {model}"),
            format!("{unknown} arms.{arm}.prices"),
        ),
        _ => {
            let named = found.iter().take(NAMED_MOST);
            let named: Vec<String> = named.map(|(arm, model)| format!("{arm} {model}")).collect();
            let mut names = named.join(", ");
            if found.len() > NAMED_MOST {
                names.push_str(&format!(" and {} more", found.len() - NAMED_MOST));
            }
            let subject = format!("{} models", found.len());
            (subject, format!("{names}: {unknown} the arm's prices"))
        }
    };
    Some(Alert::new(AlertKind::Unpriced, text).about(subject))
}

#[cfg(test)]
mod tests;
