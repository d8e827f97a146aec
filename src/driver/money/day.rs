//! The account of one day: its names, its sums, and how far its budgets are spent.
//!
//! Bounded by its names: [`NAMES_MOST`] models and as many tags, besides those that the configuration names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::budget::{Reached, Watch, covers};
use crate::arm::Arm;
use crate::config::{BudgetConfig, Config};
use crate::sample::Sample;
use crate::store::{Bill, BudgetTold, Spent};

/// A day has so many models and so many tags of its own, besides those that the configuration names.
pub(super) const NAMES_MOST: usize = 200;
/// Stands for all further ones.
pub(super) const OTHER: &str = "other";

/// One day.
#[derive(Debug, Default)]
pub(super) struct Day {
    models: Names,
    tags: Names,
    /// (arm, model, tag) -> what it comes to, for budgets that are added during the day.
    lines: BTreeMap<(Arm, Arc<str>, Arc<str>), Spent>,
    /// One for each budget, in the same order.
    watches: Vec<Watch>,
}

/// Names that clients chose, bounded.
#[derive(Debug, Default)]
struct Names(BTreeSet<Arc<str>>);

impl Names {
    /// The name itself if it is known, has room, or is one of the configuration's.
    fn keep(&mut self, name: &str, is_configured: bool) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let has_room = name.is_empty() || self.0.len() < NAMES_MOST;
        let name: Arc<str> = if has_room || is_configured {
            name.into()
        } else {
            OTHER.into()
        };
        self.0.insert(Arc::clone(&name));
        name
    }
}

impl Day {
    pub(super) fn new(budgets: usize) -> Self {
        Self {
            watches: vec![Watch::default(); budgets],
            ..Self::default()
        }
    }

    /// Takes over what was stored; [`Day::watch`] must follow.
    pub(super) fn add(&mut self, arm: Arm, bill: &Bill, spent: &Spent) {
        let model = self.models.keep(&bill.model, true);
        let tag = self.tags.keep(&bill.tag, true);
        self.lines.entry((arm, model, tag)).or_default().add(spent);
    }

    /// Where an attempt stands.
    pub(super) fn bill(&mut self, day: i64, config: &Config, model: &str, sample: &Sample) -> Bill {
        let has_price = config.arms.get(sample.arm).prices.contains_key(model);
        let tag = sample.tag.as_deref().unwrap_or_default();
        let mut tags = config.budgets.iter().filter_map(|it| it.tag.as_deref());
        let has_budget = tags.any(|named| named == tag);
        Bill {
            day,
            model: self.models.keep(model, has_price),
            tag: self.tags.keep(tag, has_budget),
        }
    }

    /// Adds an attempt; tells what budgets have reached with it.
    pub(super) fn spend(
        &mut self,
        budgets: &[BudgetConfig],
        arm: Arm,
        bill: &Bill,
        spent: &Spent,
    ) -> Vec<Reached> {
        let key = (arm, Arc::clone(&bill.model), Arc::clone(&bill.tag));
        self.lines.entry(key).or_default().add(spent);
        let watched = budgets.iter().zip(&mut self.watches);
        let covering = watched.filter(|(it, _)| covers(it, arm, &bill.model, &bill.tag));
        covering
            .filter_map(|(budget, watch)| watch.spend(budget, bill.day, spent))
            .collect()
    }

    /// Watches `next` in place of `old`; tells what those of them that are new have reached already, beyond
    /// what was `told` before.
    pub(super) fn watch(
        &mut self,
        day: i64,
        old: &[BudgetConfig],
        next: &[BudgetConfig],
        told: &[BudgetTold],
    ) -> Vec<Reached> {
        let mut reached = Vec::new();
        let mut watches = Vec::with_capacity(next.len());
        for budget in next {
            let kept = old.iter().position(|known| known == budget);
            if let Some(watch) = kept.and_then(|place| self.watches.get(place)) {
                watches.push(watch.clone());
                continue;
            }
            let mut watch = Watch::told_before(told_of(told, day, budget));
            let mut sum = Spent::default();
            for ((arm, model, tag), spent) in &self.lines {
                if covers(budget, *arm, model, tag) {
                    sum.add(spent);
                }
            }
            reached.extend(watch.spend(budget, day, &sum));
            watches.push(watch);
        }
        self.watches = watches;
        reached
    }

    /// What is spent of the budget at this place.
    pub(super) fn spent(&self, place: usize) -> Spent {
        self.watches
            .get(place)
            .map(Watch::spent)
            .unwrap_or_default()
    }
}

/// The highest threshold of a budget that was told; 0 for none. One of another height is another budget.
fn told_of(told: &[BudgetTold], day: i64, budget: &BudgetConfig) -> u32 {
    let same = |it: &&BudgetTold| {
        it.day == day
            && it.budget == budget.name
            && it.usd_per_day.to_bits() == budget.usd_per_day.to_bits()
    };
    let percents = told.iter().filter(same).map(|it| it.percent);
    percents.max().unwrap_or(0)
}
