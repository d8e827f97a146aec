//! What is written is there again, once, and in order.

use super::*;
use crate::controller::evidence::ArmCell;

#[tokio::test]
async fn everything_reads_back_after_a_restart() {
    let place = Place::new();
    let opened = place.try_open().await.unwrap();
    assert!(opened.created && opened.set_aside.is_none());
    let store = opened.store;
    store.record_attempts(attempts(700, Arm::Legacy, Outcome::Ok));
    store.record_attempts(attempts(3, Arm::Canary, Outcome::Reset));
    let first = store
        .commit(state(0, "first"), Some(decision("promote")))
        .await
        .unwrap();
    assert_eq!(first.version, 1);
    let second = store
        .submit(state(1, "second"), Some(decision("trip")))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(second.version, 2);
    store.save_state(state(2, "third"));
    store.close().await.unwrap();

    let opened = place.try_open().await.unwrap();
    assert!(!opened.created);
    let store = opened.store;
    assert_eq!(store.load_rollouts().await.unwrap(), [state(2, "third")]);
    let decisions = store.decisions(None, 10, None).await.unwrap();
    let kinds: Vec<_> = decisions.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(kinds, ["trip", "promote"]);
    assert_eq!(Some(decisions[1].id), first.decision_id);
    assert_eq!(decisions[1].weight_to, Weight::from_bps(2_500).unwrap());
    assert_eq!(decisions[1].evidence, decision("").evidence);
    let before = store
        .decisions(Some("default"), 10, second.decision_id)
        .await
        .unwrap();
    assert_eq!(before, decisions[1..]);
    assert!(
        store
            .decisions(Some("other"), 10, None)
            .await
            .unwrap()
            .is_empty()
    );
    store.record_attempts(attempts(1, Arm::Legacy, Outcome::Ok));
    store.close().await.unwrap();

    let store = place.open().await;
    let totals = store.totals("default-1").await.unwrap();
    assert_eq!(totals.legacy.requests, 701);
    assert_eq!(totals.legacy.output_tokens, 701 * 20);
    assert_eq!(totals.legacy.cost_usd, Some(701.0 * 0.25));
    assert_eq!(totals.canary.cost_usd, None, "unknown is not zero");
    assert_eq!((totals.canary.requests, totals.canary.errors), (3, 3));
    assert_eq!(store.totals("unknown").await.unwrap(), PerArm::default());
    assert_eq!(place.number("SELECT count(*) FROM request").await, 704);
}

#[tokio::test]
async fn a_commit_on_an_outdated_version_is_refused_whole() {
    let place = Place::new();
    let store = place.open().await;
    store.commit(state(0, "mine"), None).await.unwrap();
    for expected in [0, 2] {
        let refused = store
            .commit(state(expected, "yours"), Some(decision("promote")))
            .await;
        let conflict = StoreError::Conflict {
            rollout_id: "default-1".to_owned(),
            expected,
            stored: 1,
        };
        assert_eq!(refused, Err(conflict.clone()));
        let refused = store
            .submit(state(expected, "yours"), Some(decision("trip")))
            .await
            .unwrap();
        assert_eq!(refused, Err(conflict));
    }
    assert_eq!(store.load_rollouts().await.unwrap(), [state(1, "mine")]);
    assert!(store.decisions(None, 10, None).await.unwrap().is_empty());
    assert!(
        store.health().borrow().healthy,
        "a conflict is not the store's fault"
    );
}

#[tokio::test]
async fn a_save_that_a_decision_has_overtaken_is_discarded() {
    let place = Place::new();
    let store = place.open().await;
    store.save_state(state(0, "old"));
    store.commit(state(0, "decided"), None).await.unwrap();
    store.save_state(state(0, "older"));
    store.close().await.unwrap();
    let store = place.open().await;
    assert_eq!(store.load_rollouts().await.unwrap(), [state(1, "decided")]);
}

#[tokio::test]
async fn of_many_saves_the_latest_is_kept() {
    let place = Place::new();
    let store = place.open().await;
    for step in 0..100 {
        store.save_state(state(0, &step.to_string()));
    }
    store.close().await.unwrap();
    assert_eq!(
        place.open().await.load_rollouts().await.unwrap(),
        [state(0, "99")]
    );
}

#[tokio::test]
async fn decisions_cannot_be_changed_or_deleted() {
    let place = Place::new();
    let store = place.open().await;
    store
        .commit(state(0, "first"), Some(decision("promote")))
        .await
        .unwrap();
    let mut shell = place.shell().await;
    for sql in ["UPDATE decision SET reason = 'no'", "DELETE FROM decision"] {
        let error = sqlx::query(sql).execute(&mut shell).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    shell.close().await.unwrap();
}

#[tokio::test]
async fn requests_get_the_rows_that_the_configuration_asks_for() {
    for (requests, rows) in [
        (RequestRows::All, 7),
        (RequestRows::Failures, 3),
        (RequestRows::None, 0),
    ] {
        let mut place = Place::new();
        place.config.requests = requests;
        let store = place.open().await;
        store.record_attempts(attempts(4, Arm::Legacy, Outcome::Ok));
        store.record_attempts(attempts(3, Arm::Canary, Outcome::ClientError));
        store.close().await.unwrap();
        assert_eq!(
            place.number("SELECT count(*) FROM request").await,
            rows,
            "{requests:?}"
        );
        assert_eq!(
            place.number("SELECT sum(requests) FROM interval").await,
            7,
            "{requests:?}"
        );
    }
}

#[tokio::test]
async fn only_live_first_attempts_are_counted_and_rescues_show_as_masked() {
    let place = Place::new();
    let store = place.open().await;
    for role in [
        Role::Rescue,
        Role::Retry,
        Role::Overflow,
        Role::Probe,
        Role::Override,
        Role::Pinned,
    ] {
        for outcome in [Outcome::Ok, Outcome::Reset] {
            let mut sample = sample(Arm::Legacy, outcome);
            sample.role = role;
            store.record_attempts(vec![attempt(sample)]);
        }
    }
    for first_role in [Role::Probe, Role::Override] {
        let mut rescue = sample(Arm::Legacy, Outcome::Ok);
        (rescue.role, rescue.first_role) = (Role::Rescue, first_role);
        store.record_attempts(vec![attempt(rescue)]);
    }
    let mut outside = attempt(sample(Arm::Legacy, Outcome::Ok));
    outside.rollout = None;
    store.record_attempts(vec![outside]);
    for outcome in Outcome::ALL {
        store.record_attempts(attempts(1, Arm::Canary, outcome));
    }
    let mut unpriced = attempt(sample(Arm::Canary, Outcome::Ok));
    unpriced.cost_usd = Some(f64::NAN);
    store.record_attempts(vec![unpriced]);
    store.close().await.unwrap();

    let totals = place.open().await.totals("default-1").await.unwrap();
    let retried = Totals {
        masked: 1,
        ..Totals::default()
    };
    assert_eq!(
        totals.legacy, retried,
        "only the retry speaks of legacy itself"
    );
    let errors = Outcome::ALL.into_iter().filter(|it| it.is_error()).count() as u64;
    let expected = Totals {
        requests: 22,
        errors,
        rate_limited: 1,
        rejected: 1,
        client_gone: 1,
        masked: 1,
        input_tokens: 200,
        cached_input_tokens: 80,
        output_tokens: 40,
        cost_usd: Some(0.25),
        unpriced: 1,
        no_usage: 0,
        reported_cost_usd: None,
    };
    assert_eq!(totals.canary, expected);
    assert_eq!(place.number("SELECT count(*) FROM request").await, 37);
}

#[test]
fn what_was_committed_survives_a_killed_program() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let committed = runtime.block_on(async {
        let store = place.open().await;
        let committed = store
            .commit(state(0, "first"), Some(decision("promote")))
            .await
            .unwrap();
        // Neither closed nor dropped: the tasks end wherever they happen to be.
        std::mem::forget(store);
        committed
    });
    runtime.shutdown_background();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = place.open().await;
        assert_eq!(store.load_rollouts().await.unwrap(), [state(1, "first")]);
        let decisions = store.decisions(None, 1, None).await.unwrap();
        assert_eq!(Some(decisions[0].id), committed.decision_id);
    });
}

#[tokio::test]
async fn the_last_handle_stores_what_is_queued_when_it_goes() {
    let place = Place::new();
    let store = place.open().await;
    let mut health = store.health();
    store.record_attempts(attempts(10, Arm::Legacy, Outcome::Ok));
    drop(store);
    // The writer drops its end when it is done.
    while health.changed().await.is_ok() {}
    assert_eq!(place.number("SELECT count(*) FROM request").await, 10);
}

#[tokio::test]
async fn a_closed_store_refuses_and_counts() {
    let place = Place::new();
    let store = place.open().await;
    let clone = store.clone();
    store.close().await.unwrap();
    clone.record_attempts(attempts(2, Arm::Legacy, Outcome::Ok));
    assert_eq!(clone.health().borrow().dropped_samples, 2);
    assert_eq!(
        clone.commit(state(0, "late"), None).await,
        Err(StoreError::Closed)
    );
    assert_eq!(
        clone.submit(state(0, "late"), None).await.unwrap(),
        Err(StoreError::Closed)
    );
    assert_eq!(clone.close().await, Err(StoreError::Closed));
}

#[tokio::test]
async fn a_new_file_keeps_a_wal_and_gives_pages_back() {
    let place = Place::new();
    let _store = place.open().await;
    assert_eq!(place.number("PRAGMA auto_vacuum").await, 2);
    let mode: String = place.rows("PRAGMA journal_mode").await[0].get(0);
    assert_eq!(mode, "wal");
}

fn arm_cell(requests: u64, times_ms: &[f64]) -> ArmCell {
    let mut latency = Sketch::default();
    for &time_ms in times_ms {
        latency.record_ms(time_ms);
    }
    ArmCell {
        requests,
        latency,
        ..ArmCell::default()
    }
}

fn cell_row(opened_at: UnixMillis, requests: u64, times_ms: &[f64]) -> CellRow {
    let mut cell = Cell::open(opened_at, Weight::FULL, 7);
    cell.closed_at = opened_at.plus_millis(1_000);
    cell.arms.canary = arm_cell(requests, times_ms);
    CellRow {
        rollout_id: key().id,
        block: 3,
        cell,
    }
}

#[tokio::test]
async fn cells_are_stored_per_arm_with_their_buckets() {
    let place = Place::new();
    let store = place.open().await;
    // Recent, so that retention leaves them as they are.
    let now = UnixMillis::now();
    store.record_cells(vec![
        cell_row(now, 2, &[10.0, 10.0]),
        cell_row(now, 1, &[5.0]),
    ]);
    store.close().await.unwrap();
    let rows = place
        .rows("SELECT * FROM evidence_cell WHERE arm = 'canary' ORDER BY id")
        .await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<i64, _>("requests"), 2);
    assert_eq!(rows[0].get::<i64, _>("block"), 3);
    let latency: Sketch = serde_json::from_str(rows[0].get("latency")).unwrap();
    assert_eq!(latency, arm_cell(2, &[10.0, 10.0]).latency);
    assert_eq!(
        place
            .number("SELECT count(*) FROM evidence_cell WHERE arm = 'legacy'")
            .await,
        2
    );
}

/// Waits until `sql` gives `expected`; retention runs on its own.
pub(super) async fn eventually(place: &Place, sql: &'static str, expected: i64) {
    let mut last = None;
    for _ in 0..2_000 {
        last = Some(place.number(sql).await);
        if last == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{sql}: {last:?}, not {expected}");
}

#[tokio::test]
async fn retention_deletes_rows_but_neither_totals_nor_decisions() {
    let mut place = Place::new();
    place.config.retention = Duration::from_secs(86_400);
    place.limits.retention_every = Duration::from_millis(1);
    let store = place.open().await;
    let mut fresh = sample(Arm::Legacy, Outcome::Ok);
    fresh.started_at = UnixMillis::now();
    let mut old = sample(Arm::Legacy, Outcome::Ok);
    old.started_at = fresh.started_at.plus_millis(-2 * 86_400_000);
    let mut long_ago = decision("promote");
    long_ago.at = old.started_at;
    store.record_cells(vec![cell_row(old.started_at, 1, &[5.0])]);
    store.record_attempts(vec![attempt(old); 5_000]);
    store.record_attempts(vec![attempt(fresh); 7]);
    store
        .commit(state(0, "kept"), Some(long_ago))
        .await
        .unwrap();
    eventually(&place, "SELECT sum(requests) FROM arm_total", 5_007).await;
    eventually(&place, "SELECT count(*) FROM request", 7).await;
    eventually(&place, "SELECT sum(requests) FROM interval", 7).await;
    eventually(&place, "SELECT sum(count) FROM latency_bucket", 7).await;
    eventually(&place, "SELECT count(*) FROM evidence_cell", 0).await;
    eventually(&place, "PRAGMA freelist_count", 0).await;
    assert_eq!(
        store.totals("default-1").await.unwrap().legacy.requests,
        5_007
    );
    assert_eq!(store.decisions(None, 10, None).await.unwrap().len(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn old_rows_behind_those_of_a_clock_that_was_wrong_are_deleted_as_well() {
    let mut place = Place::new();
    place.config.retention = Duration::from_secs(86_400);
    place.limits.retention_every = Duration::from_millis(1);
    let store = place.open().await;
    let ahead = sample(Arm::Legacy, Outcome::Ok);
    let mut old = ahead.clone();
    old.started_at = UnixMillis::now().plus_millis(-2 * 86_400_000);
    assert!(ahead.started_at > UnixMillis::now(), "NOW is in the past");
    store.record_attempts(vec![attempt(ahead.clone()); 5_000]);
    store.record_attempts(vec![attempt(old); 3_000]);
    store.record_attempts(vec![attempt(ahead); 5]);
    eventually(&place, "SELECT sum(requests) FROM arm_total", 8_005).await;
    eventually(&place, "SELECT count(*) FROM request", 5_005).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_rows_have_in_common_is_stored_once_and_not_for_ever() {
    let mut place = Place::new();
    place.config.retention = Duration::from_secs(86_400);
    place.limits.retention_every = Duration::from_millis(1);
    let store = place.open().await;
    let mut probe = sample(Arm::Canary, Outcome::Ok);
    probe.role = Role::Probe;
    let mut tagged = sample(Arm::Legacy, Outcome::Reset);
    tagged.tag = Some("team".into());
    store.record_attempts(attempts(300, Arm::Legacy, Outcome::Ok));
    store.record_attempts(vec![attempt(tagged), attempt(probe)]);
    store.record_attempts(attempts(300, Arm::Legacy, Outcome::Ok));
    store.close().await.unwrap();
    let check = async |sql, expected: i64| assert_eq!(place.number(sql).await, expected, "{sql}");
    check("SELECT count(*) FROM request_kind", 3).await;
    check("SELECT count(*) FROM request_kind WHERE id < 0", 1).await;
    check(
        "SELECT count(*) FROM request WHERE arm = 'legacy' AND model = 'gpt-5' AND tag IS NULL",
        600,
    )
    .await;
    check(
        "SELECT count(*) FROM request WHERE tag = 'team' AND outcome = 'reset' AND id = 301",
        1,
    )
    .await;
    check(
        "SELECT count(*) FROM request WHERE role = 'probe' AND rollout_id = 'default-1'",
        1,
    )
    .await;
    // Another run does not know what the file has, and must not take its numbers.
    let store = place.open().await;
    store.record_attempts(attempts(1, Arm::Canary, Outcome::Ok));
    eventually(
        &place,
        "SELECT count(*) FROM request WHERE arm = 'canary' AND role = 'live'",
        1,
    )
    .await;
    check("SELECT count(*) FROM request WHERE arm = 'legacy'", 601).await;
    let mut shell = place.shell().await;
    sqlx::raw_sql("UPDATE request_kind SET made_at = 0 WHERE arm = 'legacy' OR id < 0")
        .execute(&mut shell)
        .await
        .unwrap();
    shell.close().await.unwrap();
    eventually(&place, "SELECT count(*) FROM request_kind", 1).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn kinds_outlive_their_rows_whatever_the_clock_did() {
    let mut place = Place::new();
    place.config.retention = Duration::from_secs(86_400);
    place.limits.retention_every = Duration::from_millis(1);
    let store = place.open().await;
    let now = UnixMillis::now();
    // One kind: first of a clock that is right, then of one that was ahead when the request began.
    let mut row = sample(Arm::Legacy, Outcome::Ok);
    row.started_at = now;
    store.record_attempts(attempts(1, Arm::Canary, Outcome::Ok));
    store.record_attempts(vec![attempt(row.clone())]);
    row.started_at = now.plus_millis(40 * 86_400_000);
    store.record_attempts(vec![attempt(row.clone()); 3]);
    store.close().await.unwrap();
    assert!(
        place
            .number(
                "SELECT min(k.made_at - r.started_at) FROM request_row AS r JOIN request_kind AS k ON k.id = r.kind"
            )
            .await
            >= -86_400_000
    );
    // Thousands of kinds of a clock that was ahead stand in front of one that is old.
    let mut shell = place.shell().await;
    sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5001)
         INSERT INTO request_kind (id, made_at, arm, assigned_arm, stage, weight_bps, streamed, attempt, role,
             config_epoch)
         SELECT 100 + i, CASE WHEN i = 5001 THEN 1 ELSE $1 END, 'canary', 'canary', 0, 100, 0, 1, 'old', 1 FROM n",
    )
    .bind(row.started_at.0)
    .execute(&mut shell)
    .await
    .unwrap();
    sqlx::raw_sql(
        "INSERT INTO request_kind SELECT -6000, 1, rollout, rollout_id, arm, assigned_arm, stage, weight_bps, model,
             streamed, status, attempt, 'probe', config_epoch, tag FROM request_kind WHERE id = 1",
    )
    .execute(&mut shell)
    .await
    .unwrap();
    shell.close().await.unwrap();
    let store = place.open().await;
    eventually(
        &place,
        "SELECT count(*) FROM request_kind WHERE id = 5101",
        0,
    )
    .await;
    // The latest number stays, so that it is not given away again.
    store.record_attempts(attempts(1, Arm::Canary, Outcome::Reset));
    eventually(&place, "SELECT max(id) FROM request_kind", 6_001).await;
    eventually(
        &place,
        "SELECT count(*) FROM request_kind WHERE id = -6000",
        0,
    )
    .await;
    assert_eq!(
        place
            .number("SELECT count(*) FROM request WHERE arm = 'legacy'")
            .await,
        4
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn old_minutes_are_merged_to_hours_and_old_cells_to_minutes() {
    let mut place = Place::new();
    place.limits.retention_every = Duration::from_millis(1);
    let store = place.open().await;
    let hour = UnixMillis(UnixMillis::now().0 / 3_600_000 * 3_600_000 - 5 * 86_400_000);
    for minute in 0..90 {
        let mut sample = sample(Arm::Canary, Outcome::Ok);
        sample.started_at = hour.plus_millis(minute * 60_000 + 1_234);
        store.record_attempts(vec![attempt(sample)]);
    }
    store.record_cells(
        (0..90)
            .map(|second| cell_row(hour.plus_millis(second * 1_000), 2, &[5.0, 50.0]))
            .collect(),
    );
    eventually(&place, "SELECT sum(requests) FROM arm_total", 90).await;
    eventually(&place, "SELECT count(*) FROM interval", 2).await;
    eventually(&place, "SELECT count(*) FROM latency_bucket", 2).await;
    eventually(&place, "SELECT count(*) FROM evidence_cell", 4).await;
    let slots = place.rows("SELECT slot_at, requests, count FROM interval JOIN latency_bucket USING (slot_at) ORDER BY 1").await;
    let slots: Vec<(i64, i64, i64)> = slots
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(slots, [(hour.0, 60, 60), (hour.0 + 3_600_000, 30, 30)]);
    let cells = place.rows("SELECT requests, latency, ttft, closed_at FROM evidence_cell WHERE arm = 'canary' ORDER BY opened_at").await;
    for (row, cells) in cells.iter().zip([60_u32, 30]) {
        assert_eq!(row.get::<i64, _>("requests"), i64::from(cells) * 2);
        let latency: Sketch = serde_json::from_str(row.get("latency")).unwrap();
        let once = arm_cell(2, &[5.0, 50.0]).latency;
        let expected: Sketch = once
            .iter()
            .map(|(bucket, count)| (bucket, count * f64::from(cells)))
            .collect();
        assert_eq!(latency, expected);
        assert_eq!(row.get::<String, _>("ttft"), "{}");
    }
    assert_eq!(cells[1].get::<i64, _>("closed_at"), hour.0 + 90_000);
    store.close().await.unwrap();
}

#[test]
fn released_migrations_are_never_edited() {
    // Only ever add a line: a changed checksum makes every store in the field unreadable.
    let released = [(1, "4a39d68a29332f91c88bf7bd")];
    let found: Vec<(i64, String)> = sqlite::MIGRATIONS
        .iter()
        .map(|it| {
            (
                it.version,
                it.checksum
                    .iter()
                    .take(12)
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
            )
        })
        .collect();
    let released: Vec<(i64, String)> = released
        .map(|(version, sum)| (version, sum.to_owned()))
        .into();
    assert_eq!(found, released);
}

#[test]
fn every_file_of_the_schema_is_in_the_binary_in_order() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let embedded = sqlite::SCHEMA.map(|(version, name, _)| format!("{version:04}_{name}.sql"));
    assert_eq!(files, embedded);
}
