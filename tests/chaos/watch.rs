//! Somebody who looks at the status all the time and remembers what may never be.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::daemon::Daemon;

const LOOKS_EVERY: Duration = Duration::from_millis(150);

#[derive(Debug)]
struct Shared {
    admin: AtomicU16,
    stopped: AtomicBool,
    objections: Mutex<Vec<String>>,
}

/// Looks until it is stopped.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    task: JoinHandle<Seen>,
}

/// What was seen, to be told.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) looks: u64,
    pub(crate) unhealthy: u64,
    pub(crate) tripped: u64,
    pub(crate) objections: Vec<String>,
}

/// One look: what cannot change in the wrong direction.
#[derive(Debug, Clone, PartialEq)]
struct Look {
    admin: u16,
    healthy: bool,
    weight: f64,
    requests: u64,
    state: String,
}

impl Look {
    fn of(admin: u16, status: &Value) -> Self {
        let rollout = &status["rollouts"][0];
        let requests = |arm: &str| rollout["arms"][arm]["requests"].as_u64().unwrap_or(0);
        Self {
            admin,
            healthy: status["store"]["healthy"] == true,
            weight: rollout["weight"].as_f64().unwrap_or(0.0),
            requests: requests("legacy") + requests("canary"),
            state: rollout["state"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Why `next` may not follow.
    fn objection(&self, next: &Self) -> Option<String> {
        if self.admin != next.admin {
            return None;
        }
        let rises_blind = !self.healthy && !next.healthy && next.weight > self.weight + 1e-9;
        if rises_blind {
            return Some(format!(
                "a weight rose while the store was broken: {self:?}, then {next:?}"
            ));
        }
        let forgets = next.requests < self.requests;
        forgets.then(|| format!("requests were forgotten: {self:?}, then {next:?}"))
    }
}

impl Watch {
    pub(crate) fn start(admin: u16) -> Self {
        let shared = Arc::new(Shared {
            admin: AtomicU16::new(admin),
            stopped: AtomicBool::new(false),
            objections: Mutex::default(),
        });
        let task = tokio::spawn(look_on(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// The daemon is somewhere else now.
    pub(crate) fn set_port(&self, admin: u16) {
        self.shared.admin.store(admin, Ordering::SeqCst);
    }

    /// Something else that may never be.
    pub(crate) fn object(&self, objection: String) {
        self.shared.objections.lock().unwrap().push(objection);
    }

    pub(crate) async fn stop(self) -> Seen {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let mut seen = self.task.await.expect("the watch goes on");
        seen.objections
            .extend(std::mem::take(&mut *self.shared.objections.lock().unwrap()));
        seen
    }
}

async fn look_on(shared: Arc<Shared>) -> Seen {
    let mut seen = Seen::default();
    let mut last: Option<Look> = None;
    while !shared.stopped.load(Ordering::SeqCst) {
        let admin = shared.admin.load(Ordering::SeqCst);
        if let Some(status) = Daemon::try_status(admin).await {
            let look = Look::of(admin, &status);
            seen.looks += 1;
            seen.unhealthy += u64::from(!look.healthy);
            seen.tripped += u64::from(look.state == "tripped");
            seen.objections
                .extend(last.and_then(|last| last.objection(&look)));
            last = Some(look);
        }
        tokio::time::sleep(LOOKS_EVERY).await;
    }
    seen
}

#[test]
fn a_weight_that_rises_blind_and_requests_that_vanish_are_seen() {
    let look = |healthy, weight, requests| Look {
        admin: 1,
        healthy,
        weight,
        requests,
        state: "running".to_owned(),
    };
    let check = |first: &Look, next: &Look, expected| {
        assert_eq!(
            first.objection(next).is_some(),
            expected,
            "{first:?}, {next:?}"
        );
    };
    check(&look(false, 0.5, 1), &look(false, 0.6, 1), true);
    check(&look(false, 0.5, 1), &look(true, 0.6, 1), false);
    check(&look(true, 0.5, 1), &look(true, 0.6, 1), false);
    check(&look(false, 0.5, 1), &look(false, 0.0, 1), false);
    check(&look(true, 0.5, 2), &look(true, 0.5, 1), true);
    let elsewhere = Look {
        admin: 2,
        ..look(true, 0.5, 1)
    };
    check(&look(true, 0.5, 2), &elsewhere, false);
}
