//! One rollout in the driver's hands: its state, its evidence, its weight, and what is shown of it.
//!
//! All decisions are `controller::step`'s; this file carries evidence in and effects out.

use std::sync::Arc;

use super::demand::Demand;
use super::incident::Incident;
use super::live::Live;
use super::metrics::Counts;
use super::pace::Pace;
use super::restore::Stored;
use super::traffic::Traffic;
use super::traffic::keys::name_of;
use crate::arm::{Arm, PerArm};
use crate::clock::UnixMillis;
use crate::controller::effect::{Decision, Effect};
use crate::controller::evidence::{Cell, Collector};
use crate::controller::headroom::Headroom;
use crate::controller::split::Assigned;
use crate::controller::step::{Event, Input, step};
use crate::controller::view::{View, view};
use crate::outcome::{Blame, Outcome};
use crate::proxy::plane::RolloutPlane;
use crate::sample::{Role, Routing, Sample};
use crate::store::{CellRow, DecisionRow, RolloutKey, RolloutRow};
use crate::upstream::breaker::Phase;
use crate::upstream::headroom::Rooms;
use crate::weights::{self, Publisher, Reader};

/// Refusals of the injected key in a row that mean that the account is the cause.
const ACCOUNT_FAILURES: u32 = 3;

/// An attempt is given up for lost so long after the longest timeout.
const LOST_AFTER_MS: i64 = 60_000;

/// What every look needs to know of the world.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    pub(super) now: UnixMillis,
    pub(super) store_healthy: bool,
    pub(super) breakers: PerArm<Phase>,
    pub(super) rooms: PerArm<Rooms>,
    /// The canary has one key for all, not one for each client with limits of its own.
    pub(super) is_one_account: bool,
}

impl Surroundings {
    /// Nothing says that legacy can be reached.
    fn legacy_breaker_open(self) -> bool {
        self.breakers.legacy != Phase::Closed
    }
}

/// One rollout.
#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) key: RolloutKey,
    /// Policy, state and what the canary was, as they are stored.
    pub(super) stored: Stored,
    /// The version that the store holds, or will once the commits under way are stored.
    pub(super) version: i64,
    pub(super) live: Live,
    pub(super) traffic: Traffic,
    /// A live attempt that is under way for longer has lost its sample.
    keep_under_way_ms: i64,
    evidence: Collector,
    incident: Incident,
    account_failures: u32,
    pace: Pace,
    demand: Demand,
    config_epoch: u32,
    publisher: Publisher,
    reader: Reader,
    /// The state changed since it was last stored.
    pub(super) is_dirty: bool,
    /// Since the process began, also over a new id.
    pub(super) counts: Counts,
}

/// What became of a look.
pub(super) struct Looked {
    pub(super) effects: Vec<Effect>,
    pub(super) refusal: Option<String>,
    pub(super) cells: Vec<CellRow>,
}

impl Rollout {
    /// A rollout with its state. Publishes the state's weight.
    pub(super) fn new(
        key: RolloutKey,
        stored: Stored,
        version: i64,
        live: Live,
        config_epoch: u32,
        now: UnixMillis,
    ) -> Self {
        let (publisher, reader) = weights::channel();
        let snapshot = stored.state.snapshot();
        publisher.publish(snapshot);
        publisher.publish_active(stored.state.is_active());
        publisher.publish_constant_keys(&stored.constant_keys);
        Self {
            key,
            traffic: Traffic::new(stored.constant_keys.clone()),
            keep_under_way_ms: i64::MAX,
            stored,
            version,
            live,
            evidence: Collector::new(now, snapshot.weight, config_epoch),
            incident: Incident::default(),
            account_failures: 0,
            pace: Pace::default(),
            demand: Demand::begin(now, false),
            config_epoch,
            publisher,
            reader,
            is_dirty: true,
            counts: Counts::default(),
        }
    }

    /// What the data plane needs of it.
    pub(super) fn plane(&self) -> RolloutPlane {
        RolloutPlane {
            rollout_id: self.key.id.to_string(),
            weights: self.reader.clone(),
        }
    }

    /// Counts live first attempts that were routed alike.
    pub(super) fn count(&mut self, routing: &Routing, count: u32) {
        let is_current = routing.config_epoch == self.config_epoch
            && routing.weight == self.reader.snapshot().weight;
        self.traffic.count(routing, count, is_current);
    }

    /// Attempts at the canary ended, of any role and rollout.
    pub(super) fn count_canary(&mut self, attempts: u64, now: UnixMillis) {
        self.demand.add(attempts, now);
    }

    /// Takes a sample in; tells the event that it means for the controller, if any.
    pub(super) fn record(
        &mut self,
        sample: &Sample,
        cost_usd: Option<f64>,
        now: UnixMillis,
    ) -> Option<Event> {
        self.live.record(sample, cost_usd, now);
        self.counts.record(sample, cost_usd);
        if sample.role == Role::Live {
            self.pace.record(now);
            if sample.arm == Arm::Canary {
                self.demand.add_own(now);
            }
        }
        self.incident.record(sample, now);
        if self.traffic.record(sample, now) {
            self.evidence.record(sample);
        }
        if let Some(key) = self.traffic.keys.take_found() {
            self.tell_constant(key);
        }
        if sample.arm != Arm::Canary {
            return None;
        }
        match sample.role {
            Role::Probe if sample.outcome.is_evidence() => Some(Event::Probe {
                ok: sample.outcome == Outcome::Ok,
            }),
            Role::Live => self.count_account_failure(sample),
            _ => None,
        }
    }

    /// A sticky key that most requests share is none: the data plane takes the next candidate from now on.
    fn tell_constant(&mut self, key: u64) {
        self.stored.constant_keys = self.traffic.keys.constant().to_vec();
        self.publisher
            .publish_constant_keys(&self.stored.constant_keys);
        self.is_dirty = true;
        tracing::warn!(
            rollout = &*self.key.name,
            key = name_of(key),
            "more than half of the requests share one sticky key, so it is none, and the next candidate is \
             used in its place; let clients name their end users in it, or set `sticky` to what tells them apart"
        );
    }

    fn tell_dominant(&mut self, now: UnixMillis) {
        for key in self.traffic.keys.refresh(now) {
            tracing::info!(
                rollout = &*self.key.name,
                key = name_of(key),
                "one sticky key holds over 2% of the requests; it stays routed and leaves the evidence"
            );
        }
    }

    fn count_account_failure(&mut self, sample: &Sample) -> Option<Event> {
        if sample.outcome.blame() != Blame::Account {
            // Only an accepted key ends the row: a timeout says nothing about it.
            if sample.outcome == Outcome::Ok {
                self.account_failures = 0;
            }
            return None;
        }
        self.account_failures += 1;
        if self.account_failures < ACCOUNT_FAILURES {
            return None;
        }
        self.account_failures = 0;
        Some(Event::AccountFailure {
            why: format!("{} ({})", sample.outcome, sample.status),
        })
    }

    /// Lets the controller look at what there is, and publishes the weight that follows.
    pub(super) fn look(&mut self, event: Option<Event>, around: Surroundings) -> Looked {
        self.evidence.tick(around.now);
        self.tell_dominant(around.now);
        self.traffic
            .under_way
            .forget(around.now, self.keep_under_way_ms);
        let closed = self.evidence.take_closed();
        let incident = self.incident.words();
        let input = Input {
            closed: &closed,
            open: self.evidence.open(),
            event,
            store_healthy: around.store_healthy,
            legacy_breaker_open: around.legacy_breaker_open(),
            incident: incident.as_deref(),
            canary_rate_per_s: self.live.rate_per_s(Arm::Canary, around.now),
            requests_per_s: self.pace.per_s(around.now),
            assigned: std::mem::take(&mut self.traffic.assigned),
            overdue: self.overdue(around.now),
            headroom: self.headroom(around),
        };
        // A copy of some kilobytes a second, so that a panic in the core would leave the state whole.
        let stepped = step(
            &self.stored.policy,
            self.stored.state.clone(),
            &input,
            around.now,
        );
        self.stored.state = stepped.state;
        self.is_dirty |= !closed.is_empty() || !stepped.effects.is_empty();
        self.publish(around.now);
        for effect in &stepped.effects {
            if matches!(effect, Effect::PermitProbe) {
                self.publisher.permit_probe();
            }
        }
        Looked {
            effects: stepped.effects,
            refusal: stepped.refusal,
            cells: self.cell_rows(closed),
        }
    }

    /// What the controller needs to know of the canary's rate limits. Clients that bring keys of their own
    /// have limits of their own, and what one answer says of them is nothing to the next.
    fn headroom(&self, around: Surroundings) -> Headroom {
        if around.is_one_account {
            self.demand.headroom(around.rooms.canary, around.now)
        } else {
            Headroom::default()
        }
    }

    fn overdue(&self, now: UnixMillis) -> PerArm<u64> {
        let after_ms = self.stored.state.overdue_after_ms();
        self.traffic.under_way.overdue(now, after_ms)
    }

    /// Publishes the weight of a state that holds. Evidence under another weight is another cell.
    pub(super) fn publish(&mut self, now: UnixMillis) {
        self.publisher.publish_active(self.stored.state.is_active());
        let (snapshot, before) = (self.stored.state.snapshot(), self.reader.snapshot());
        if snapshot.weight != before.weight {
            self.demand = Demand::begin(now, snapshot.weight < before.weight);
        }
        if snapshot != before {
            self.publisher.publish(snapshot);
            self.traffic.assigned = Assigned::default();
            self.evidence
                .switch(now, snapshot.weight, self.config_epoch);
        }
    }

    /// Evidence of the configuration before is closed.
    pub(super) fn begin_epoch(&mut self, config_epoch: u32, longest_ms: i64, now: UnixMillis) {
        self.config_epoch = config_epoch;
        self.keep_under_way_ms = longest_ms.saturating_add(LOST_AFTER_MS);
        self.traffic.assigned = Assigned::default();
        self.evidence
            .switch(now, self.stored.state.snapshot().weight, config_epoch);
    }

    /// A rollout that starts anew under another id keeps its weight's channel, so that no worker reads a
    /// weight that nobody writes.
    pub(super) fn restart_as(&mut self, id: Arc<str>) {
        self.key.id = id;
        self.version = 0;
        self.live = Live::default();
        self.incident = Incident::default();
        self.traffic = Traffic::new(self.stored.constant_keys.clone());
    }

    /// The rollout as people see it.
    pub(super) fn view(&self, around: Surroundings) -> View {
        let input = Input {
            closed: &[],
            open: self.evidence.open(),
            event: None,
            store_healthy: around.store_healthy,
            legacy_breaker_open: around.legacy_breaker_open(),
            incident: None,
            canary_rate_per_s: self.live.rate_per_s(Arm::Canary, around.now),
            requests_per_s: self.pace.per_s(around.now),
            assigned: Assigned::default(),
            overdue: self.overdue(around.now),
            headroom: self.headroom(around),
        };
        view(&self.stored.policy, &self.stored.state, &input, around.now)
    }

    /// The shares of all stages.
    pub(super) fn shares(&self) -> Vec<f64> {
        let stages = self.stored.policy.stages.iter();
        stages.map(|stage| stage.weight.fraction()).collect()
    }

    /// The row that stores `stored` on top of the current version.
    pub(super) fn row(&self, stored: &Stored, now: UnixMillis) -> RolloutRow {
        RolloutRow {
            rollout_id: self.key.id.to_string(),
            name: self.key.name.to_string(),
            version: self.version,
            state: stored.to_json(),
            updated_at: now,
        }
    }

    /// The row of a decision.
    pub(super) fn decision_row(&self, decision: &Decision) -> DecisionRow {
        DecisionRow {
            rollout: self.key.name.to_string(),
            rollout_id: self.key.id.to_string(),
            at: decision.at,
            kind: decision.kind.as_str().to_owned(),
            weight_from: decision.weight_from,
            weight_to: decision.weight_to,
            stage: i64::try_from(decision.stage).unwrap_or(i64::MAX),
            by: decision.by.as_str().to_owned(),
            reason: decision.reason.clone(),
            evidence: serde_json::to_value(decision.evidence).unwrap_or_default(),
        }
    }

    fn cell_rows(&self, closed: Vec<Cell>) -> Vec<CellRow> {
        closed
            .into_iter()
            .filter(|cell| !cell.is_empty())
            .map(|cell| CellRow {
                rollout_id: Arc::clone(&self.key.id),
                block: cell.opened_at.0.div_euclid(60_000),
                cell,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
