//! What the clients saw, and when what was broken: which answers were allowed to fail, and which rows to be lost.

use std::time::{Duration, Instant};

use crate::judge::Saw;

/// One request of a client.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The model that it named: no other request has it.
    pub(crate) model: String,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    /// The arm that answered, if one did.
    pub(crate) arm: Option<String>,
    pub(crate) streamed: bool,
    pub(crate) saw: Saw,
}

/// What is broken for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// cutover was killed and is not back yet.
    Killed,
    /// cutover was told to end and is not back yet.
    Restarted,
    /// cutover has no descriptors left.
    NoDescriptors,
    /// The arm of this name fails.
    Arm(&'static str),
}

/// A time, from and to.
type Span = (Instant, Instant);

/// When what was broken, and which rows may be missing.
#[derive(Debug, Default)]
pub(crate) struct Times {
    broken: Vec<(Broken, Span)>,
    /// Requests that ended in such a time may have no row.
    lost: Vec<Span>,
}

/// After `kill -9`, what ended so long before may have no row. The aim is half a second; a machine that
/// is busy with other things gets more.
pub(crate) const LAST_INTERVAL: Duration = Duration::from_secs(3);

impl Times {
    pub(crate) fn broke(&mut self, what: Broken, from: Instant) {
        self.broken.push((what, (from, Instant::now())));
    }

    pub(crate) fn may_have_lost(&mut self, from: Instant, to: Instant) {
        self.lost.push((from, to));
    }

    fn is_broken(&self, entry: &Entry, what: impl Fn(Broken) -> bool) -> bool {
        self.broken.iter().any(|(broken, (from, to))| {
            what(*broken) && entry.started <= *to && entry.ended >= *from
        })
    }

    /// True if the row of this request need not be there.
    pub(crate) fn excuses_no_row(&self, entry: &Entry) -> bool {
        let ended = entry.ended;
        self.lost
            .iter()
            .any(|(from, to)| *from <= ended && ended <= *to)
    }

    /// How long before a kill this request had ended, if that may be why it has no row.
    pub(crate) fn killed_after(&self, entry: &Entry) -> Option<Duration> {
        let kills = self
            .broken
            .iter()
            .filter(|(what, _)| *what == Broken::Killed);
        let after = kills.filter_map(|(_, (from, _))| from.checked_duration_since(entry.ended));
        after.min().filter(|after| *after <= LAST_INTERVAL)
    }

    /// Why this request should have gone better; `None` if all is well.
    pub(crate) fn objection(&self, entry: &Entry) -> Option<String> {
        let is_broken = |what: Broken| self.is_broken(entry, |broken| broken == what);
        let allowed = match &entry.saw {
            Saw::Whole => true,
            Saw::Lie(_) => false,
            Saw::BrokenOff => {
                let of_its_arm = |broken| matches!(broken, Broken::Arm(name) if Some(name) == entry.arm.as_deref());
                is_broken(Broken::Killed) || self.is_broken(entry, of_its_arm)
            }
            Saw::Failed(_) => [Broken::Killed, Broken::Restarted, Broken::NoDescriptors]
                .into_iter()
                .any(is_broken),
        };
        (!allowed).then(|| {
            let took = entry.ended - entry.started;
            format!(
                "{} ({:?}, stream {}, {took:?}): {:?}",
                entry.model, entry.arm, entry.streamed, entry.saw
            )
        })
    }
}

/// How often clients saw what.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) whole: u64,
    pub(crate) by_canary: u64,
    /// Broken off by an arm.
    pub(crate) broken_off: u64,
    /// Cut by a kill of cutover, or never answered because of it.
    pub(crate) killed: u64,
    /// Refused while cutover was ending, or had no descriptors.
    pub(crate) refused: u64,
}

impl Counts {
    pub(crate) fn of(entries: &[Entry], times: &Times) -> Self {
        let mut counts = Self::default();
        for entry in entries {
            let by_kill = times.is_broken(entry, |broken| broken == Broken::Killed);
            match entry.saw {
                Saw::Whole => {
                    counts.whole += 1;
                    counts.by_canary += u64::from(entry.arm.as_deref() == Some("canary"));
                }
                _ if by_kill => counts.killed += 1,
                Saw::BrokenOff => counts.broken_off += 1,
                Saw::Failed(_) | Saw::Lie(_) => counts.refused += 1,
            }
        }
        counts
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.whole += other.whole;
        self.by_canary += other.by_canary;
        self.broken_off += other.broken_off;
        self.killed += other.killed;
        self.refused += other.refused;
    }
}
