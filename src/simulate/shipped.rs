//! The scenarios that come with the program, by name.
//!
//! Texts only; `config/scenarios` holds them.
#![deny(clippy::disallowed_methods)]

/// Name and text of each, in the order in which they are best read.
pub const SCENARIOS: [(&str, &str); 8] = [
    (
        "healthy",
        include_str!("../../config/scenarios/healthy.toml"),
    ),
    (
        "common-drift",
        include_str!("../../config/scenarios/common-drift.toml"),
    ),
    ("outage", include_str!("../../config/scenarios/outage.toml")),
    (
        "two-percent",
        include_str!("../../config/scenarios/two-percent.toml"),
    ),
    (
        "slow-tail",
        include_str!("../../config/scenarios/slow-tail.toml"),
    ),
    (
        "clustered-errors",
        include_str!("../../config/scenarios/clustered-errors.toml"),
    ),
    (
        "independent-incidents",
        include_str!("../../config/scenarios/independent-incidents.toml"),
    ),
    (
        "low-traffic",
        include_str!("../../config/scenarios/low-traffic.toml"),
    ),
];

/// The text of a shipped scenario.
#[must_use]
pub fn find(name: &str) -> Option<&'static str> {
    SCENARIOS
        .iter()
        .find(|(shipped, _)| *shipped == name)
        .map(|(_, text)| *text)
}
