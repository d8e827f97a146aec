//! One budget on one day: how far it is spent, and when people are told.
//!
//! Each threshold is told once; who leaps over both at once hears of the higher.

use serde::Serialize;

use crate::alert::Alert;
use crate::alert::kind::{AlertKind, Severity};
use crate::arm::Arm;
use crate::config::BudgetConfig;
use crate::driver::status::rounded;
use crate::store::{BudgetTold, Spent, date_of};

/// People are told at these shares, in percent.
const THRESHOLDS: [u32; 2] = [100, 80];
/// Sums of the same numbers in another order differ by less, relatively.
const TOLERANCE: f64 = 1e-9;

/// A budget in `status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BudgetStatus {
    /// Its name.
    pub name: String,
    /// The day in UTC, `2026-11-21`.
    pub day: String,
    /// The arm it covers; `null`: both.
    pub arm: Option<Arm>,
    /// The models it covers, a pattern; `null`: all.
    pub model: Option<String>,
    /// The tag it covers; `null`: all.
    pub tag: Option<String>,
    /// What a day may cost.
    pub usd_per_day: f64,
    /// What is spent today, as far as it is known; `null` if there were attempts and none of known cost.
    pub spent_usd: Option<f64>,
    /// `spent_usd / usd_per_day`.
    pub share: Option<f64>,
    /// Covered attempts of today that stated tokens, but whose cost is unknown.
    pub unpriced: u64,
    /// Covered attempts of today that were answered and stated no tokens.
    pub no_usage: u64,
}

impl BudgetStatus {
    pub(super) fn of(budget: &BudgetConfig, day: i64, spent: &Spent) -> Self {
        let is_idle = spent.unpriced == 0 && spent.no_usage == 0;
        let usd = spent.cost_usd.or(is_idle.then_some(0.0));
        Self {
            name: budget.name.clone(),
            day: date_of(day),
            arm: budget.arm,
            model: budget.model.as_ref().map(|glob| glob.as_str().to_owned()),
            tag: budget.tag.clone(),
            usd_per_day: budget.usd_per_day,
            spent_usd: usd.map(rounded),
            share: usd.map(|usd| rounded(usd / budget.usd_per_day)),
            unpriced: spent.unpriced,
            no_usage: spent.no_usage,
        }
    }
}

/// What is known of a budget on one day.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    spent: Spent,
    /// The threshold that was told last, in percent; 0 for none.
    told: u32,
}

/// A threshold that was reached.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reached {
    pub(super) budget: String,
    pub(super) percent: u32,
    spent_usd: f64,
    usd_per_day: f64,
    day: i64,
    covers: String,
    /// Covered attempts that are not in the sum.
    unknown: u64,
}

impl Watch {
    /// A watch of which so many percent were told before.
    pub(super) fn told_before(percent: u32) -> Self {
        Self {
            told: percent,
            ..Self::default()
        }
    }

    /// Adds to what is spent; tells the threshold that is reached with it.
    pub(super) fn spend(
        &mut self,
        budget: &BudgetConfig,
        day: i64,
        spent: &Spent,
    ) -> Option<Reached> {
        self.spent.add(spent);
        let usd = self.spent.cost_usd?;
        let share = usd / budget.usd_per_day * (1.0 + TOLERANCE);
        let percent = THRESHOLDS
            .into_iter()
            .find(|percent| share * 100.0 >= f64::from(*percent))?;
        if percent <= self.told {
            return None;
        }
        self.told = percent;
        Some(Reached {
            budget: budget.name.clone(),
            percent,
            spent_usd: rounded(usd),
            usd_per_day: budget.usd_per_day,
            day,
            covers: covered(budget),
            unknown: self.spent.unpriced + self.spent.no_usage,
        })
    }

    pub(super) fn spent(&self) -> Spent {
        self.spent
    }
}

impl Reached {
    /// What the store remembers of it.
    pub(super) fn told(&self) -> BudgetTold {
        BudgetTold {
            day: self.day,
            budget: self.budget.clone(),
            percent: self.percent,
            usd_per_day: self.usd_per_day,
        }
    }

    /// Writes a line of the log; gives what receivers are told.
    pub(super) fn tell(&self) -> Alert {
        macro_rules! tell {
            ($tell:ident, $message:literal) => {
                tracing::$tell!(
                    alert = AlertKind::Budget.as_str(),
                    budget = self.budget,
                    day = date_of(self.day),
                    spent_usd = self.spent_usd,
                    usd_per_day = self.usd_per_day,
                    covers = self.covers,
                    requests_of_unknown_cost = self.unknown,
                    $message
                )
            };
        }
        if self.percent >= 100 {
            tell!(error, "this day's budget is spent; traffic goes on");
        } else {
            tell!(warn, "80% of this day's budget is spent");
        }
        self.alert()
    }

    fn alert(&self) -> Alert {
        let day = date_of(self.day);
        let mut text = format!(
            "{:.2} of {} US dollars are spent on {day} ({}); traffic goes on",
            self.spent_usd, self.usd_per_day, self.covers
        );
        if self.unknown > 0 {
            text.push_str(&format!(" · {} requests of unknown cost", self.unknown));
        }
        let kind = AlertKind::Budget;
        let severity = if self.percent >= 100 {
            Severity::Critical
        } else {
            kind.severity()
        };
        Alert {
            severity,
            ..Alert::new(kind, text).about(subject(&self.told()))
        }
    }
}

/// Each threshold of each day is an incident of its own: the second one must page although the first is open.
fn subject(told: &BudgetTold) -> String {
    format!("{} {} {}%", told.budget, date_of(told.day), told.percent)
}

/// Closes what was told of a day that is over. People need not hear of it.
pub(super) fn end_of(told: &BudgetTold) -> Alert {
    let kind = AlertKind::Budget;
    Alert {
        quiet: true,
        severity: Severity::Info,
        ..Alert::new(kind, String::new())
            .about(subject(told))
            .ends(vec![kind])
    }
}

/// True if the budget counts what this arm, model and tag cost.
pub(super) fn covers(budget: &BudgetConfig, arm: Arm, model: &str, tag: &str) -> bool {
    budget.arm.is_none_or(|only| only == arm)
        && budget.model.as_ref().is_none_or(|glob| glob.matches(model))
        && budget.tag.as_deref().is_none_or(|only| only == tag)
}

/// What a budget covers, for people.
fn covered(budget: &BudgetConfig) -> String {
    let arm = budget.arm.map(|arm| format!("arm {arm}"));
    let model = budget.model.as_ref();
    let model = model.map(|glob| format!("model {}", glob.as_str()));
    let tag = budget.tag.as_ref().map(|tag| format!("tag {tag}"));
    let parts: Vec<String> = [arm, model, tag].into_iter().flatten().collect();
    if parts.is_empty() {
        "all traffic".to_owned()
    } else {
        parts.join(", ")
    }
}
