//! The faults themselves: how each is made, how long it lasts, and how it is mended.

use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::clients;
use crate::daemon::{Daemon, FakeClock};
use crate::ledger::{Broken, LAST_INTERVAL, Times};
use crate::load::Load;
use crate::plan::{Inner, Outer};
use crate::standin::Standin;
use crate::store::{Home, Lock};
use crate::watch::Watch;

/// The two providers.
#[derive(Debug)]
pub(crate) struct Arms {
    pub(crate) legacy: Standin,
    pub(crate) canary: Standin,
}

impl Arms {
    fn named(&mut self, name: &str) -> &mut Standin {
        match name {
            "legacy" => &mut self.legacy,
            _ => &mut self.canary,
        }
    }
}

/// cutover with what it stands on.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) home: Home,
    pub(crate) config: String,
    pub(crate) clock: Option<FakeClock>,
    pub(crate) daemon: Daemon,
    /// When the round began.
    pub(crate) began: Instant,
    /// What earlier lives logged.
    pub(crate) log: Vec<String>,
    /// The decisions that are known to be stored.
    pub(crate) decisions: Vec<serde_json::Value>,
    /// The file was lost: what it held cannot be in its successor.
    pub(crate) lost_file: bool,
    /// The clock stood this far ahead.
    pub(crate) clock_jumped: bool,
}

/// What all faults of a step may reach for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) load: &'a Load,
    pub(crate) watch: &'a Watch,
    pub(crate) times: &'a Mutex<Times>,
}

impl Around<'_> {
    fn broke(&self, what: Broken, from: Instant) {
        self.times.lock().unwrap().broke(what, from);
    }

    fn may_have_lost(&self, from: Instant) {
        self.times
            .lock()
            .unwrap()
            .may_have_lost(from, Instant::now());
    }
}

/// So long ago.
fn before(length: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(length).unwrap_or(now)
}

async fn pause(rng: &mut StdRng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(ms))).await;
}

/// Plays what befalls the arms or comes from other clients, for some seconds.
pub(crate) async fn play_outer(
    outer: Outer,
    arms: &mut Arms,
    port: u16,
    around: Around<'_>,
    rng: &mut StdRng,
) {
    let from = Instant::now();
    let until = from + Duration::from_millis(rng.random_range(3_000..5_000));
    let ends = tokio::time::sleep_until(until.into());
    match outer {
        Outer::Nothing => ends.await,
        Outer::ArmKilled(name) => {
            arms.named(name).kill();
            ends.await;
            arms.named(name).revive().await;
            around.broke(Broken::Arm(name), from);
        }
        Outer::ArmStopped(name) => {
            arms.named(name).stop();
            ends.await;
            arms.named(name).go_on();
            around.broke(Broken::Arm(name), from);
        }
        Outer::ArmFails(name, how) => {
            around.load.set_fault(&format!("fault-{how}@{name}"));
            ends.await;
            around.load.set_fault("ok");
            // What was asked for until now may still come.
            tokio::time::sleep(Duration::from_secs(4)).await;
            around.broke(Broken::Arm(name), from);
        }
        Outer::IdleClients => clients::idle(port, 800, until).await,
        Outer::SlowClients => clients::slow(port, 200, until).await,
        Outer::MalformedClients => {
            while Instant::now() < until {
                for objection in clients::malformed(port, 40, rng.random()).await {
                    around.watch.object(objection);
                }
            }
        }
        Outer::LeavingClients => clients::leaving(port, 20, until).await,
        Outer::SlowReaders => clients::slow_readers(port, 4, until).await,
    }
}

impl House {
    /// Plays what befalls cutover itself.
    pub(crate) async fn play_inner(&mut self, inner: Inner, around: Around<'_>, rng: &mut StdRng) {
        pause(rng, 200..800).await;
        match inner {
            Inner::Locked => {
                let lock = self.home.lock();
                self.while_store_is_broken(around).await;
                drop(lock);
            }
            Inner::ReadOnly => {
                if self.home.set_read_only(true) {
                    self.while_store_is_broken(around).await;
                } else {
                    println!("    skipped: chattr +i is not permitted here");
                }
                self.home.set_read_only(false);
            }
            Inner::Moved => {
                self.home.set_moved(true);
                self.while_store_is_broken(around).await;
                self.home.set_moved(false);
            }
            Inner::Full => {
                self.home.set_full(true);
                self.while_store_is_broken(around).await;
                self.home.set_full(false);
            }
            Inner::ClockJumps => self.clock_jumps(rng).await,
            Inner::ConfigGarbage | Inner::ConfigHalfWritten | Inner::ConfigGone => {
                self.config_is_wrong_until_mended(inner, rng).await;
            }
            Inner::ConfigEdits => self.edit_the_config(rng).await,
            Inner::Restarted => self.restart(around).await,
            Inner::Killed => {
                pause(rng, 0..2_000).await;
                let lost_from = before(LAST_INTERVAL);
                self.kill_and_start(around, lost_from, None).await;
            }
            Inner::KilledWhileLocked => {
                // What had ended just before may still wait when the lock comes.
                let from = before(LAST_INTERVAL);
                let lock = self.home.lock();
                pause(rng, 1_000..3_000).await;
                self.kill_and_start(around, from, Some(lock)).await;
            }
            Inner::CorruptWhileRunning => self.corrupt_while_running(around, rng).await,
            Inner::CorruptWhileStopped => self.corrupt_while_stopped(around, rng).await,
            Inner::Deleted => {
                self.home.delete(rng.random_bool(0.5));
                let replaced = |line: &str| line.contains("store-recovered");
                self.logs_again("that the file was replaced", replaced)
                    .await;
                self.file_was_lost(around);
            }
            Inner::NoDescriptors => self.run_out_of_descriptors(around, rng).await,
        }
    }

    /// Waits until the store says that it is broken, and asks for what it must refuse now.
    async fn while_store_is_broken(&self, around: Around<'_>) {
        let is_broken = |status: &serde_json::Value| status["store"]["healthy"] == false;
        self.daemon.until("broken", is_broken).await;
        let answered = around.load.answered();
        let refused = self.daemon.set_weight(100).await;
        if refused != Some(503) {
            around.watch.object(format!(
                "a weight was raised on a broken store: {refused:?}"
            ));
        }
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        if around.load.answered() == answered {
            around
                .watch
                .object("no request was answered while the store was broken".to_owned());
        }
    }

    async fn config_is_wrong_until_mended(&self, inner: Inner, rng: &mut StdRng) {
        let path = self.home.config();
        match inner {
            Inner::ConfigGone => fs::remove_file(path).unwrap(),
            Inner::ConfigHalfWritten => {
                // Before the canary's table, without which nothing is valid.
                let most = self.config.find("[arms.canary]").unwrap();
                fs::write(path, &self.config[..rng.random_range(1..most)]).unwrap();
            }
            _ => {
                let mut noise = vec![0; 3_000];
                rng.fill(&mut noise[..]);
                fs::write(path, noise).unwrap();
            }
        }
        let is_wrong = |status: &serde_json::Value| status["config"]["error"].is_string();
        self.daemon
            .until("aware that the configuration is wrong", is_wrong)
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        fs::write(self.home.config(), &self.config).unwrap();
        let is_right = |status: &serde_json::Value| status["config"]["error"].is_null();
        self.daemon
            .until("content with the configuration", is_right)
            .await;
    }

    /// Valid, half and empty saves one after the other, the last one valid.
    async fn edit_the_config(&self, rng: &mut StdRng) {
        for _ in 0..20 {
            let edited = match rng.random_range(0..4) {
                0 => String::new(),
                1 => self.config[..rng.random_range(0..self.config.len())].to_owned(),
                _ => self.config.replace(
                    "drain = \"10s\"",
                    &format!("drain = \"{}s\"", rng.random_range(5..20)),
                ),
            };
            fs::write(self.home.config(), edited).unwrap();
            pause(rng, 20..400).await;
        }
        fs::write(self.home.config(), &self.config).unwrap();
        let is_right = |status: &serde_json::Value| status["config"]["error"].is_null();
        self.daemon
            .until("content with the configuration", is_right)
            .await;
    }

    async fn clock_jumps(&mut self, rng: &mut StdRng) {
        let Some(clock) = &self.clock else {
            println!("    skipped: no libfaketime (`make chaos` unpacks it)");
            return;
        };
        for _ in 0..3 {
            let offset = ["+2h", "+26h", "-2h", "-40m", "+90s"][rng.random_range(0..5)];
            clock.set(offset);
            pause(rng, 1_500..2_500).await;
        }
        clock.set("+3h");
        tokio::time::sleep(Duration::from_secs(2)).await;
        clock.set("+0");
        self.clock_jumped = true;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn start(&mut self, around: Around<'_>) {
        self.log.extend(self.daemon.lines());
        self.daemon = Daemon::start(&self.home.config(), self.clock.as_ref()).await;
        around.load.set_port(self.daemon.proxy);
        around.watch.set_port(self.daemon.admin);
    }

    async fn end(&mut self, around: Around<'_>) {
        let code = self.daemon.terminate().await;
        if code != Some(0) {
            around
                .watch
                .object(format!("it ended with {code:?} on SIGTERM"));
        }
    }

    async fn restart(&mut self, around: Around<'_>) {
        let from = Instant::now();
        self.end(around).await;
        self.check_decisions(around.watch);
        self.start(around).await;
        around.broke(Broken::Restarted, from);
        self.check_restored(around.watch);
    }

    /// `lost_from`: requests that ended since then may have no row. `lock` is let go while nothing runs.
    async fn kill_and_start(&mut self, around: Around<'_>, lost_from: Instant, lock: Option<Lock>) {
        let from = Instant::now();
        self.daemon.kill();
        drop(lock);
        around.may_have_lost(lost_from);
        self.check_decisions(around.watch);
        self.start(around).await;
        around.broke(Broken::Killed, from);
        self.check_restored(around.watch);
    }

    /// Whoever reads next finds it: the writer, or somebody who asks for the decisions.
    async fn corrupt_while_running(&mut self, around: Around<'_>, rng: &mut StdRng) {
        let before = self.home.set_aside().len();
        self.home.corrupt(rng.random_bool(0.5), rng);
        let deadline = Instant::now() + crate::PATIENCE;
        while self.home.set_aside().len() == before {
            assert!(
                Instant::now() < deadline,
                "nobody finds that the file is corrupt"
            );
            self.daemon.ask_for_decisions().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let is_well = |status: &serde_json::Value| status["store"]["healthy"] == true;
        self.daemon.until("well with a new file", is_well).await;
        self.file_was_lost(around);
    }

    async fn corrupt_while_stopped(&mut self, around: Around<'_>, rng: &mut StdRng) {
        let from = Instant::now();
        self.end(around).await;
        self.home.corrupt(true, rng);
        let before = self.home.set_aside().len();
        self.start(around).await;
        around.broke(Broken::Restarted, from);
        self.file_was_lost(around);
        if self.home.set_aside().len() != before + 1 {
            around.watch.object(format!(
                "a corrupt file was not set aside: {:?}",
                self.home.set_aside()
            ));
        }
    }

    /// What the file held until now need not be in the one that takes its place.
    fn file_was_lost(&mut self, around: Around<'_>) {
        self.lost_file = true;
        self.decisions.clear();
        around.may_have_lost(self.began);
    }

    async fn logs_again(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let count = || {
            self.daemon
                .lines()
                .iter()
                .filter(|line| is_it(line))
                .count()
        };
        let (before, deadline) = (count(), Instant::now() + crate::PATIENCE);
        while count() == before {
            assert!(Instant::now() < deadline, "the log never says {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn run_out_of_descriptors(&mut self, around: Around<'_>, rng: &mut StdRng) {
        let errors =
            |status: &serde_json::Value| status["rollouts"][0]["arms"]["canary"]["errors"].clone();
        let before = errors(&self.daemon.status().await);
        // Every request needs a new connection now, and every connection a descriptor.
        around.load.set_fault("fault-until-fin");
        pause(rng, 300..600).await;
        let from = Instant::now();
        let pid = self.daemon.pid();
        limit_descriptors(pid, Some(self.daemon.size().descriptors));
        let until = from + Duration::from_secs(3);
        clients::idle(self.daemon.proxy, 150, until).await;
        limit_descriptors(pid, None);
        around.load.set_fault("ok");
        tokio::time::sleep(Duration::from_secs(1)).await;
        around.broke(Broken::NoDescriptors, from);
        let is_lacking = |line: &str| line.contains("Too many open files");
        if self.daemon.line(is_lacking).is_none() {
            around
                .watch
                .object("the descriptors never ran out".to_owned());
        }
        let after = errors(&self.daemon.status().await);
        if before != after {
            around.watch.object(format!(
                "the canary was blamed for missing descriptors: {before}, {after}"
            ));
        }
    }
}

/// Sets the soft limit of a running process; without a number, to the hard one.
fn limit_descriptors(pid: u32, soft: Option<u64>) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let hard = line.split_whitespace().nth(4).unwrap();
    let soft = soft.map_or_else(|| hard.to_owned(), |soft| soft.to_string());
    let ran = Command::new("prlimit")
        .args([
            "--pid",
            &pid.to_string(),
            &format!("--nofile={soft}:{hard}"),
        ])
        .status();
    assert!(
        ran.is_ok_and(|status| status.success()),
        "prlimit (util-linux) is there"
    );
}
