//! Everything that can happen to a file: traffic goes on, trouble is told once, and it mends itself.

use super::*;

/// Waits until health is as wanted and returns it.
async fn healthy(store: &Store, wanted: bool) -> Health {
    let mut health = store.health();
    let reached = health.wait_for(|health| health.healthy == wanted);
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    reached.expect("health did not change").unwrap().clone()
}

/// A store that has one decision.
async fn store_with_a_decision(place: &Place) -> Store {
    let store = place.open().await;
    store
        .commit(state(0, "first"), Some(decision("promote")))
        .await
        .unwrap();
    store
}

/// Drives a store from trouble to recovery: nothing that was handed over may be lost.
async fn check_trouble_and_recovery(
    place: &Place,
    store: Store,
    words: &str,
    mend: impl AsyncFnOnce(),
) {
    store.record_attempts(attempts(800, Arm::Legacy, Outcome::Ok));
    let health = healthy(&store, false).await;
    let error = health.error.unwrap();
    assert!(error.contains(words), "{error}");
    let refused = store
        .commit(state(1, "promoted"), Some(decision("promote")))
        .await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
    let tripped = store.submit(state(1, "tripped"), Some(decision("trip")));
    let rolled_back = store.submit(state(2, "rolled back"), Some(decision("roll-back")));
    store.save_state(state(3, "later"));
    let mut watcher = store.health();
    watcher.mark_unchanged();
    mend().await;
    assert_eq!(tripped.await.unwrap().unwrap().version, 2);
    assert_eq!(rolled_back.await.unwrap().unwrap().version, 3);
    watcher.changed().await.unwrap();
    assert!(
        watcher.borrow_and_update().healthy,
        "health changes once per trouble"
    );
    let kinds = store.decisions(None, 2, None).await.unwrap();
    assert_eq!(
        (kinds[0].kind.as_str(), kinds[1].kind.as_str()),
        ("roll-back", "trip")
    );
    store.close().await.unwrap();
    assert_eq!(place.number("SELECT count(*) FROM request").await, 800);
    let store = place.open().await;
    assert_eq!(store.load_rollouts().await.unwrap(), [state(3, "later")]);
    assert_eq!(
        store.totals("default-1").await.unwrap().legacy.requests,
        800
    );
}

#[tokio::test]
async fn a_locked_database_delays_and_loses_nothing() {
    let place = Place::new();
    let store = store_with_a_decision(&place).await;
    let mut shell = place.shell().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut shell)
        .await
        .unwrap();
    check_trouble_and_recovery(&place, store, "locked", async || {
        sqlx::raw_sql("ROLLBACK").execute(&mut shell).await.unwrap();
        shell.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_delays_and_loses_nothing() {
    let place = Place::new();
    let store = store_with_a_decision(&place).await;
    // SQLite raises it to what is there already: no page can be added.
    place.limits.max_pages.store(1, Ordering::SeqCst);
    check_trouble_and_recovery(&place, store, "disk is full", async || {
        place.limits.max_pages.store(0, Ordering::SeqCst);
    })
    .await;
}

#[tokio::test]
async fn a_vanished_folder_is_waited_for_and_the_states_are_written_again() {
    let place = Place::new();
    let store = store_with_a_decision(&place).await;
    let elsewhere = place.folder.path().with_extension("elsewhere");
    fs::rename(place.folder.path(), &elsewhere).unwrap();
    check_trouble_and_recovery(&place, store, "", async || {
        fs::create_dir(place.folder.path()).unwrap();
    })
    .await;
    fs::remove_dir_all(elsewhere).unwrap();
}

#[tokio::test]
async fn a_deleted_file_is_made_anew_with_the_states_last_known() {
    let place = Place::new();
    let store = store_with_a_decision(&place).await;
    store.save_state(state(1, "saved"));
    store
        .commit(
            RolloutRow {
                rollout_id: "other-1".to_owned(),
                ..state(0, "other")
            },
            None,
        )
        .await
        .unwrap();
    fs::remove_file(place.path()).unwrap();
    let error = healthy(&store, false).await.error.unwrap();
    assert!(error.contains("deleted, moved or replaced"), "{error}");
    healthy(&store, true).await;
    let states = store.load_rollouts().await.unwrap();
    assert_eq!(states.len(), 2);
    assert!(states.contains(&state(1, "saved")), "{states:?}");
    let next = store
        .commit(state(1, "next"), Some(decision("promote")))
        .await
        .unwrap();
    assert_eq!(
        next.version, 2,
        "the driver goes on from the version that it knows"
    );
    assert_eq!(next.decision_id, Some(2), "no number names two decisions");
    assert_eq!(place.number("PRAGMA user_version").await, 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_put_in_place_of_ours_is_taken_over_and_spared_our_journal() {
    let place = Place::new();
    let other = Place::new();
    let backup = other.open().await;
    backup
        .commit(state(0, "backup"), Some(decision("hold")))
        .await
        .unwrap();
    backup.close().await.unwrap();
    let store = store_with_a_decision(&place).await;
    fs::rename(other.path(), place.path()).unwrap();
    healthy(&store, false).await;
    healthy(&store, true).await;
    assert_eq!(store.load_rollouts().await.unwrap(), [state(1, "first")]);
    let decisions = store.decisions(None, 10, None).await.unwrap();
    assert_eq!(decisions[0].kind, "hold", "the backup's own history stays");
    let check: String = place.rows("PRAGMA integrity_check").await[0].get(0);
    assert_eq!(check, "ok");
    assert_eq!(
        place.files_with(".vanished-").len(),
        2,
        "our journal is set aside"
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_deleted_journal_costs_nothing() {
    let place = Place::new();
    let store = store_with_a_decision(&place).await;
    healthy(&store, true).await;
    store.record_attempts(attempts(10, Arm::Legacy, Outcome::Ok));
    // A turn has seen the journal once the commit is through.
    store.commit(state(1, "second"), None).await.unwrap();
    store.commit(state(2, "third"), None).await.unwrap();
    fs::remove_file(health::beside(place.path(), "-wal")).unwrap();
    healthy(&store, false).await;
    healthy(&store, true).await;
    store.close().await.unwrap();
    let store = place.open().await;
    assert_eq!(store.load_rollouts().await.unwrap(), [state(3, "third")]);
    assert_eq!(store.totals("default-1").await.unwrap().legacy.requests, 10);
}

#[tokio::test]
async fn a_folder_that_takes_no_file_is_noticed_although_writes_still_work() {
    let place = Place::new();
    let store = store_with_a_decision(&place).await;
    // Stands in for a folder without write permission, which does not stop root.
    let obstacle = health::beside(place.path(), ".probe");
    fs::create_dir(&obstacle).unwrap();
    let error = healthy(&store, false).await.error.unwrap();
    assert!(error.contains("takes no new file"), "{error}");
    store.commit(state(1, "second"), None).await.unwrap();
    fs::remove_dir(&obstacle).unwrap();
    healthy(&store, true).await;
    store.close().await.unwrap();
    assert!(place.files_with(".probe").is_empty());
}

#[tokio::test]
async fn a_corrupt_file_is_set_aside_at_start() {
    let place = Place::new();
    fs::write(
        place.path(),
        "this is not a database, but somebody may want it back".repeat(100),
    )
    .unwrap();
    let opened = place.try_open().await.unwrap();
    let aside = opened.set_aside.clone().unwrap();
    assert!(
        fs::read_to_string(&aside)
            .unwrap()
            .starts_with("this is not a database")
    );
    assert_eq!(opened.store.health().borrow().set_aside, Some(aside));
    opened.store.commit(state(0, "first"), None).await.unwrap();
    opened.store.close().await.unwrap();
    assert!(place.try_open().await.unwrap().set_aside.is_none());
}

#[tokio::test]
async fn a_file_that_becomes_corrupt_in_use_is_set_aside_and_replaced() {
    let place = Place::new();
    store_with_a_decision(&place).await.close().await.unwrap();
    let store = place.open().await;
    let length = fs::metadata(place.path()).unwrap().len();
    fs::write(place.path(), vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    // Pages that are in the cache hide it; rows for a table that is not will show it.
    store.record_attempts(attempts(10, Arm::Legacy, Outcome::Ok));
    let error = healthy(&store, false).await.error.unwrap();
    assert!(
        error.contains("corrupt") && error.contains("set aside"),
        "{error}"
    );
    let health = healthy(&store, true).await;
    assert!(health.set_aside.unwrap().exists());
    assert_eq!(store.load_rollouts().await.unwrap(), [state(1, "first")]);
    store.close().await.unwrap();
    assert_eq!(place.number("SELECT count(*) FROM request").await, 10);
}

#[tokio::test]
async fn a_reader_that_finds_the_file_corrupt_tells_the_writer() {
    let place = Place::new();
    store_with_a_decision(&place).await.close().await.unwrap();
    let store = place.open().await;
    let length = fs::metadata(place.path()).unwrap().len();
    fs::write(place.path(), vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    // Nothing is written, so the writer itself would notice nothing.
    store.decisions(None, 10, None).await.unwrap_err();
    let error = healthy(&store, false).await.error.unwrap();
    assert!(
        error.contains("corrupt") && error.contains("set aside"),
        "{error}"
    );
    healthy(&store, true).await;
    assert_eq!(store.load_rollouts().await.unwrap(), [state(1, "first")]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let place = Place::new();
    store_with_a_decision(&place).await.close().await.unwrap();
    let mut shell = place.shell().await;
    sqlx::raw_sql("INSERT INTO _sqlx_migrations SELECT 99, description, installed_on, success, checksum, 0 FROM _sqlx_migrations")
        .execute(&mut shell)
        .await
        .unwrap();
    shell.close().await.unwrap();
    let error = place.try_open().await.unwrap_err();
    let path = place.path().to_owned();
    assert_eq!(
        error,
        StoreError::NewerSchema {
            path,
            found: 99,
            known: 1
        }
    );
    assert!(error.to_string().contains("newer cutover"), "{error}");
    assert!(place.files_with("corrupt").is_empty());
}

#[tokio::test]
async fn a_missing_folder_is_refused_with_a_remedy() {
    let mut place = Place::new();
    place.config.path = place.folder.path().join("missing").join("cutover.db");
    let error = place.try_open().await.unwrap_err();
    assert!(error.to_string().contains("create it"), "{error}");
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_never_blocks() {
    let mut place = Place::new();
    place.limits.queued_attempts = 100;
    place.limits.queued_cells = 0;
    place.limits.queued_commits = 1;
    let store = place.open().await;
    let mut shell = place.shell().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut shell)
        .await
        .unwrap();
    store.record_attempts(attempts(1, Arm::Legacy, Outcome::Ok));
    // From here on one row is with the writer, which cannot store it.
    healthy(&store, false).await;
    for _ in 0..30 {
        store.record_attempts(attempts(10, Arm::Legacy, Outcome::Ok));
    }
    store.record_cells(vec![CellRow {
        rollout_id: key().id,
        block: 0,
        cell: Cell::open(NOW, Weight::FULL, 1),
    }]);
    let kept = store.submit(state(0, "kept"), None);
    let refused = store.submit(state(1, "one too many"), None);
    assert_eq!(refused.await.unwrap(), Err(StoreError::QueueFull));
    let health = store.health().borrow().clone();
    assert_eq!((health.dropped_samples, health.dropped_cells), (200, 1));
    assert!(!health.healthy);
    sqlx::raw_sql("ROLLBACK").execute(&mut shell).await.unwrap();
    shell.close().await.unwrap();
    assert_eq!(kept.await.unwrap().unwrap().version, 1);
    store.close().await.unwrap();
    assert_eq!(place.number("SELECT count(*) FROM request").await, 101);
}

#[tokio::test]
async fn rows_that_break_a_rule_are_refused_and_hold_up_nobody() {
    let mut place = Place::new();
    // The shell below may hold its lock for long on a busy machine: that is not the trouble that is meant.
    place.limits.busy_timeout = Duration::from_secs(20);
    let store = place.open().await;
    let mut shell = place.shell().await;
    sqlx::raw_sql(
        "CREATE TRIGGER picky BEFORE INSERT ON decision WHEN NEW.kind = 'odd' BEGIN SELECT RAISE(ABORT, 'odd'); END;
         CREATE TRIGGER fussy BEFORE INSERT ON request_kind WHEN NEW.arm = 'canary' BEGIN SELECT RAISE(ABORT, 'odd'); END;",
    )
    .execute(&mut shell)
    .await
    .unwrap();
    shell.close().await.unwrap();
    let refused = store
        .submit(state(0, "odd"), Some(decision("odd")))
        .await
        .unwrap();
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "{refused:?}"
    );
    assert!(store.health().borrow().healthy);
    store
        .commit(state(0, "fine"), Some(decision("promote")))
        .await
        .unwrap();
    let mut news = store.health();
    store.record_attempts(attempts(5, Arm::Canary, Outcome::Ok));
    // It may be well again before anybody looks.
    news.changed().await.unwrap();
    healthy(&store, true).await;
    assert_eq!(store.health().borrow().dropped_samples, 5);
    store.record_attempts(attempts(5, Arm::Legacy, Outcome::Ok));
    store.close().await.unwrap();
    assert_eq!(place.number("SELECT count(*) FROM request").await, 5);
}

#[tokio::test]
async fn closing_in_trouble_ends_in_time_and_says_what_is_lost() {
    let place = Place::new();
    let store = place.open().await;
    let mut shell = place.shell().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut shell)
        .await
        .unwrap();
    store.record_attempts(attempts(3, Arm::Legacy, Outcome::Ok));
    let tripped = store.submit(state(0, "tripped"), Some(decision("trip")));
    healthy(&store, false).await;
    let error = store.close().await.unwrap_err().to_string();
    assert!(
        error.contains("3 attempts and 1 decisions were not stored"),
        "{error}"
    );
    assert_eq!(tripped.await.unwrap(), Err(StoreError::Closed));
    shell.close().await.unwrap();
}

/// Waits until a check has found nothing.
async fn settled(store: &Store) {
    for _ in 0..4_000 {
        if !store.0.shared.doubt.is_raised() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the doubt was not settled");
}

#[tokio::test]
async fn readers_that_doubt_again_and_again_hold_up_nobody() {
    let place = Place::new();
    let store = store_with_a_decision(&place).await;
    store.0.shared.doubt.raise();
    settled(&store).await;
    store.0.shared.doubt.raise();
    for version in 1..5 {
        store.commit(state(version, "next"), None).await.unwrap();
    }
    let shared = Arc::clone(&store.0.shared);
    assert!(shared.doubt.is_raised(), "not checked again so soon");
    store.close().await.unwrap();
    assert!(shared.doubt.is_raised(), "nor at the end");
    assert!(shared.health.borrow().healthy);
    assert!(place.files_with("corrupt").is_empty());
}
