//! From attempts through a real store to the report, against sums over the attempts themselves.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{RequestRows, StoreConfig};
use crate::outcome::Outcome;
use crate::sample::{Role, Sample, Usage};
use crate::store::{AttemptRow, History, RolloutKey, RolloutRow, Store, StoreError};

/// Half an hour of both arms; a few fail, some of those are rescued.
#[expect(clippy::too_many_lines, reason = "every field of a sample")]
fn attempts() -> Vec<AttemptRow> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(11);
    let rollout = RolloutKey {
        id: Arc::from("default-1"),
        name: Arc::from("default"),
    };
    let mut rows = Vec::new();
    for number in 0..4_000i64 {
        let arm = if rng.random::<f64>() < 0.4 {
            Arm::Canary
        } else {
            Arm::Legacy
        };
        let failed = rng.random::<f64>() < 0.02;
        let latency_us = rng.random_range(80_000..2_000_000u64);
        let usage = Usage {
            input_tokens: rng.random_range(10..500),
            output_tokens: rng.random_range(5..200),
            ..Usage::default()
        };
        let sample = Sample {
            started_at: START.plus_millis(number * 450),
            rollout: Some(0),
            config_epoch: 1,
            arm,
            assigned: arm,
            weight: Weight::parse("40%").unwrap(),
            stage: 0,
            role: Role::Live,
            attempt: 1,
            outcome: if failed {
                Outcome::ServerError
            } else {
                Outcome::Ok
            },
            status: if failed { 503 } else { 200 },
            latency_us,
            ttft_us: Some(latency_us / 4).filter(|_| !failed),
            streamed: true,
            complete: true,
            conn_reused: true,
            client_retry: false,
            dialect: Some(crate::llm::Dialect::OpenAiChat),
            model: Some("gpt-5".into()),
            usage: Some(usage).filter(|_| !failed),
            upstream_request_id: None,
            key_hash: 1,
            body_hash: 0,
            reported_cost_usd: None,
            tag: None,
            first_role: Role::Live,
        };
        let cost = f64::from(usage.input_tokens) * 2e-6 + f64::from(usage.output_tokens) * 8e-6;
        let row = |sample: Sample, cost_usd| AttemptRow {
            rollout: Some(rollout.clone()),
            sample,
            cost_usd,
            bill: None,
        };
        if failed && arm == Arm::Canary && rng.random::<f64>() < 0.7 {
            let rescue = Sample {
                arm: Arm::Legacy,
                role: Role::Rescue,
                attempt: 2,
                outcome: Outcome::Ok,
                ..sample.clone()
            };
            rows.push(row(rescue, None));
        }
        rows.push(row(sample, (!failed).then_some(cost)));
    }
    rows
}

fn quantile(mut times: Vec<f64>, q: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank"
    )]
    let rank = (q * times.len() as f64).ceil() as usize;
    times[rank - 1]
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one table or story, read from top to bottom"
)]
async fn the_figures_are_those_of_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cutover.db");
    let config = StoreConfig {
        path: path.clone(),
        retention: Duration::from_secs(100 * 365 * 86_400),
        requests: RequestRows::All,
    };
    let absent = History::open(&path).await;
    assert!(
        matches!(absent, Err(StoreError::NoFile { .. })),
        "{absent:?}"
    );
    let store = Store::open(&config, START).await.unwrap().store;
    let rows = attempts();
    store.record_attempts(rows.clone());
    store.save_state(RolloutRow {
        rollout_id: "default-1".to_owned(),
        name: "default".to_owned(),
        version: 0,
        state: "{}".to_owned(),
        updated_at: START.plus_millis(1_800_000),
    });
    store.close().await.unwrap();
    let beside = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let left = beside();
    let history = History::open(&path).await.unwrap();
    let to = START.plus_millis(1_860_000);
    let report = Report::new(Input {
        to,
        points: history
            .measured("default-1", UnixMillis(0), to)
            .await
            .unwrap(),
        totals: history.moment("default-1").await.unwrap().unwrap().totals,
        ..input(vec![decision(1, 0, "start", "0%", "40%", "go")], Vec::new())
    });
    for arm in Arm::BOTH {
        let figures = report.arms.get(arm);
        let live: Vec<&AttemptRow> = rows
            .iter()
            .filter(|row| row.sample.arm == arm && row.sample.role == Role::Live)
            .collect();
        let ok: Vec<&&AttemptRow> = live
            .iter()
            .filter(|it| it.sample.outcome == Outcome::Ok)
            .collect();
        assert_eq!(figures.requests, live.len() as u64);
        assert_eq!(figures.errors, (live.len() - ok.len()) as u64);
        let cost: f64 = live.iter().filter_map(|it| it.cost_usd).sum();
        assert!((figures.cost_usd.unwrap() - cost).abs() < 1e-9);
        let per_1k = figures.cost_per_1k_requests_usd.unwrap();
        assert!((per_1k.value - 1_000.0 * cost / ok.len() as f64).abs() < 1e-9);
        let close = |found: Estimate, naive: f64| {
            assert!(
                (found.value / naive - 1.0).abs() < 0.0105,
                "{arm}: {found:?}, not {naive}"
            );
            assert!(found.ci95_low.unwrap() <= naive && naive <= found.ci95_high.unwrap());
        };
        let latencies = || {
            ok.iter()
                .map(|it| it.sample.latency_us as f64 / 1e3)
                .collect::<Vec<_>>()
        };
        let firsts = ok.iter().map(|it| it.sample.ttft_us.unwrap() as f64 / 1e3);
        close(figures.latency_p50_ms.unwrap(), quantile(latencies(), 0.5));
        close(figures.latency_p99_ms.unwrap(), quantile(latencies(), 0.99));
        close(
            figures.ttft_p50_ms.unwrap(),
            quantile(firsts.collect(), 0.5),
        );
        let speeds: Vec<f64> = ok
            .iter()
            .map(|it| 1e6 / it.sample.tpot_us().unwrap())
            .collect();
        close(figures.output_tokens_per_s.unwrap(), quantile(speeds, 0.5));
    }
    let rescued = rows
        .iter()
        .filter(|it| it.sample.role == Role::Rescue)
        .count() as u64;
    assert!(rescued > 5);
    let masked = report.masked.canary;
    assert_eq!(
        (masked.failed, masked.made_good),
        (report.arms.canary.errors, rescued)
    );
    let again = history
        .measured("default-1", UnixMillis(0), to)
        .await
        .unwrap();
    assert_eq!(
        again
            .iter()
            .map(|it| it.arms.legacy.totals.requests)
            .sum::<u64>(),
        report.arms.legacy.requests
    );
    assert_eq!(beside(), left, "a look leaves nothing behind");
}
