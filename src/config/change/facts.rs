//! A configuration as a list of paths and values, so that two of them can be compared line by line.
//!
//! Pure. A secret is compared but never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::values::Glob;
use super::super::{
    AlertsConfig, ArmConfig, BudgetConfig, Config, Credential, RequestRows, RolloutConfig, Sticky,
    Timeouts, TracesConfig,
};
use crate::arm::Arm;
use crate::controller::policy::{GuardSpec, OnHarm, Stage};

/// One value: what is shown, and what is compared beyond it.
#[derive(PartialEq)]
struct Fact {
    shown: String,
    hidden: Option<String>,
}

/// Path -> value, for all that a file can set.
#[derive(Default)]
struct Facts(BTreeMap<String, Fact>);

impl Facts {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over temporaries"
    )]
    fn put(&mut self, path: impl Into<String>, shown: impl ToString) {
        let fact = Fact {
            shown: shown.to_string(),
            hidden: None,
        };
        self.0.insert(path.into(), fact);
    }

    fn put_secret(&mut self, path: impl Into<String>, secret: &str) {
        let fact = Fact {
            shown: "(secret)".to_owned(),
            hidden: Some(secret.to_owned()),
        };
        self.0.insert(path.into(), fact);
    }
}

/// A line for each value that differs, in the order of their paths.
pub(super) fn differences(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (facts(old).0, facts(new).0);
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut lines = Vec::new();
    for path in paths {
        let (before, after) = (old.get(path), new.get(path));
        if before == after {
            continue;
        }
        let shown = |fact: Option<&Fact>| fact.map_or("(none)".to_owned(), |f| f.shown.clone());
        let both_secret = before
            .zip(after)
            .is_some_and(|(before, after)| before.hidden.is_some() && after.hidden.is_some());
        lines.push(if both_secret {
            format!("{path}: changed (secret)")
        } else {
            format!("{path}: {} -> {}", shown(before), shown(after))
        });
    }
    lines
}

fn facts(config: &Config) -> Facts {
    let mut facts = Facts::default();
    daemon(&mut facts, config);
    for arm in Arm::BOTH {
        arm_facts(&mut facts, &format!("arms.{arm}"), config.arms.get(arm));
    }
    let names: Vec<&str> = config.rollouts.iter().map(|r| r.name.as_str()).collect();
    facts.put("rollout (order)", names.join(", "));
    for rollout in &config.rollouts {
        rollout_facts(&mut facts, rollout);
    }
    alert_facts(&mut facts, &config.alerts);
    for budget in &config.budgets {
        budget_facts(&mut facts, budget);
    }
    trace_facts(&mut facts, &config.traces);
    facts
}

fn alert_facts(facts: &mut Facts, alerts: &AlertsConfig) {
    let held_after = alerts.held_after.map_or("off".to_owned(), time);
    facts.put("alerts.held-after", held_after);
    for (index, webhook) in alerts.webhooks.iter().enumerate() {
        let path = format!("alerts.webhooks[{index}]");
        facts.put_secret(format!("{path}.url"), webhook.url.expose());
        facts.put(format!("{path}.format"), webhook.format.as_str());
        if let Some(key) = &webhook.key {
            facts.put_secret(format!("{path}.key"), key.expose());
        }
        if !webhook.events.is_empty() {
            let kinds: Vec<&str> = webhook.events.iter().map(|kind| kind.as_str()).collect();
            facts.put(format!("{path}.events"), kinds.join(", "));
        }
    }
}

fn trace_facts(facts: &mut Facts, traces: &TracesConfig) {
    if let Some(endpoint) = &traces.endpoint {
        facts.put_secret("traces.endpoint", endpoint.expose());
    }
    for (name, value) in &traces.headers {
        facts.put_secret(format!("traces.headers.{name}"), value.expose());
    }
    facts.put("traces.share", traces.share);
}

fn budget_facts(facts: &mut Facts, budget: &BudgetConfig) {
    let path = format!("budget.{}", budget.name);
    facts.put(format!("{path}.usd-per-day"), budget.usd_per_day);
    let all = || "all".to_owned();
    let arm = budget.arm.map_or_else(all, |arm| arm.to_string());
    facts.put(format!("{path}.arm"), arm);
    let model = budget.model.as_ref();
    let model = model.map_or_else(all, |glob| glob.as_str().to_owned());
    facts.put(format!("{path}.model"), model);
    facts.put(
        format!("{path}.tag"),
        budget.tag.clone().unwrap_or_else(all),
    );
}

fn daemon(facts: &mut Facts, config: &Config) {
    let proxy = &config.proxy;
    facts.put("proxy.listen", proxy.listen);
    if let Some(tls) = &proxy.tls {
        facts.put("proxy.tls.cert", tls.cert.display());
        facts.put("proxy.tls.key", tls.key.display());
        // Contents change where names stay: a renewed certificate.
        facts.put_secret("proxy.tls (contents)", &tls.content());
    }
    facts.put("proxy.max-body", bytes(proxy.max_body_bytes));
    facts.put("proxy.replay-body", bytes(proxy.replay_body_bytes));
    facts.put("proxy.allow-override", proxy.allow_override);
    facts.put("proxy.response-headers", proxy.response_headers);
    facts.put("proxy.truncation-event", proxy.truncation_event);
    facts.put("proxy.danger-open-relay", proxy.danger_open_relay);
    facts.put("proxy.workers", proxy.workers);
    facts.put("proxy.max-connections", proxy.max_connections);
    facts.put("proxy.keep-alive", time(proxy.keep_alive));
    facts.put("proxy.client-stall", time(proxy.client_stall));
    facts.put("proxy.drain", time(proxy.drain));
    facts.put("proxy.learned-ids-ttl", time(proxy.learned_ids_ttl));
    if let Some(name) = &proxy.tag_header {
        facts.put("proxy.tag-header", name);
    }
    let after_disconnect = time(proxy.drain_after_disconnect);
    facts.put("proxy.drain-after-disconnect", after_disconnect);
    facts.put("admin.listen", config.admin.listen);
    if let Some(token) = &config.admin.token {
        facts.put_secret("admin.token", token.expose());
    }
    facts.put(
        "store.url",
        format!("sqlite:{}", config.store.path.display()),
    );
    facts.put("store.retention", time(config.store.retention));
    let requests = match config.store.requests {
        RequestRows::All => "all",
        RequestRows::Failures => "failures",
        RequestRows::None => "none",
    };
    facts.put("store.requests", requests);
}

fn arm_facts(facts: &mut Facts, path: &str, arm: &ArmConfig) {
    facts.put(format!("{path}.base-url"), &arm.base_url);
    match &arm.credential {
        Credential::Client => facts.put(format!("{path}.api-key"), "client"),
        Credential::Key(key) => facts.put_secret(format!("{path}.api-key"), key.expose()),
    }
    for (from, to) in &arm.models {
        facts.put(format!("{path}.models.{from}"), to);
    }
    let timeouts = format!("{path}.timeouts");
    facts.put(format!("{timeouts}.connect"), time(arm.timeouts.connect));
    timeout_facts(facts, &timeouts, &arm.timeouts);
    for entry in &arm.model_timeouts {
        let path = format!("{path}.model-timeouts.{}", entry.models.as_str());
        timeout_facts(facts, &path, &entry.timeouts);
    }
    for (model, price) in &arm.prices {
        let shown = format!(
            "input {}, cached-input {}, cache-write {}, cache-write-1h {}, output {}",
            price.input, price.cached_input, price.cache_write, price.cache_write_1h, price.output
        );
        facts.put(format!("{path}.prices.{model}"), shown);
    }
    if let Some(limit) = &arm.concurrency {
        facts.put(format!("{path}.max-concurrency"), limit.max);
        facts.put(format!("{path}.queue"), limit.queue);
    }
    facts.put(format!("{path}.http"), arm.http.as_str());
    facts.put(format!("{path}.include-usage"), arm.include_usage);
    if let Some(ca_file) = &arm.ca_file {
        facts.put(format!("{path}.ca-file"), ca_file.display());
    }
}

/// What an arm's limits and those of a model have in common.
fn timeout_facts(facts: &mut Facts, path: &str, limits: &Timeouts) {
    let streams_and_plain = |stream: Option<Duration>, plain: Option<Duration>| {
        if stream == plain {
            stream.map_or("none".to_owned(), time)
        } else {
            let shown = |limit: Option<Duration>| limit.map_or("none".to_owned(), time);
            format!("{} (streams), {} (plain)", shown(stream), shown(plain))
        }
    };
    facts.put(
        format!("{path}.first-byte"),
        streams_and_plain(Some(limits.first_byte_stream), limits.first_byte_plain),
    );
    facts.put(format!("{path}.idle"), time(limits.idle));
    facts.put(
        format!("{path}.total"),
        streams_and_plain(limits.total_stream, Some(limits.total_plain)),
    );
    if let Some(speed) = limits.tokens_per_second {
        facts.put(format!("{path}.tokens-per-second"), speed);
    }
}

fn rollout_facts(facts: &mut Facts, rollout: &RolloutConfig) {
    let path = format!("rollout.{}", rollout.name);
    let globs = |globs: &[Glob]| {
        let texts: Vec<&str> = globs.iter().map(Glob::as_str).collect();
        if texts.is_empty() {
            "all".to_owned()
        } else {
            texts.join(", ")
        }
    };
    facts.put(format!("{path}.match.models"), globs(&rollout.match_models));
    facts.put(format!("{path}.match.paths"), globs(&rollout.match_paths));
    let sticky = match &rollout.sticky {
        Sticky::Auto => "auto".to_owned(),
        Sticky::Header(name) => format!("header:{name}"),
        Sticky::Body(key) => format!("body:{key}"),
        Sticky::None => "none".to_owned(),
    };
    facts.put(format!("{path}.sticky"), sticky);
    facts.put(format!("{path}.failover"), rollout.failover);
    let policy = &rollout.policy;
    facts.put(format!("{path}.warm-up"), policy.warm_up_requests);
    let stages: Vec<String> = policy.stages.iter().map(stage).collect();
    facts.put(format!("{path}.stages"), stages.join(", "));
    let on_harm = match policy.on_harm {
        OnHarm::RollBack => "roll-back",
        OnHarm::StepBack => "step-back",
        OnHarm::Hold => "hold",
    };
    facts.put(format!("{path}.on-harm"), on_harm);
    facts.put(
        format!("{path}.confidence"),
        percent(1.0 - policy.alpha_rollback),
    );
    facts.put(
        format!("{path}.promote-confidence"),
        percent(1.0 - policy.alpha_promote),
    );
    match policy.trip {
        None => facts.put(format!("{path}.trip"), "off"),
        Some(trip) => {
            facts.put(format!("{path}.trip.cooldown"), time_ms(trip.cooldown_ms));
            facts.put(format!("{path}.trip.max-per-day"), trip.max_per_day);
        }
    }
    let retreat = policy
        .retreat
        .map_or("off".to_owned(), |weight| weight.to_string());
    facts.put(format!("{path}.retreat"), retreat);
    facts.put(format!("{path}.cooldown"), time_ms(policy.cooldown_ms));
    facts.put(format!("{path}.max-attempts"), policy.max_attempts);
    for spec in &policy.guards {
        guard_facts(
            facts,
            &format!("{path}.guards.{}", spec.kind.as_str()),
            spec,
        );
    }
}

fn stage(stage: &Stage) -> String {
    let approve = if stage.approve { " approve" } else { "" };
    format!("{} {}{approve}", stage.weight, time_ms(stage.dwell_ms))
}

fn guard_facts(facts: &mut Facts, path: &str, spec: &GuardSpec) {
    if let Some(max) = spec.ceiling {
        let shown = if spec.kind.is_time() {
            time(Duration::try_from_secs_f64(max / 1_000.0).unwrap_or(Duration::MAX))
        } else {
            percent(max)
        };
        facts.put(format!("{path}.max"), shown);
    }
    if let Some(margin) = spec.relative {
        facts.put(format!("{path}.max-ratio"), margin.ratio);
        if !spec.kind.is_time() {
            facts.put(format!("{path}.max-increase"), percent(margin.increase));
        }
    }
}

fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn time_ms(ms: i64) -> String {
    time(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

/// A fraction as a share, without the noise of binary fractions.
fn percent(fraction: f64) -> String {
    let text = format!("{:.6}", fraction * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    units
        .into_iter()
        .find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size))
        .map_or_else(
            || format!("{bytes}B"),
            |(size, unit)| format!("{}{unit}", bytes / size),
        )
}
