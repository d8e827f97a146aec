//! The rows of single attempts: what many have in common is stored once, the rest as numbers.
//!
//! A row costs what is bound and written of it, and most of its words are those of its neighbours. So the
//! words stand in `request_kind`, and rows name them by a number; the view `request` joins them for people.
//! Which kinds the file has is remembered, at most [`KINDS_MOST`] and for a day: who forgets one writes it
//! once more under a new number. **A kind outlives its rows:** none of them began more than [`KIND_LASTS_MS`] after
//! the `made_at` of its kind, whatever the clock did, so that retention may delete kinds by that time. **No number
//! names two kinds:** retention leaves the latest one in the file.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use sqlx::SqliteConnection;
use xxhash_rust::xxh3::xxh3_64;

use super::insert::Insert;
use super::{AttemptRow, RolloutKey, day_of};
use crate::arm::Arm;
use crate::clock::UnixMillis;
use crate::outcome::Outcome;
use crate::sample::{Role, Sample};

/// Kinds remembered at most: clients choose names of models and tags.
const KINDS_MOST: usize = 4_096;
/// How long after it was made a kind gets rows.
pub(super) const KIND_LASTS_MS: i64 = 86_400_000;

/// What rows have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kind {
    rollout: Option<RolloutKey>,
    /// Stage, weight in basis points, status, epoch, attempt.
    numbers: [u32; 5],
    streamed: bool,
    arm: Arm,
    assigned: Arm,
    role: Role,
    model: Option<Box<str>>,
    tag: Option<Box<str>>,
}

impl Kind {
    fn of(row: &AttemptRow) -> Self {
        let sample = &row.sample;
        Self {
            rollout: row.rollout.clone(),
            numbers: numbers_of(sample),
            streamed: sample.streamed,
            arm: sample.arm,
            assigned: sample.assigned,
            role: sample.role,
            model: sample.model.clone(),
            tag: sample.tag.clone(),
        }
    }

    /// The same as comparing with [`Kind::of`], without its copies.
    fn is_of(&self, row: &AttemptRow) -> bool {
        let sample = &row.sample;
        self.numbers == numbers_of(sample)
            && self.streamed == sample.streamed
            && self.arm == sample.arm
            && self.assigned == sample.assigned
            && self.role == sample.role
            && self.model == sample.model
            && self.tag == sample.tag
            && self.rollout == row.rollout
    }
}

fn numbers_of(sample: &Sample) -> [u32; 5] {
    [
        u32::from(sample.stage),
        u32::from(sample.weight.bps()),
        u32::from(sample.status),
        sample.config_epoch,
        u32::from(sample.attempt),
    ]
}

/// A number that is most likely another one for another kind.
fn hash_of(row: &AttemptRow) -> u64 {
    let sample = &row.sample;
    let text = |text: Option<&str>| text.map_or(1, |text| xxh3_64(text.as_bytes()));
    let flags = (u64::from(sample.streamed) << 16)
        | (u64::from(sample.arm == Arm::Canary) << 17)
        | (u64::from(sample.assigned == Arm::Canary) << 18)
        | (sample.role as u64);
    let rollout = row.rollout.as_ref().map(|rollout| &*rollout.id);
    let words = [
        text(rollout),
        text(sample.model.as_deref()),
        text(sample.tag.as_deref()),
    ];
    let numbers = numbers_of(sample).map(u64::from);
    let all = words.into_iter().chain(numbers).chain([flags]);
    all.fold(0, |hash, word| {
        (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// A kind in the file.
#[derive(Debug, Clone)]
struct Made {
    kind: Kind,
    id: i64,
    /// When it was written, or when its first row began if that is later.
    made_at: i64,
}

/// The kinds that the open file is known to have.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    known: HashMap<u64, Made>,
    /// The highest number in the file, without its sign; `None`: not asked yet.
    last: Option<i64>,
    day: i64,
}

impl Kinds {
    /// Forgets all: the file may be another one, or may have lost what was written last.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Forgets kinds if this is another day than the last one, in either direction.
    pub(super) fn begin_day(&mut self, now: UnixMillis) {
        if self.day != day_of(now) {
            self.day = day_of(now);
            self.known.clear();
        }
    }

    /// Prepares for rows that are written now; the highest number so far.
    async fn begin(
        &mut self,
        connection: &mut SqliteConnection,
        now: UnixMillis,
    ) -> Result<i64, sqlx::Error> {
        self.begin_day(now);
        if let Some(last) = self.last {
            return Ok(last);
        }
        let ends = "SELECT coalesce(max(id), 0), coalesce((SELECT min(id) FROM request_kind), 0) FROM request_kind";
        let (highest, lowest): (i64, i64) = sqlx::query_as(ends).fetch_one(connection).await?;
        Ok(highest.max(lowest.saturating_neg()))
    }

    /// The number of a row's kind; one that is new is added to `fresh`.
    fn id_of(
        &mut self,
        row: &AttemptRow,
        now: UnixMillis,
        last: &mut i64,
        fresh: &mut Vec<Made>,
    ) -> i64 {
        let hash = hash_of(row);
        let began_at = row.sample.started_at.0;
        if let Some(made) = self.known.get(&hash)
            && made.kind.is_of(row)
            && began_at <= made.made_at.saturating_add(KIND_LASTS_MS)
        {
            return made.id;
        }
        if self.known.len() >= KINDS_MOST {
            self.known.clear();
        }
        *last += 1;
        let kind = Kind::of(row);
        let id = if kind.role == Role::Probe {
            -*last
        } else {
            *last
        };
        let made_at = now.0.max(began_at);
        let made = Made { kind, id, made_at };
        self.known.insert(hash, made.clone());
        fresh.push(made);
        id
    }
}

static KIND: LazyLock<Insert> = LazyLock::new(|| {
    let columns = "id, made_at, rollout, rollout_id, arm, assigned_arm, stage, weight_bps, model, streamed, \
        status, attempt, role, config_epoch, tag";
    Insert::new("request_kind", columns, "")
});

static ROW: LazyLock<Insert> = LazyLock::new(|| {
    let columns = "started_at, kind, outcome, latency_us, ttft_us, input_tokens, cached_input_tokens, \
        cache_write_tokens, output_tokens, cost_usd, upstream_request_id, key_hash, cache_write_1h_tokens, \
        reported_cost_usd";
    Insert::new("request_row", columns, "")
});

/// Stores rows of their own for these attempts. After an error [`Kinds::forget`] must follow.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    kinds: &mut Kinds,
    attempts: &[&AttemptRow],
    now: UnixMillis,
) -> Result<(), sqlx::Error> {
    if attempts.is_empty() {
        return Ok(());
    }
    let mut last = kinds.begin(connection, now).await?;
    let mut fresh = Vec::new();
    let numbered: Vec<(i64, &AttemptRow)> = attempts
        .iter()
        .map(|row| (kinds.id_of(row, now, &mut last, &mut fresh), *row))
        .collect();
    kinds.last = Some(last);
    insert_kinds(connection, &fresh).await?;
    ROW.run(connection, &numbered, |row, (kind, attempt)| {
        let sample = &attempt.sample;
        let usage = sample.usage;
        row.push_bind(sample.started_at.0)
            .push_bind(*kind)
            // The table has `ok` for NULL, the word of nearly all.
            .push_bind((sample.outcome != Outcome::Ok).then(|| sample.outcome.as_str()))
            .push_bind(micros(sample.latency_us))
            .push_bind(sample.ttft_us.map(micros))
            .push_bind(usage.map(|usage| usage.input_tokens))
            .push_bind(usage.map(|usage| usage.cached_input_tokens))
            .push_bind(usage.map(|usage| usage.cache_write_tokens))
            .push_bind(usage.map(|usage| usage.output_tokens))
            .push_bind(attempt.price())
            .push_bind(sample.upstream_request_id.as_deref().map(Arc::<str>::from))
            .push_bind((sample.key_hash != 0).then(|| sample.key_hash.cast_signed()))
            .push_bind(usage.map(|usage| usage.cache_write_1h_tokens))
            .push_bind(sample.reported_cost_usd);
    })
    .await
}

async fn insert_kinds(
    connection: &mut SqliteConnection,
    fresh: &[Made],
) -> Result<(), sqlx::Error> {
    KIND.run(connection, fresh, |row, made| {
        let kind = &made.kind;
        let [stage, weight_bps, status, config_epoch, attempt] = kind.numbers;
        let rollout = kind.rollout.as_ref();
        row.push_bind(made.id)
            .push_bind(made.made_at)
            .push_bind(rollout.map(|it| Arc::clone(&it.name)))
            .push_bind(rollout.map(|it| Arc::clone(&it.id)))
            .push_bind(kind.arm.as_str())
            .push_bind(kind.assigned.as_str())
            .push_bind(stage)
            .push_bind(weight_bps)
            .push_bind(kind.model.as_deref())
            .push_bind(kind.streamed)
            .push_bind((status != 0).then_some(status))
            .push_bind(attempt)
            .push_bind(kind.role.as_str())
            .push_bind(config_epoch)
            .push_bind(kind.tag.as_deref());
    })
    .await
}

fn micros(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}
