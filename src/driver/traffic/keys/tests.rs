use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::arm::{Arm, Weight};
use crate::llm::{self, Dialect};
use crate::proxy::assign::{arm_of, bucket};
use crate::weights;

const START: UnixMillis = UnixMillis(1_700_000_000_000);
const RARE: u64 = 1 << 32;

/// Feeds `requests` with the keys that `key` draws, one each 100 ms; gives the time after them.
fn feed(
    keys: &mut Keys,
    from: UnixMillis,
    requests: u64,
    mut key: impl FnMut(u64) -> u64,
) -> UnixMillis {
    let mut now = from;
    for request in 0..requests {
        keys.record(key(request), Arm::Legacy, now);
        now = now.plus_millis(100);
    }
    now
}

#[test]
fn a_key_that_holds_over_two_percent_is_dominant() {
    for (percent, expected) in [(1, false), (3, true), (10, true), (30, true)] {
        let mut keys = Keys::default();
        // Everyone else is new each time, which is the hardest for a counter with few slots.
        let now = feed(&mut keys, START, 20_000, |request| {
            if request % 100 < percent {
                7
            } else {
                RARE + request
            }
        });
        let found = keys.refresh(now);
        assert_eq!(found == [7], expected, "{percent}%: {found:?}");
        assert_eq!(keys.is_dominant(7), expected);
        assert!(keys.slots.len() <= SLOTS && !keys.is_dominant(RARE + 19_999));
        assert!(keys.refresh(now).is_empty(), "it is told once");
    }
}

#[test]
fn no_key_is_dominant_among_few_requests() {
    let mut keys = Keys::default();
    let mut now = feed(&mut keys, START, 999, |request| {
        if request % 10 == 0 { 7 } else { RARE + request }
    });
    assert!(keys.refresh(now).is_empty());
    now = feed(
        &mut keys,
        now,
        200,
        |request| if request == 0 { 7 } else { 0 },
    );
    assert_eq!(
        keys.refresh(now),
        [7],
        "requests without a key count as requests"
    );
}

#[test]
fn twenty_equal_users_stay_in_the_evidence_and_the_status_says_why() {
    let mut keys = Keys::default();
    let now = feed(&mut keys, START, 4_000, |request| 1 + request % 20);
    assert!(keys.refresh(now).is_empty());
    assert!((1..=20).all(|key| !keys.is_dominant(key)));
    let crowd = keys.crowd().unwrap().to_string();
    insta::assert_snapshot!(crowd, @"20 keys with over 2% each hold 100% of the requests of an arm; too little would remain, so none is left out");
}

#[test]
fn a_key_that_is_most_of_one_arms_traffic_stays_in_the_evidence() {
    for (arm, other) in [(Arm::Canary, Arm::Legacy), (Arm::Legacy, Arm::Canary)] {
        let mut keys = Keys::default();
        for request in 0..5_000u64 {
            // A tenth of all requests, and all but a few of this arm's.
            let (key, arm) = match request % 20 {
                0 | 10 => (7, arm),
                1 => (RARE + request, arm),
                _ => (RARE + request, other),
            };
            keys.record(key, arm, START);
        }
        assert!(keys.refresh(START).is_empty());
        let crowd = keys.crowd().unwrap();
        assert!((0.6..0.7).contains(&crowd.share), "{crowd:?}");
    }
}

#[test]
fn a_key_at_the_limit_does_not_come_and_go() {
    for (seed, others) in [(1, 1 << 40), (2, 1 << 40), (3, 49), (4, 49)] {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut keys = Keys::default();
        let (mut told, mut now) = (0, START);
        for _ in 0..600 {
            now = feed(&mut keys, now, 50, |_| {
                if rng.random_bool(0.0205) {
                    7
                } else {
                    RARE + rng.random_range(0..others)
                }
            });
            told += usize::from(keys.refresh(now).contains(&7));
        }
        assert!(told <= 2, "seed {seed}: told {told} times");
    }
}

#[test]
fn an_hour_later_a_key_that_went_silent_is_no_longer_dominant() {
    let mut keys = Keys::default();
    let busy = |request| if request % 10 == 0 { 7 } else { RARE + request };
    let mut now = feed(&mut keys, START, 20_000, busy);
    assert_eq!(keys.refresh(now), [7]);
    now = feed(&mut keys, now, 3 * 36_000, |request| RARE + request);
    keys.refresh(now);
    assert!(keys.dominant().is_empty());
}

#[test]
fn the_clock_may_jump() {
    let mut keys = Keys::default();
    for now in [
        START,
        UnixMillis(0),
        UnixMillis(i64::MAX),
        UnixMillis(i64::MIN),
        START,
    ] {
        feed(&mut keys, now, 300, |request| request % 3);
        keys.refresh(now);
        assert!(keys.total.is_finite() && keys.total >= 0.0);
        assert!(keys.slots.iter().all(|slot| slot.count.is_finite()));
    }
}

/// A rollout's split as the data plane makes it, and what the driver learns of it.
struct Split {
    keys: Keys,
    publisher: weights::Publisher,
    reader: weights::Reader,
    rng: SmallRng,
    now: UnixMillis,
    found: Vec<u64>,
}

impl Split {
    fn new() -> Self {
        let (publisher, reader) = weights::channel();
        Self {
            keys: Keys::default(),
            publisher,
            reader,
            rng: SmallRng::seed_from_u64(3),
            now: START,
            found: Vec::new(),
        }
    }

    fn request(&mut self, body: &str) -> Arm {
        let dialect = Dialect::OpenAiChat;
        let facts = llm::read_request(dialect, body.as_bytes()).unwrap();
        let is_none = |key| self.reader.is_constant(key);
        let key = llm::sticky_auto(dialect, &facts, body.as_bytes(), is_none);
        let draw = key.unwrap_or_else(|| self.rng.random());
        let arm = arm_of(bucket(11, draw), Weight::from_bps(500).unwrap());
        self.keys.record(key.unwrap_or(0), arm, self.now);
        if let Some(found) = self.keys.take_found() {
            self.found.push(found);
            self.publisher.publish_constant_keys(self.keys.constant());
        }
        self.now = self.now.plus_millis(50);
        arm
    }
}

fn body(cache_key: &str, user: &str, prompt: &str) -> String {
    let message = format!(r#"[{{"role":"user","content":"{prompt}"}}]"#);
    format!(r#"{{"prompt_cache_key":"{cache_key}","user":"{user}","messages":{message}}}"#)
}

#[test]
fn a_traffic_with_constant_keys_splits_near_its_weight_once_they_are_known() {
    // How many of cache key, user and prompt are the same in all requests.
    for constant in 0..=3 {
        let mut split = Split::new();
        let text = |request: u64, place: u64| {
            if place < constant {
                "same".to_owned()
            } else {
                format!("{place}-{request}")
            }
        };
        let mut canary = 0;
        for request in 0..21_000u64 {
            let [cache_key, user, prompt] = [0, 1, 2].map(|place| text(request, place));
            let arm = split.request(&body(&cache_key, &user, &prompt));
            canary += u64::from(arm == Arm::Canary && request >= 1_000);
        }
        assert_eq!(split.found.len() as u64, constant);
        // 5% of 20,000, with five standard deviations.
        assert!((846..=1_154).contains(&canary), "{constant}: {canary}");
    }
}

#[test]
fn a_constant_key_moves_no_request_of_another_key() {
    let mut split = Split::new();
    let others: Vec<String> = (0..400)
        .map(|other| body("", &format!("user-{other}"), "hello"))
        .collect();
    let before: Vec<Arm> = others.iter().map(|other| split.request(other)).collect();
    for request in 0..2_000 {
        split.request(&body("", "app", &format!("question {request}")));
    }
    assert_eq!(split.found.len(), 1);
    let after: Vec<Arm> = others.iter().map(|other| split.request(other)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_key_of_less_than_half_the_requests_is_a_key() {
    let mut keys = Keys::default();
    feed(&mut keys, START, 10_000, |request| {
        if request * 45 % 100 < 45 {
            7
        } else {
            RARE + request
        }
    });
    assert_eq!(keys.take_found(), None);
    let mut young = Keys::default();
    feed(&mut young, START, 199, |_| 7);
    assert_eq!(young.take_found(), None, "too few requests to tell");
    feed(&mut young, START, 1, |_| 7);
    assert_eq!(young.take_found(), Some(7));
}

#[test]
fn constant_keys_are_remembered_and_the_oldest_makes_room() {
    let mut keys = Keys::new(vec![1, 2, 3]);
    for key in [4, 5] {
        feed(&mut keys, START, 1_000, |_| key);
        assert_eq!(keys.take_found(), Some(key));
    }
    assert_eq!(keys.constant(), [2, 3, 4, 5]);
    feed(&mut keys, START, 1_000, |_| 5);
    assert_eq!(
        keys.take_found(),
        None,
        "late requests find it no second time"
    );
}

/// The rarest place as one finds it by looking at all of them.
fn rarest_of(keys: &Keys) -> usize {
    let places = (0..).zip(&keys.slots);
    let rarest = places.min_by(|(_, a), (_, b)| a.count.total_cmp(&b.count));
    rarest.map_or(0, |(at, _)| at)
}

#[test]
fn a_new_key_takes_the_place_of_the_rarest_one() {
    let seed = 20_261_122;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut keys = Keys::default();
    let mut now = START;
    for request in 0..50_000 {
        let key = 1 + random.random_range(0..2_000u64) * random.random_range(0..3u64);
        let is_new = !keys.slots.iter().any(|slot| slot.key == key);
        let expected = (is_new && keys.slots.len() == SLOTS).then(|| rarest_of(&keys));
        keys.record(key, Arm::Legacy, now);
        if let Some(at) = expected {
            assert_eq!(keys.slots[at].key, key, "seed {seed}, request {request}");
        }
        assert_eq!(keys.places.len(), keys.slots.len());
        // Across fadings, which make new counts of all.
        now = now.plus_millis(random.random_range(0..100));
    }
}
