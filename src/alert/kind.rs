//! What people are told of: one closed vocabulary for logs, receivers, filters and the runbook.
//!
//! Pure. The words are part of the interface: scripts and runbooks name them.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know; also every recovery.
    Info,
    /// Somebody should look today.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// The word that receivers see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// The first stage begins.
    Start,
    /// Up to the next stage.
    Promote,
    /// The last stage's dwell is over.
    Complete,
    /// A hold, a trip or a retreat ended.
    Resume,
    /// A new attempt after a rollback.
    Retry,
    /// An operator chose a weight.
    SetWeight,
    /// The configuration changed the weight, or ended what was told of.
    Config,
    /// The rollout is no longer configured.
    Stop,
    /// The fuse: the canary gets nothing, the stage is kept.
    Trip,
    /// Back to 0%, or a stage down.
    RollBack,
    /// Down to where the arms compare faster.
    Retreat,
    /// Harm is proven and an operator has to say what follows.
    Harm,
    /// The rollout has been held for `held-after`.
    Held,
    /// All is proven and an operator has to say yes.
    Approval,
    /// The canary refuses its key.
    Credentials,
    /// A ledger held no number.
    Evidence,
    /// Both arms fail at once.
    CommonCause,
    /// The measured split does not match the weight.
    Split,
    /// The canary's rate limits do not carry the next stage.
    Headroom,
    /// The proof of a stage takes days.
    LowTraffic,
    /// Legacy fails while the canary does not.
    LegacyFailing,
    /// The end of that.
    LegacyRecovered,
    /// The clock went back.
    Clock,
    /// A budget is spent to 80% or to 100%.
    Budget,
    /// A model without a price.
    Unpriced,
    /// Nothing can be recorded.
    StoreFailing,
    /// The end of that.
    StoreRecovered,
    /// The database was set aside at the start.
    StoreCorrupt,
    /// A rollout's stored state cannot be read.
    StateUnreadable,
    /// A new configuration has faults.
    ConfigRejected,
    /// The end of that.
    ConfigAccepted,
    /// Connections to an arm fail.
    ArmUnreachable,
    /// The end of that.
    ArmReachable,
    /// `cutover alert-test`.
    Test,
}

impl AlertKind {
    /// Every kind.
    pub const ALL: [Self; 34] = [
        Self::Start,
        Self::Promote,
        Self::Complete,
        Self::Resume,
        Self::Retry,
        Self::SetWeight,
        Self::Config,
        Self::Stop,
        Self::Trip,
        Self::RollBack,
        Self::Retreat,
        Self::Harm,
        Self::Held,
        Self::Approval,
        Self::Credentials,
        Self::Evidence,
        Self::CommonCause,
        Self::Split,
        Self::Headroom,
        Self::LowTraffic,
        Self::LegacyFailing,
        Self::LegacyRecovered,
        Self::Clock,
        Self::Budget,
        Self::Unpriced,
        Self::StoreFailing,
        Self::StoreRecovered,
        Self::StoreCorrupt,
        Self::StateUnreadable,
        Self::ConfigRejected,
        Self::ConfigAccepted,
        Self::ArmUnreachable,
        Self::ArmReachable,
        Self::Test,
    ];

    /// The word, the severity, and what is said of the subject.
    const fn facts(self) -> (&'static str, Severity, &'static str) {
        use Severity::{Critical, Info, Warning};
        match self {
            Self::Start => ("start", Info, "the first stage begins"),
            Self::Promote => ("promote", Info, "promoted"),
            Self::Complete => ("complete", Info, "complete"),
            Self::Resume => ("resume", Info, "resumed"),
            Self::Retry => ("retry", Info, "a new attempt begins"),
            Self::SetWeight => ("set-weight", Info, "an operator set the weight"),
            Self::Config => ("config", Info, "the configuration changed the rollout"),
            Self::Stop => ("stop", Info, "no longer configured"),
            Self::Trip => ("trip", Critical, "tripped"),
            Self::RollBack => ("roll-back", Critical, "rolled back"),
            Self::Retreat => ("retreat", Warning, "retreated"),
            Self::Harm => ("harm", Critical, "harm is proven and waits for you"),
            Self::Held => ("held", Warning, "held for long"),
            Self::Approval => ("approval", Info, "waits for approval"),
            Self::Credentials => ("credentials", Critical, "the canary refuses its key"),
            Self::Evidence => ("evidence", Warning, "the evidence was damaged"),
            Self::CommonCause => ("common-cause", Critical, "both arms fail"),
            Self::Split => ("split", Warning, "the split does not match the weight"),
            Self::Headroom => ("headroom", Warning, "the canary's rate limits are tight"),
            Self::LowTraffic => ("low-traffic", Info, "too little traffic for a quick proof"),
            Self::LegacyFailing => ("legacy-failing", Critical, "legacy fails"),
            Self::LegacyRecovered => ("legacy-recovered", Info, "legacy answers again"),
            Self::Clock => ("clock", Info, "the clock went back"),
            Self::Budget => ("budget", Warning, "most of the budget is spent"),
            Self::Unpriced => ("unpriced", Info, "no price is known"),
            Self::StoreFailing => ("store-failing", Critical, "the store is failing"),
            Self::StoreRecovered => ("store-recovered", Info, "the store works again"),
            Self::StoreCorrupt => ("store-corrupt", Critical, "the database was corrupt"),
            Self::StateUnreadable => ("state-unreadable", Critical, "the state cannot be read"),
            Self::ConfigRejected => ("config-rejected", Warning, "the configuration is wrong"),
            Self::ConfigAccepted => ("config-accepted", Info, "the configuration is right again"),
            Self::ArmUnreachable => ("arm-unreachable", Critical, "connections fail"),
            Self::ArmReachable => ("arm-reachable", Info, "connections succeed again"),
            Self::Test => ("test", Warning, "a test of this receiver"),
        }
    }

    /// The word used in logs, filters, payloads and as a heading of the runbook.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// How urgent it is, if the occasion says nothing else.
    #[must_use]
    pub const fn severity(self) -> Severity {
        self.facts().1
    }

    /// What is said of the rollout, arm or part that it is about.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.facts().2
    }

    /// True if the controller decides something with each alert of this kind.
    #[must_use]
    pub const fn has_decision(self) -> bool {
        matches!(
            self,
            Self::Trip
                | Self::RollBack
                | Self::Retreat
                | Self::Harm
                | Self::Approval
                | Self::Credentials
                | Self::Evidence
                | Self::CommonCause
                | Self::Split
                | Self::Headroom
                | Self::Complete
        )
    }

    /// True if it tells of something that goes on and has an end, not of a moment. Those of arms, store and
    /// configuration have ends of their own.
    #[must_use]
    pub const fn lasts(self) -> bool {
        matches!(
            self,
            Self::Trip
                | Self::RollBack
                | Self::Retreat
                | Self::Harm
                | Self::Held
                | Self::Approval
                | Self::Credentials
                | Self::Evidence
                | Self::CommonCause
                | Self::Split
                | Self::Headroom
                | Self::LegacyFailing
        )
    }

    /// The inverse of [`AlertKind::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was told of a rollout and has not ended yet. Stored as words; those of a later version are forgotten,
/// so that an older program reads its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct OpenAlerts(pub BTreeSet<AlertKind>);

impl From<Vec<String>> for OpenAlerts {
    fn from(words: Vec<String>) -> Self {
        let kinds = words.iter().filter_map(|word| AlertKind::from_word(word));
        Self(kinds.collect())
    }
}

impl From<OpenAlerts> for Vec<String> {
    fn from(open: OpenAlerts) -> Self {
        open.0.iter().map(AlertKind::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_word_that_reads_back() {
        for kind in AlertKind::ALL {
            assert_eq!(AlertKind::from_word(kind.as_str()), Some(kind));
        }
        let words: BTreeSet<&str> = AlertKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), AlertKind::ALL.len());
    }

    #[test]
    fn every_kind_has_a_section_in_the_runbook() {
        let runbook = include_str!("../../docs/runbook.md");
        let headings: Vec<&str> = runbook
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .collect();
        for kind in AlertKind::ALL {
            let sections = headings.iter().filter(|title| **title == kind.as_str());
            assert_eq!(sections.count(), 1, "{kind}");
        }
        for heading in headings {
            // The last two are told by Prometheus: a daemon that is down tells nothing.
            let is_known = AlertKind::from_word(heading).is_some()
                || ["daemon-down", "samples-dropped"].contains(&heading);
            assert!(is_known, "no alert is called {heading}");
        }
    }

    #[test]
    fn words_of_a_later_version_are_forgotten() {
        let read: OpenAlerts = serde_json::from_str(r#"["trip","sunspots","held"]"#).unwrap();
        assert_eq!(read.0, BTreeSet::from([AlertKind::Trip, AlertKind::Held]));
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"["trip","held"]"#);
    }
}
