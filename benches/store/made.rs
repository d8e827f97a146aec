//! Samples as a busy service has them: some models, some tags, both arms, one in a hundred failed.

use std::path::Path;
use std::sync::Arc;

use cutover::arm::{Arm, Weight};
use cutover::clock::UnixMillis;
use cutover::config::parse::parse;
use cutover::config::{Config, RequestRows, StoreConfig};
use cutover::llm::Dialect;
use cutover::outcome::Outcome;
use cutover::sample::{Role, Sample, Usage};
use cutover::store::{AttemptRow, Bill, RolloutKey, day_of};

/// The weight of every sample.
pub(crate) const WEIGHT_BPS: u16 = 5_000;
const MODELS: [&str; 4] = ["gpt-5", "gpt-5-mini", "claude-sonnet-5", "text-embedding-4"];

/// A configuration with prices, a budget and one rollout at the weight of the samples.
pub(crate) fn config(folder: &Path, rows: &str) -> Result<Config, String> {
    let prices = "{ \"gpt-5\" = { input = 1.25, output = 10 }, \"gpt-5-mini\" = { input = 0.25, output = 2 } }";
    let text = format!(
        "[store]\nurl = \"sqlite:{}/cutover.db\"\nrequests = \"{rows}\"\n\
         [arms.legacy]\nbase-url = \"http://127.0.0.1:1\"\nprices = {prices}\n\
         [arms.canary]\nbase-url = \"http://127.0.0.1:2\"\napi-key = \"client\"\nprices = {prices}\n\
         [[budget]]\nname = \"all\"\nusd-per-day = 1000000\n\
         [[rollout]]\nname = \"bench\"\nwarm-up = 0\nstages = [{{ weight = \"50%\", dwell = \"30d\" }}, \"100%\"]\n",
        folder.display()
    );
    let parsed = parse(&text, &|_| None);
    let parsed = parsed.map_err(|faults| format!("{faults:?}"))?;
    Ok(parsed.config)
}

/// Where a store of its own lies, and that it keeps every row.
pub(crate) fn store_config(folder: &Path) -> StoreConfig {
    StoreConfig {
        path: folder.join("cutover.db"),
        retention: std::time::Duration::from_secs(30 * 86_400),
        requests: RequestRows::All,
    }
}

/// The sample of this number.
pub(crate) fn sample(number: u64, at: UnixMillis) -> Sample {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let low = |bits: u64, most: u64| u32::try_from((mixed >> bits) % most).unwrap_or(0);
    let arm = if number.is_multiple_of(2) {
        Arm::Canary
    } else {
        Arm::Legacy
    };
    let outcome = if number.is_multiple_of(101) {
        Outcome::ServerError
    } else {
        Outcome::Ok
    };
    let is_ok = outcome == Outcome::Ok;
    let streamed = number % 4 >= 2;
    let latency_us = 300_000 + u64::from(low(11, 900_000));
    let model = usize::try_from(number % 4).unwrap_or(0);
    Sample {
        started_at: at,
        rollout: Some(0),
        config_epoch: 1,
        arm,
        assigned: arm,
        weight: Weight::from_bps(WEIGHT_BPS).unwrap_or(Weight::FULL),
        stage: 0,
        role: Role::Live,
        attempt: 1,
        outcome,
        status: if is_ok { 200 } else { 503 },
        latency_us,
        ttft_us: (streamed && is_ok).then(|| 50_000 + u64::from(low(7, 90_000))),
        streamed,
        complete: is_ok,
        conn_reused: true,
        client_retry: false,
        dialect: Some(Dialect::OpenAiChat),
        model: MODELS.get(model).map(|name| (*name).into()),
        usage: is_ok.then(|| Usage {
            input_tokens: 200 + low(3, 3_000),
            output_tokens: 20 + low(5, 700),
            ..Usage::default()
        }),
        upstream_request_id: is_ok.then(|| format!("chatcmpl-{mixed:024x}").into()),
        key_hash: mixed | 1,
        body_hash: mixed.rotate_left(17) | 1,
        reported_cost_usd: None,
        tag: number.is_multiple_of(8).then(|| "team-search".into()),
        first_role: Role::Live,
    }
}

/// The row of that sample, as the driver makes it.
pub(crate) fn row(
    number: u64,
    at: UnixMillis,
    rollout: &RolloutKey,
    names: &[Arc<str>; 2],
) -> AttemptRow {
    let sample = sample(number, at);
    let [model, tag] = names;
    AttemptRow {
        rollout: Some(rollout.clone()),
        cost_usd: sample.usage.map(|_| 0.001_25),
        bill: sample.usage.map(|_| Bill {
            day: day_of(at),
            model: Arc::clone(model),
            tag: Arc::clone(tag),
        }),
        sample,
    }
}
