//! The views say what counting by hand says.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// The `q`-quantile by sorting.
fn quantile(times: &mut [f64], q: f64) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "small counts"
    )]
    let rank = (q * times.len() as f64 - 1e-9).ceil() as usize;
    times.get(rank.max(1) - 1).copied()
}

fn check_close(found: Option<f64>, expected: Option<f64>, what: &str) {
    match (found, expected) {
        (None, None) => {}
        (Some(found), Some(expected)) => {
            assert!(
                (found / expected - 1.0).abs() < 0.0105,
                "{what}: {found}, not {expected}"
            );
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn arm_summary_agrees_with_counting_by_hand() {
    let place = Place::new();
    let store = place.open().await;
    let mut random = StdRng::seed_from_u64(4711);
    let samples: Vec<Sample> = (0..4_000)
        .map(|_| {
            let arm = if random.random_bool(0.3) {
                Arm::Canary
            } else {
                Arm::Legacy
            };
            let outcome = if random.random_bool(0.1) {
                Outcome::ServerError
            } else {
                Outcome::Ok
            };
            let mut sample = sample(arm, outcome);
            sample.started_at = NOW.plus_millis(random.random_range(0..600_000));
            sample.latency_us = random.random_range(1_000..5_000_000);
            sample.streamed = random.random_bool(0.5);
            sample.ttft_us =
                (sample.streamed && arm == Arm::Legacy).then_some(sample.latency_us / 3);
            sample
        })
        .collect();
    for chunk in samples.chunks(97) {
        store.record_attempts(chunk.iter().cloned().map(attempt).collect());
    }
    store.close().await.unwrap();

    let rows = place.rows("SELECT * FROM arm_summary").await;
    assert_eq!(rows.len(), 2);
    for row in rows {
        let arm = Arm::from_word(row.get("arm")).unwrap();
        let of_arm: Vec<&Sample> = samples.iter().filter(|it| it.arm == arm).collect();
        let good: Vec<&&Sample> = of_arm
            .iter()
            .filter(|it| it.outcome == Outcome::Ok)
            .collect();
        let requests = i64::try_from(of_arm.len()).unwrap();
        let errors = requests - i64::try_from(good.len()).unwrap();
        assert_eq!(row.get::<String, _>("rollout"), "default");
        assert_eq!(row.get::<i64, _>("requests"), requests);
        assert_eq!(row.get::<i64, _>("errors"), errors);
        assert_eq!(row.get::<i64, _>("input_tokens"), (requests - errors) * 100);
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let rate = errors as f64 / requests as f64;
        assert!((row.get::<f64, _>("error_rate") - rate).abs() < 1e-6);
        let mut latency: Vec<f64> = good.iter().map(|it| it.latency_us as f64 / 1e3).collect();
        let mut ttft: Vec<f64> = good
            .iter()
            .filter_map(|it| Some(it.ttft_us? as f64 / 1e3))
            .collect();
        check_close(row.get("p50_ms"), quantile(&mut latency, 0.5), "p50");
        check_close(row.get("p99_ms"), quantile(&mut latency, 0.99), "p99");
        check_close(row.get("ttft_p50_ms"), quantile(&mut ttft, 0.5), "ttft p50");
        check_close(
            row.get("ttft_p99_ms"),
            quantile(&mut ttft, 0.99),
            "ttft p99",
        );
    }
}

#[tokio::test]
async fn decision_log_reads_like_a_log() {
    let place = Place::new();
    let store = place.open().await;
    store
        .commit(state(0, "first"), Some(decision("promote")))
        .await
        .unwrap();
    let mut fine = decision("set-weight");
    fine.weight_to = Weight::from_bps(1_225).unwrap();
    store.commit(state(1, "second"), Some(fine)).await.unwrap();
    let rows = place
        .rows("SELECT kind || ' ' || weight_from || ' -> ' || weight_to || ' ' || decided_by, time FROM decision_log")
        .await;
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        lines,
        ["promote 5% -> 25% proof", "set-weight 5% -> 12.25% proof"]
    );
    let time: String = rows[0].get(1);
    assert_eq!(time.len(), "2027-01-15 08:00:00".len());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_request_row_says_what_happened() {
    let place = Place::new();
    let store = place.open().await;
    let mut nothing_came = sample(Arm::Canary, Outcome::Connect);
    nothing_came.status = 0;
    nothing_came.key_hash = 0;
    store.record_attempts(vec![
        attempt(sample(Arm::Legacy, Outcome::Ok)),
        attempt(nothing_came),
    ]);
    store.close().await.unwrap();
    let rows = place
        .rows("SELECT *, CAST(latency_ms AS INTEGER) AS latency_whole_ms FROM request ORDER BY id")
        .await;
    let log = place.rows("SELECT time FROM request_log").await;
    assert_eq!(log.len(), 2);
    assert!(log[0].get::<String, _>("time").ends_with(":00.000"));
    assert_eq!(rows[0].get::<String, _>("outcome"), "ok");
    assert_eq!(rows[0].get::<i64, _>("latency_whole_ms"), 250);
    assert_eq!(rows[0].get::<String, _>("key_hash"), "000000000000feed");
    assert_eq!(rows[1].get::<Option<i64>, _>("status"), None);
    assert_eq!(rows[1].get::<Option<f64>, _>("cost_usd"), None);
    assert_eq!(rows[1].get::<Option<String>, _>("key_hash"), None);
}
