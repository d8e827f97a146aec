//! Ids of state that the canary keeps are there after a restart, until they are past.

use super::*;
use crate::learned::LearnedId;

const CANARY: u64 = u64::MAX - 7;

fn ids(hashes: std::ops::Range<u64>, canary: u64, expires_at: UnixMillis) -> Vec<LearnedId> {
    let id = |hash: u64| LearnedId {
        // Half of all hashes are negative in the file.
        hash: hash.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        canary,
        learned_at: NOW,
        expires_at,
    };
    hashes.map(id).collect()
}

fn known(ids: &[LearnedId]) -> Vec<(u64, UnixMillis)> {
    let mut known: Vec<_> = ids.iter().map(|id| (id.hash, id.expires_at)).collect();
    known.sort_unstable();
    known
}

async fn read(store: &Store, canary: u64, now: UnixMillis) -> Vec<(u64, UnixMillis)> {
    let mut found = store.learned(canary, now).await.unwrap();
    assert!(
        found.is_sorted_by(|a, b| a.1 >= b.1),
        "those that end last come first"
    );
    found.sort_unstable();
    found
}

#[tokio::test]
async fn ids_read_back_after_a_restart_and_only_those_of_the_same_canary() {
    let place = Place::new();
    let store = place.open().await;
    let (soon, late) = (NOW.plus_millis(1_000), NOW.plus_millis(9_000));
    let mut mine = ids(0..12_345, CANARY, soon);
    store.record_learned(mine.clone());
    store.record_learned(ids(20_000..20_100, 5, late));
    // Seen again: it ends later.
    store.record_learned(ids(0..10, CANARY, late));
    store.close().await.unwrap();

    let store = place.open().await;
    for id in mine.iter_mut().take(10) {
        id.expires_at = late;
    }
    assert_eq!(read(&store, CANARY, NOW).await, known(&mine));
    assert_eq!(read(&store, CANARY, soon).await, known(&mine[..10]));
    assert_eq!(read(&store, CANARY, late).await, []);
    assert_eq!(read(&store, 5, NOW).await.len(), 100);
    assert_eq!(read(&store, 6, NOW).await, []);
    store.close().await.unwrap();
}

#[tokio::test]
async fn ids_that_are_past_too_many_or_of_another_canary_are_deleted() {
    let mut place = Place::new();
    place.limits.retention_every = Duration::from_millis(1);
    place.limits.kept_learned = 50;
    let store = place.open().await;
    let later = |ms: i64| UnixMillis::now().plus_millis(86_400_000 + ms);
    store.record_learned(ids(0..5_000, CANARY, UnixMillis::now().plus_millis(-1)));
    // Ids of other canaries, on both sides of this one, go a day after they were learned.
    let learned_ago = |range: std::ops::Range<u64>, canary, ms: i64| -> Vec<LearnedId> {
        let learned_at = UnixMillis::now().plus_millis(-ms);
        let all = ids(range, canary, later(0)).into_iter();
        all.map(|id| LearnedId { learned_at, ..id }).collect()
    };
    let day_ms = 86_400_000;
    store.record_learned(learned_ago(5_000..9_000, 7, day_ms));
    store.record_learned(learned_ago(9_000..10_000, u64::MAX >> 1, day_ms));
    let others = learned_ago(10_100..10_110, 7, day_ms / 2);
    store.record_learned(others.clone());
    let kept = ids(10_000..10_050, CANARY, later(2_000));
    store.record_learned(kept.clone());
    store.record_learned(ids(20_000..20_100, CANARY, later(1_000)));
    let count = "SELECT count(*) FROM learned_id";
    kept::eventually(&place, count, 10_160).await;
    // Nothing is deleted before it is known whose ids are wanted.
    store.keep_learned_of(CANARY);
    kept::eventually(&place, count, 60).await;
    let now = UnixMillis::now();
    assert_eq!(read(&store, 7, now).await, known(&others));
    assert_eq!(read(&store, CANARY, now).await, known(&kept));
    store.close().await.unwrap();
}

#[tokio::test]
async fn ids_that_do_not_fit_into_the_queue_are_dropped_and_counted() {
    let mut place = Place::new();
    place.limits.queued_learned = 10;
    place.limits.flush_every = Duration::from_secs(60);
    let store = place.open().await;
    store.record_learned(ids(0..15, CANARY, NOW.plus_millis(1)));
    assert_eq!(store.health().borrow().dropped_samples, 5);
    let reader = store.clone();
    store.close().await.unwrap();
    reader.record_learned(ids(20..23, CANARY, NOW));
    assert_eq!(reader.health().borrow().dropped_samples, 8);
    assert_eq!(place.number("SELECT count(*) FROM learned_id").await, 10);
}
