//! Which faults a round plays: a seed and the round's number say it all.

use std::fmt::Debug;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Steps of a round.
const STEPS: usize = 4;

/// What befalls cutover itself, its store, its configuration or its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inner {
    /// Another process holds the database.
    Locked,
    /// Nothing in the store's folder can be written.
    ReadOnly,
    /// The store's folder is moved away and back.
    Moved,
    /// The disk of the store is full.
    Full,
    /// The wall clock jumps by hours, and back.
    ClockJumps,
    ConfigGarbage,
    ConfigHalfWritten,
    ConfigGone,
    /// Valid and half saves in turn.
    ConfigEdits,
    /// SIGTERM, and started again.
    Restarted,
    /// `kill -9`, and started again.
    Killed,
    /// `kill -9` while rows wait for a database that is locked.
    KilledWhileLocked,
    CorruptWhileRunning,
    CorruptWhileStopped,
    Deleted,
    NoDescriptors,
}

/// What befalls the arms, or comes from other clients, at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outer {
    Nothing,
    ArmKilled(&'static str),
    ArmStopped(&'static str),
    /// The arm answers with this fault of the scripted provider.
    ArmFails(&'static str, &'static str),
    IdleClients,
    SlowClients,
    MalformedClients,
    LeavingClients,
    SlowReaders,
}

/// What an arm may do to any request and be rescued.
const FAILURES: [&str; 18] = [
    "reset-before-head",
    "close-before-head",
    "stall-head",
    "slow-head-300",
    "gap-20",
    "stall-after-20",
    "stall-after-1500",
    "reset-at-20",
    "reset-at-1500",
    "truncate-at-20",
    "truncate-at-1500",
    "end-at-20",
    "early-error",
    "inband-error",
    "soft-error",
    "html",
    "500",
    "529",
];

/// What only the canary may do: legacy is the measure of what a request and its key may ask for.
const REFUSALS: [&str; 5] = [
    "204",
    "401",
    "404-model",
    "429-retry-after-86400",
    "malformed-line",
];

/// What a round's store stands on, and what may befall it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Nothing that was recorded may be lost: every sum is exact at the end.
    Disk,
    /// The same on a disk that is small enough to be filled.
    SmallDisk,
    /// Rows may be lost, within the bounds that are stated.
    Lossy,
}

/// A round to be played.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) ground: Ground,
    pub(crate) steps: Vec<(Inner, Outer)>,
}

impl Plan {
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        use Inner::*;
        let ground = match number % 4 {
            0 => Ground::Disk,
            2 => Ground::SmallDisk,
            _ => Ground::Lossy,
        };
        let deck: &[Inner] = match ground {
            Ground::Disk => &[
                Locked,
                ReadOnly,
                Moved,
                ClockJumps,
                ConfigGone,
                ConfigEdits,
                Restarted,
                ClockJumps,
            ],
            Ground::SmallDisk => &[
                Full,
                Locked,
                ConfigGarbage,
                Full,
                ConfigHalfWritten,
                Restarted,
            ],
            Ground::Lossy => &[
                Killed,
                CorruptWhileRunning,
                NoDescriptors,
                Killed,
                KilledWhileLocked,
                Deleted,
                CorruptWhileStopped,
            ],
        };
        // The rounds on this ground before this one; each goes on where the last one stopped.
        let before = match ground {
            Ground::Disk | Ground::SmallDisk => number / 4,
            Ground::Lossy => number / 2,
        };
        let first = usize::try_from(before).unwrap() * STEPS;
        let inner = (first..first + STEPS).map(|at| dealt(deck, seed, at));
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number));
        let steps = inner
            .map(|inner| (inner, outer_beside(inner, &mut rng)))
            .collect();
        Self {
            number,
            seed: rng.random(),
            ground,
            steps,
        }
    }
}

/// The card at this place of a row of decks, each shuffled anew.
fn dealt(deck: &[Inner], seed: u64, at: usize) -> Inner {
    let (round, place) = (at / deck.len(), at % deck.len());
    let mut cards = deck.to_vec();
    cards.shuffle(&mut StdRng::seed_from_u64(seed ^ (round as u64 + 1) << 32));
    cards[place]
}

fn outer_beside(inner: Inner, rng: &mut StdRng) -> Outer {
    if inner == Inner::NoDescriptors {
        // Whoever needs a new connection fails then, and not because of an arm.
        return Outer::Nothing;
    }
    let failure = FAILURES[rng.random_range(0..FAILURES.len())];
    let refusal = REFUSALS[rng.random_range(0..REFUSALS.len())];
    match rng.random_range(0..14) {
        0 => Outer::Nothing,
        1 => Outer::ArmKilled("canary"),
        2 => Outer::ArmStopped("canary"),
        3..6 => Outer::ArmFails("canary", failure),
        6 => Outer::ArmFails("canary", refusal),
        7 => Outer::ArmKilled("legacy"),
        8 => Outer::ArmStopped("legacy"),
        9 => Outer::ArmFails("legacy", failure),
        10 => Outer::IdleClients,
        11 => Outer::SlowClients,
        12 => Outer::MalformedClients,
        _ if rng.random_bool(0.5) => Outer::LeavingClients,
        _ => Outer::SlowReaders,
    }
}

#[test]
fn a_seed_says_it_all_and_every_fault_has_its_turn() {
    let texts = |seed| (0..12).map(move |number| format!("{:?}", Plan::of(seed, number)));
    assert!(texts(7).eq(texts(7)));
    assert!(!texts(7).eq(texts(8)));
    for seed in 0..50 {
        let all = texts(seed).collect::<String>();
        for word in [
            "Locked",
            "ReadOnly",
            "Moved",
            "Full",
            "ClockJumps",
            "ConfigGarbage",
            "ConfigHalfWritten",
            "ConfigGone",
            "ConfigEdits",
            "Restarted",
            "(Killed",
            "KilledWhileLocked",
            "CorruptWhileRunning",
            "CorruptWhileStopped",
            "Deleted",
            "NoDescriptors",
        ] {
            assert!(all.contains(word), "seed {seed} never plays {word}");
        }
    }
}
