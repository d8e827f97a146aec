use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const DAY_MS: i64 = 24 * HOUR_MS;

#[test]
fn an_id_is_known_until_the_hour_after_its_time_is_over() {
    let table = LearnedIds::new(7);
    assert!(!table.knows(1, NOW));
    let learned = table.learn(1, NOW, DAY_MS).unwrap();
    let expected = LearnedId {
        hash: 1,
        canary: 7,
        learned_at: NOW,
        expires_at: NOW.plus_millis(DAY_MS),
    };
    assert_eq!(learned, expected);
    for (after_ms, known) in [(0, true), (DAY_MS - 1, true), (DAY_MS + HOUR_MS, false)] {
        assert_eq!(
            table.knows(1, NOW.plus_millis(after_ms)),
            known,
            "{after_ms}"
        );
    }
    assert_eq!((table.known(), table.learned()), (1, 1));
}

#[test]
fn what_is_known_is_no_news_before_the_hour_is_over() {
    let table = LearnedIds::new(0);
    assert!(table.learn(5, NOW, DAY_MS).is_some());
    assert!(table.learn(5, NOW, DAY_MS).is_none());
    assert!(table.learn(5, NOW, DAY_MS / 2).is_none(), "a shorter time");
    let later = NOW.plus_millis(HOUR_MS);
    assert!(table.learn(5, later, DAY_MS).is_some());
    assert!(table.knows(5, NOW.plus_millis(DAY_MS)));
    assert_eq!((table.known(), table.learned()), (1, 2));
}

#[test]
fn a_ninth_id_in_one_place_takes_that_of_the_oldest_and_never_of_a_younger_one() {
    let table = LearnedIds::new(0);
    let id = |number: u64| (number << INDEX_BITS) | 3;
    let ends = |days: i64| NOW.plus_millis(days * DAY_MS);
    for number in 1..=8 {
        assert!(table.remember(id(number), ends(10 + i64::try_from(number).unwrap()), NOW));
    }
    assert!(!table.remember(id(9), ends(5), NOW), "it would end first");
    assert!(table.remember(id(10), ends(30), NOW));
    let known: Vec<_> = (1..=10).filter(|&n| table.knows(id(n), NOW)).collect();
    assert_eq!(known, [2, 3, 4, 5, 6, 7, 8, 10]);
    assert_eq!(table.known(), 8);
}

#[test]
fn what_is_past_is_swept_and_does_not_come_back_in_later_years() {
    let table = LearnedIds::new(0);
    table.learn(1, NOW, DAY_MS).unwrap();
    table.learn(2, NOW, 9 * DAY_MS).unwrap();
    let later = NOW.plus_millis(2 * DAY_MS);
    table.sweep(later);
    assert_eq!(table.known(), 1);
    assert!(!table.knows(1, later) && table.knows(2, later));
    table.sweep(NOW.plus_millis(10 * DAY_MS));
    for year in 0..20 {
        assert!(!table.knows(1, NOW.plus_millis(year * 365 * DAY_MS)));
        assert!(!table.knows(2, NOW.plus_millis((year + 1) * 365 * DAY_MS)));
    }
    assert_eq!(table.known(), 0);
}

#[test]
fn a_time_beyond_measure_is_a_long_one_and_one_that_is_past_is_none() {
    let table = LearnedIds::new(0);
    assert!(table.remember(1, UnixMillis(i64::MAX), NOW));
    assert!(table.knows(1, NOW.plus_millis(7 * 365 * DAY_MS)));
    assert!(!table.remember(2, NOW.plus_millis(-HOUR_MS), NOW));
    assert!(!table.knows(2, NOW));
}

#[test]
fn threads_that_learn_at_once_lose_nothing_while_there_is_room() {
    let table = LearnedIds::new(0);
    let id = |number: u64| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
    std::thread::scope(|scope| {
        for start in [0, 5_000, 10_000] {
            let table = &table;
            scope.spawn(move || {
                for number in start..start + 10_000 {
                    table.learn(id(number), NOW, DAY_MS);
                    assert!(table.knows(id(number), NOW), "{number}");
                }
            });
        }
    });
    assert!((0..20_000).all(|number| table.knows(id(number), NOW)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Few buckets and few tags, so that they meet.
    #[test]
    fn it_claims_only_what_it_was_given_and_is_full_of_the_latest(
        given in prop::collection::vec((0u64..4, 0u64..40, 1i64..50), 1..200),
        asked in prop::collection::vec((0u64..4, 0u64..40), 1..100),
    ) {
        let hash = |place: u64, tag: u64| (tag << INDEX_BITS) | place;
        let table = LearnedIds::new(0);
        let mut ends: BTreeMap<u64, i64> = BTreeMap::new();
        for (place, tag, days) in given {
            let id = hash(place, tag + 1);
            table.remember(id, NOW.plus_millis(days * DAY_MS), NOW);
            let end = ends.entry(id).or_default();
            *end = days.max(*end);
        }
        for (place, tag) in asked {
            let id = hash(place, tag + 1);
            let end = ends.get(&id).copied().unwrap_or(0);
            prop_assert!(!table.knows(id, NOW) || end > 0);
            let after = NOW.plus_millis(end * DAY_MS + HOUR_MS);
            prop_assert!(!table.knows(id, after));
        }
        for place in 0..4 {
            let here: BTreeSet<_> = ends.iter().filter(|(id, _)| *id & LOW == place).collect();
            let known: Vec<_> = here.iter().filter(|(id, _)| table.knows(**id, NOW)).collect();
            prop_assert_eq!(known.len(), here.len().min(WAYS));
            let least = known.iter().map(|(_, end)| **end).min().unwrap_or(0);
            let lost = here.iter().filter(|(id, _)| !table.knows(**id, NOW));
            prop_assert!(lost.into_iter().all(|(_, end)| **end <= least));
        }
    }
}

#[test]
fn its_pages_hold_every_id_that_is_not_past_once() {
    let ids = LearnedIds::new(7);
    assert_eq!(ids.page(0, NOW), (Vec::new(), None));
    let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for number in 1..=5_000 {
        let hours = if number % 5 == 0 { 1 } else { 48 };
        ids.learn(hash(number), NOW, hours * HOUR_MS);
    }
    let now = NOW.plus_millis(3 * HOUR_MS);
    let (mut found, mut from) = (Vec::new(), Some(0));
    while let Some(place) = from {
        let (page, next) = ids.page(place, now);
        assert!(page.len() <= PAGE * WAYS && next.is_none_or(|next| next > place));
        found.extend(page);
        from = next;
    }
    assert_eq!(found.len(), 4_000);
    // A table that takes them in is the same table.
    let copy = LearnedIds::new(7);
    for id in &found {
        assert_eq!((id.canary, id.learned_at), (7, now));
        assert!(copy.remember(id.hash, id.expires_at, now));
        assert!(!ids.remember(id.hash, id.expires_at, now), "the same end");
    }
    assert!((1..=5_000).all(|number| copy.knows(hash(number), now) == (number % 5 != 0)));
}
