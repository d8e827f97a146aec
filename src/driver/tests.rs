//! The driver on a store of its own, look by look: what people are told.

use std::path::Path;

use tokio::sync::oneshot;

use super::begin::Memory;
use super::*;
use crate::alert::kind::AlertKind;
use crate::alert::{self, Alert};
use crate::config::StoreConfig;
use crate::config::parse::parse;
use crate::controller::step::Command;

fn config(rollout: &str) -> Config {
    let text = format!(
        "[arms.legacy]\nbase-url = \"http://127.0.0.1:1\"\n[arms.canary]\nbase-url = \"http://127.0.0.1:2\"\n\
         api-key = \"client\"\n[[rollout]]\nname = \"{rollout}\"\nwarm-up = 1000000\n"
    );
    parse(&text, &|_| None).unwrap().config
}

/// A driver whose turns the test takes, and what it tells.
struct Scene {
    driver: Driver,
    store: Store,
    told: mpsc::Receiver<Alert>,
}

impl Scene {
    async fn start(folder: &Path, rollout: &str) -> Self {
        let stored = StoreConfig {
            path: folder.join("cutover.db"),
            ..config(rollout).store
        };
        let store = Store::open(&stored, UnixMillis::now()).await.unwrap().store;
        let (alerts, told) = alert::caught();
        let (_, samples) = crate::recorder::channel();
        let inputs = Inputs {
            samples,
            requests: mpsc::channel(1).1,
            reloads: mpsc::channel(1).1,
        };
        let stand_by = StandBy::begin(config(rollout)).unwrap();
        let memory = Memory::read(&stand_by, &store).await.unwrap();
        let driver = Driver::take_over(stand_by, &memory, None, store.clone(), inputs, alerts);
        Self {
            driver,
            store,
            told,
        }
    }

    /// What was told since the last call, without what each start tells.
    fn told(&mut self) -> Vec<(AlertKind, Vec<AlertKind>, bool)> {
        let told = std::iter::from_fn(|| self.told.try_recv().ok());
        told.filter(|it| !it.quiet || it.rollout.is_some())
            .map(|it| (it.kind, it.resolves, it.quiet))
            .collect()
    }

    fn operate(&mut self, action: Action) -> oneshot::Receiver<Result<Operated, Refusal>> {
        let (reply, answer) = oneshot::channel();
        let command = Command {
            action,
            reason: String::new(),
        };
        let event = Event::Operator(command);
        self.driver.look_at(0, Some(event), Some(reply));
        answer
    }

    async fn commits(&mut self) {
        while let Some(done) = self.driver.commits.join_next().await {
            self.driver.committed(done);
        }
    }

    async fn end(self) {
        self.driver.finish().await;
        self.store.close().await.unwrap();
    }
}

fn weight(percent: &str) -> Action {
    Action::SetWeight(crate::arm::Weight::parse(percent).unwrap())
}

#[tokio::test]
async fn what_was_under_way_when_a_rollout_was_stopped_opens_nothing_after_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path(), "default").await;
    let raised = scene.operate(weight("50%"));
    scene.commits().await;
    assert_eq!(raised.await.unwrap().unwrap().kind, Some("set-weight"));
    assert_eq!(scene.told(), [(AlertKind::SetWeight, vec![], false)]);
    // A raise that nobody is there to carry out, and a rollback whose number is not known yet.
    let raise = scene.operate(weight("60%"));
    let rollback = scene.operate(Action::Rollback);
    let other = Box::new(config("other"));
    scene.driver.reload(Reloaded::Config(other, Vec::new()));
    scene.commits().await;
    let refused = raise.await.unwrap().unwrap_err();
    assert!(matches!(refused, Refusal::NotNow(_)), "{refused:?}");
    drop(rollback);
    let told = scene.told();
    let kinds: Vec<_> = told.iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(kinds, [AlertKind::Stop]);
}

#[tokio::test]
async fn a_rollout_that_vanished_from_the_file_while_nothing_ran_leaves_no_incident_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path(), "default").await;
    drop(scene.operate(Action::Hold));
    scene.driver.log_alert(0, AlertKind::Held, "for long");
    scene.end().await;
    let ends = (AlertKind::Stop, vec![AlertKind::Held], true);
    for expected in [vec![ends], vec![]] {
        let mut scene = Scene::start(folder.path(), "other").await;
        assert_eq!(scene.told(), expected);
        scene.end().await;
    }
}

#[tokio::test]
async fn what_is_over_when_it_is_told_ends_with_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path(), "default").await;
    // As a step back without a cooldown is.
    scene
        .driver
        .log_alert(0, AlertKind::RollBack, "steps back, goes on");
    scene.driver.look_at_all();
    let end = (AlertKind::Resume, vec![AlertKind::RollBack], false);
    assert_eq!(scene.told(), [end]);
    scene.driver.look_at_all();
    assert_eq!(scene.told(), []);
}

#[tokio::test]
async fn a_database_that_becomes_corrupt_in_use_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    Scene::start(folder.path(), "default").await.end().await;
    let mut scene = Scene::start(folder.path(), "default").await;
    let path = folder.path().join("cutover.db");
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::write(&path, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    drop(scene.operate(Action::Hold));
    let mut told = Vec::new();
    while !told.contains(&AlertKind::StoreRecovered) {
        let changed = tokio::time::timeout(Duration::from_secs(30), scene.driver.health.changed());
        changed.await.expect("the store recovers").unwrap();
        scene.driver.tell_health();
        told.extend(scene.told().into_iter().map(|(kind, ..)| kind));
    }
    scene.driver.tell_health();
    assert_eq!(scene.told(), []);
    let expected = [
        AlertKind::StoreCorrupt,
        AlertKind::StoreFailing,
        AlertKind::StoreRecovered,
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn the_process_began_when_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::start(folder.path(), "default").await;
    let began_at = scene.driver.snapshot().started_at;
    let until = Instant::now() + Duration::from_millis(20);
    while Instant::now() < until {
        assert_eq!(scene.driver.snapshot().started_at, began_at);
    }
}

#[tokio::test]
async fn a_reload_that_would_leave_an_open_port_without_its_guard_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path(), "default").await;
    let mut running = config("default");
    running.admin.listen = "0.0.0.0:8081".parse().unwrap();
    running.admin.token = Some(crate::config::values::Secret::new("s3cret"));
    scene.driver.config = Arc::new(running);
    let closed = Box::new(config("default"));
    scene.driver.reload(Reloaded::Config(closed, Vec::new()));
    assert!(scene.driver.config.admin.token.is_some());
    let told: Vec<_> = scene.told().into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(told, [AlertKind::ConfigRejected]);
    let error = scene.driver.config_error.clone().unwrap();
    assert!(error.starts_with("admin.listen stays"), "{error}");
}
