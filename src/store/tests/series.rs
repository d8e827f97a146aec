//! Series say what counting one by one says, before and after minutes become hours.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::kept::eventually;
use super::*;

const HOUR_MS: i64 = 3_600_000;

/// Attempts of two rollouts in the six hours from `start` on.
fn mixed(start: UnixMillis, seed: u64) -> Vec<AttemptRow> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut one = || {
        let arm = if random.random_bool(0.3) {
            Arm::Canary
        } else {
            Arm::Legacy
        };
        let outcome = if random.random_bool(0.2) {
            Outcome::ALL[random.random_range(0..Outcome::ALL.len())]
        } else {
            Outcome::Ok
        };
        let mut sample = sample(arm, outcome);
        sample.started_at = start.plus_millis(random.random_range(0..6 * HOUR_MS));
        sample.stage = random.random_range(0..3);
        sample.latency_us = random.random_range(1_000..5_000_000);
        sample.streamed = random.random_bool(0.5);
        sample.ttft_us = sample.streamed.then_some(sample.latency_us / 3);
        if random.random_bool(0.1) {
            sample.role = Role::Rescue;
            sample.assigned = sample.arm.other();
            sample.attempt = 2;
        }
        let mut row = attempt(sample);
        if random.random_bool(0.2) {
            row.rollout = Some(RolloutKey {
                id: Arc::from("default-0"),
                name: Arc::from("default"),
            });
        }
        row
    };
    (0..1_500).map(|_| one()).collect()
}

/// Counts the slow way.
fn naive(
    rows: &[AttemptRow],
    id: &str,
    from: UnixMillis,
    to: UnixMillis,
    step_ms: i64,
) -> Vec<SeriesPoint> {
    let mut points: BTreeMap<i64, SeriesPoint> = BTreeMap::new();
    for row in rows {
        let sample = &row.sample;
        let minute = sample.started_at.0 / 60_000 * 60_000;
        let step = sample.started_at.0 / step_ms * step_ms;
        let asked = row.rollout.as_ref().is_some_and(|it| &*it.id == id);
        if !asked || step < from.0 / step_ms * step_ms || minute >= to.0 {
            continue;
        }
        let mut arm = |arm, change: &dyn Fn(&mut Measured)| {
            let point = points.entry(step).or_default();
            point.at = UnixMillis(step);
            change(point.arms.get_mut(arm));
        };
        if let Some(failed) = sample.masks_failure_of() {
            arm(failed, &|it| it.totals.masked += 1);
        }
        if sample.role == Role::Live && sample.attempt == 1 {
            arm(sample.arm, &|it| {
                it.totals.count(sample, row.cost_usd);
                if sample.outcome == Outcome::Ok {
                    it.times.latency.record_ms(sample.latency_us as f64 / 1e3);
                    let tpot = sample.tpot_us();
                    tpot.inspect(|us| it.times.tpot.record_ms(us / 1e3));
                    let ttft = sample.ttft_us;
                    ttft.inspect(|us| it.times.ttft.record_ms(*us as f64 / 1e3));
                }
            });
        }
    }
    points.into_values().collect()
}

#[tokio::test]
async fn a_series_agrees_with_counting_one_by_one() {
    let place = Place::new();
    let rows = mixed(NOW, 4711);
    // Two runs of the daemon: what the second one adds goes on top of what it finds.
    for run in rows.chunks(800) {
        let store = place.open().await;
        for chunk in run.chunks(37) {
            store.record_attempts(chunk.to_vec());
        }
        store.close().await.unwrap();
    }
    let store = place.open().await;
    let end = NOW.plus_millis(6 * HOUR_MS);
    for (from, to, step_ms) in [
        (NOW, end, 60_000),
        (NOW, end, 300_000),
        (NOW, end, 6 * HOUR_MS),
        (NOW.plus_millis(1), end, HOUR_MS),
        (
            NOW.plus_millis(HOUR_MS + 90_000),
            end.plus_millis(-HOUR_MS + 1),
            300_000,
        ),
        (end, NOW, 60_000),
    ] {
        for id in ["default-1", "default-0", "default"] {
            let found = store.series(id, from, to, step_ms).await.unwrap();
            let expected = naive(&rows, id, from, to, step_ms);
            assert_eq!(found, expected, "{id} from {from} to {to} by {step_ms}");
        }
    }
    assert_eq!(store.series("default-1", NOW, end, 0).await.unwrap(), {
        naive(&rows, "default-1", NOW, end, 60_000)
    });
}

#[tokio::test]
async fn minutes_that_became_hours_still_agree_with_counting_and_with_the_buckets() {
    let mut place = Place::new();
    place.limits.retention_every = Duration::from_millis(1);
    let store = place.open().await;
    let start = UnixMillis(UnixMillis::now().0 / HOUR_MS * HOUR_MS - 5 * 86_400_000);
    let rows = mixed(start, 42);
    for chunk in rows.chunks(97) {
        store.record_attempts(chunk.to_vec());
    }
    eventually(&place, "SELECT sum(requests) > 1200 FROM arm_total", 1).await;
    let minutes = "SELECT count(*) FROM interval WHERE slot_at % 3600000 <> 0";
    eventually(&place, minutes, 0).await;
    let end = start.plus_millis(6 * HOUR_MS);
    let mut sum = Measured::default();
    for id in ["default-1", "default-0"] {
        let found = store.series(id, start, end, HOUR_MS).await.unwrap();
        assert_eq!(found, naive(&rows, id, start, end, HOUR_MS), "{id}");
        for point in &found {
            sum.merge(&point.arms.legacy);
            sum.merge(&point.arms.canary);
        }
    }
    for (metric, sketch) in sum.times.named() {
        let mut shell = place.shell().await;
        let buckets: Vec<(i16, f64)> = sqlx::query_as(
            "SELECT bucket, CAST(sum(count) AS REAL) FROM latency_bucket
             WHERE metric = $1 AND slot_at % 3600000 = 0 GROUP BY bucket",
        )
        .bind(metric)
        .fetch_all(&mut shell)
        .await
        .unwrap();
        shell.close().await.unwrap();
        assert_eq!(&buckets.into_iter().collect::<Sketch>(), sketch, "{metric}");
    }
}

#[tokio::test]
async fn a_sketch_that_cannot_be_read_is_begun_anew() {
    let place = Place::new();
    let store = place.open().await;
    store.record_attempts(attempts(3, Arm::Legacy, Outcome::Ok));
    store.close().await.unwrap();
    let mut shell = place.shell().await;
    sqlx::query("UPDATE interval SET latency_sketch = x'ff00ff'")
        .execute(&mut shell)
        .await
        .unwrap();
    shell.close().await.unwrap();
    let store = place.open().await;
    let end = NOW.plus_millis(60_000);
    let read = store.series("default-1", NOW, end, 60_000).await.unwrap();
    assert!(read[0].arms.legacy.times.is_empty());
    store.record_attempts(attempts(2, Arm::Legacy, Outcome::Ok));
    store.close().await.unwrap();
    let store = place.open().await;
    let read = store.series("default-1", NOW, end, 60_000).await.unwrap();
    let legacy = &read[0].arms.legacy;
    assert_eq!(legacy.totals.requests, 5, "counts do not suffer");
    assert!((legacy.times.latency.count() - 2.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_rollout_is_found_by_name_and_by_id_the_latest_first() {
    let place = Place::new();
    let store = place.open().await;
    let mut older = state(0, "older");
    older.rollout_id = "default-0".to_owned();
    older.updated_at = NOW.plus_millis(-1);
    store.commit(older, None).await.unwrap();
    store.commit(state(0, "newer"), None).await.unwrap();
    for (asked, expected) in [
        ("default", Some("default-1")),
        ("default-1", Some("default-1")),
        ("default-0", Some("default-0")),
        ("other", None),
        ("", None),
    ] {
        let found = store.find_rollout(asked).await.unwrap();
        assert_eq!(found.as_ref().map(|it| &*it.id), expected, "{asked}");
        assert!(found.is_none_or(|it| &*it.name == "default"));
    }
}

#[tokio::test]
async fn the_line_of_the_weight_begins_with_what_it_was() {
    let place = Place::new();
    let store = place.open().await;
    let weights = [(0, 100), (100, 100), (100, 500), (500, 0)];
    for (minute, (from, to)) in (0_u16..).zip(weights) {
        let mut row = decision("any");
        row.at = NOW.plus_millis(i64::from(minute) * 60_000);
        row.weight_from = Weight::from_bps(from).unwrap();
        row.weight_to = Weight::from_bps(to).unwrap();
        let state = state(i64::from(minute), "any");
        store.commit(state, Some(row)).await.unwrap();
    }
    let check = async |from_ms: i64, to_ms: i64, expected: &[(i64, u16)], decisions: usize| {
        let (from, to) = (NOW.plus_millis(from_ms), NOW.plus_millis(to_ms));
        let line = store.weights_between("default-1", from, to).await.unwrap();
        let line: Vec<_> = line
            .iter()
            .map(|(at, weight)| (at.millis_since(NOW), weight.bps()))
            .collect();
        assert_eq!(line, expected, "from {from_ms} to {to_ms}");
        let found = store
            .decisions_between("default-1", from, to, 3)
            .await
            .unwrap();
        assert_eq!(found.len(), decisions, "from {from_ms} to {to_ms}");
        assert!(found.is_sorted_by_key(|it| it.id));
    };
    check(
        -10,
        1_000_000,
        &[(-10, 0), (0, 100), (120_000, 500), (180_000, 0)],
        3,
    )
    .await;
    check(0, 120_000, &[(0, 100), (120_000, 500)], 3).await;
    check(60_001, 119_999, &[(60_001, 100)], 0).await;
    check(500_000, 600_000, &[(500_000, 0)], 0).await;
    check(-20, -10, &[(-20, 0)], 0).await;
    let other = store.weights_between("other", NOW, NOW).await.unwrap();
    assert!(other.is_empty());
}

#[test]
fn what_may_be_merged_is_shown_by_the_hour() {
    let at = |hours: i64| finest_step_ms(NOW.plus_millis(-hours * HOUR_MS), NOW);
    assert_eq!([at(0), at(24), at(47)], [60_000; 3]);
    assert_eq!([at(48), at(720)], [HOUR_MS; 2]);
}
