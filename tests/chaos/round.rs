//! One round: a fresh store, some steps of faults under load, and what must be true at its end.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::clients::STRAY;
use crate::daemon::{Daemon, FakeClock, Size};
use crate::judge::Saw;
use crate::ledger::{Counts, Entry, Times};
use crate::load::Load;
use crate::plan::{Ground, Outer, Plan};
use crate::play::{Arms, Around, House, play_outer};
use crate::store::Home;
use crate::watch::{Seen, Watch};
use crate::{CANARY_KEY, CLIENT_KEY, PATIENCE};

/// A process may have grown by so much at the end of a life, against its first seconds under load. Allocators keep what crowds left.
const GROWTH_KIB: u64 = 48 * 1024;
/// Connections to the arms that are kept for later, and readers of the store.
const GROWTH_DESCRIPTORS: u64 = 24;

/// What a round came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) objections: Vec<String>,
    /// The end of the log, for people.
    pub(crate) log: Vec<String>,
}

/// Margins so wide that some dozens of requests prove a stage, and a fuse that forgives within seconds.
fn config(home: &Home, arms: &Arms) -> String {
    let timeouts = r#"timeouts = { connect = "2s", first-byte = "3s", idle = "3s" }"#;
    format!(
        r#"[proxy]
listen = "127.0.0.1:0"
workers = 2
drain = "10s"

[admin]
listen = "127.0.0.1:0"

[store]
url = "sqlite:{database}"

[arms.legacy]
base-url = "{legacy}"
{timeouts}

[arms.canary]
base-url = "{canary}"
api-key = "env:CANARY_KEY"
{timeouts}

[[rollout]]
warm-up = 0
stages = [
    {{ weight = "30%", dwell = "0s" }}, {{ weight = "50%", dwell = "1s" }}, {{ weight = "60%", dwell = "1s" }},
    {{ weight = "75%", dwell = "1s" }}, {{ weight = "90%", dwell = "1h" }}, "100%",
]
trip = {{ cooldown = "1s", max-per-day = 1000 }}
cooldown = "1s"

[rollout.guards]
error-rate = {{ max = "20%", max-increase = "10%" }}
latency-p99 = "off"
latency-p50 = "off"
ttft-p99 = "off"
ttft-p50 = "off"
rate-limited = "off"
rejected = "off"
"#,
        database = home.database().display(),
        legacy = arms.legacy.base_url(),
        canary = arms.canary.base_url(),
    )
}

/// Plays it. `None` if what it needs is not permitted here.
pub(crate) async fn play(plan: &Plan, arms: &mut Arms) -> Option<Outcome> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut house = House::build(plan.ground, arms).await?;
    let load = Load::start(house.daemon.proxy, rng.random());
    let watch = Watch::start(house.daemon.admin);
    let times = Mutex::new(Times::default());
    let around = Around {
        load: &load,
        watch: &watch,
        times: &times,
    };
    let mut young = house.young().await;
    for (inner, outer) in &plan.steps {
        println!("  {inner:?} beside {outer:?}");
        house.settle(*outer, around).await;
        let pid = house.daemon.pid();
        let (mut first, mut second) = (
            StdRng::seed_from_u64(rng.random()),
            StdRng::seed_from_u64(rng.random()),
        );
        let port = house.daemon.proxy;
        tokio::join!(
            house.play_inner(*inner, around, &mut first),
            play_outer(*outer, arms, port, around, &mut second),
        );
        if !house.daemon.is_running() {
            watch.object(format!("it ended by itself in {inner:?} beside {outer:?}"));
            break;
        }
        if house.daemon.pid() != pid {
            young = house.young().await;
        }
    }
    house.is_well().await;
    let entries = load.stop().await;
    let seen = watch.stop().await;
    let times = times.into_inner().unwrap();
    Some(
        house
            .conclude(plan, &entries, &times, seen, young, arms)
            .await,
    )
}

fn arm<'a>(status: &'a Value, name: &str) -> &'a Value {
    &status["rollouts"][0]["arms"][name]
}

impl House {
    /// A fresh store with a daemon on it; `None` if that is not permitted here.
    async fn build(ground: Ground, arms: &Arms) -> Option<Self> {
        let home = match ground {
            Ground::SmallDisk => Home::on_small_disk()?,
            Ground::Disk | Ground::Lossy => Home::new(),
        };
        let config = config(&home, arms);
        fs::write(home.config(), &config).unwrap();
        let clock = match ground {
            Ground::Disk => FakeClock::find(home.path()),
            Ground::SmallDisk | Ground::Lossy => None,
        };
        let daemon = Daemon::start(&home.config(), clock.as_ref()).await;
        Some(House {
            home,
            config,
            clock,
            daemon,
            began: Instant::now(),
            log: Vec::new(),
            decisions: Vec::new(),
            lost_file: false,
            clock_jumped: false,
        })
    }

    async fn is_well(&self) {
        let is_well = |status: &Value| {
            let is_closed = |name: &str| arm(status, name)["breaker"] == "closed";
            status["store"]["healthy"] == true && is_closed("legacy") && is_closed("canary")
        };
        self.daemon.until("well again", is_well).await;
    }

    /// Its size in its first seconds under load.
    async fn young(&self) -> Size {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.daemon.size()
    }

    /// Everything works, and the weight is such that what comes can be borne.
    async fn settle(&self, outer: Outer, around: Around<'_>) {
        let percent = match outer {
            // What the canary takes over from legacy is limited to a fifth of all and ten a second.
            Outer::ArmKilled("legacy")
            | Outer::ArmStopped("legacy")
            | Outer::ArmFails("legacy", _) => 90,
            _ => 50,
        };
        let deadline = Instant::now() + PATIENCE;
        // The canary gets traffic, so that its breaker can close.
        while self.daemon.set_weight(percent).await != Some(200) {
            assert!(
                Instant::now() < deadline,
                "the weight cannot be set: {:#}",
                self.daemon.status().await
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.is_well().await;
        let before = around.load.answered();
        while around.load.answered() < before + 50 {
            assert!(Instant::now() < deadline, "nothing is answered any more");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Decisions are only ever added, each goes on from the one before, and the state is the last one's.
    pub(crate) fn check_decisions(&mut self, watch: &Watch) {
        let stored = self.home.sql(
            "SELECT id, rollout_id, version, kind, weight_from_bps, weight_to_bps, stage, reason FROM decision ORDER BY id",
        );
        if stored.get(..self.decisions.len()) != Some(&self.decisions[..]) {
            watch.object("stored decisions have changed".to_owned());
        }
        for pair in stored.windows(2) {
            let bps = |at: usize, key: &str| pair[at][key].as_i64().unwrap();
            let (from, to) = (bps(0, "weight_from_bps"), bps(0, "weight_to_bps"));
            let next_from = bps(1, "weight_from_bps");
            // A raise that was overtaken while it was being recorded never held.
            let was_overtaken = to > from && next_from == from;
            if next_from != to && !was_overtaken {
                watch.object(format!(
                    "a decision begins where none ended: {:#}, {:#}",
                    pair[0], pair[1]
                ));
            }
        }
        let states = self.home.sql(
            "SELECT version, json_extract(state, '$.state.stage') AS stage FROM rollout_state",
        );
        let last = stored.last();
        if let Some(last) = last
            && !states
                .iter()
                .any(|state| state["version"] == last["version"])
        {
            watch.object(format!(
                "the state is not that of the last decision: {states:?}, {last}"
            ));
        }
        self.decisions = stored;
    }

    /// What was stored last is what the new life began with.
    pub(crate) fn check_restored(&self, watch: &Watch) {
        let Some(last) = self.decisions.last() else {
            return;
        };
        let line = self.daemon.line(|line| line.contains("rollout restored"));
        let restored: Value = line.map_or(Value::Null, |line| serde_json::from_str(&line).unwrap());
        let weight = restored["weight"]
            .as_str()
            .unwrap_or_default()
            .trim_end_matches('%');
        let weight_bps = weight
            .parse::<f64>()
            .map(|percent| json!((percent * 100.0).round()));
        let is_same = weight_bps.is_ok_and(|bps| bps.as_f64() == last["weight_to_bps"].as_f64());
        if !is_same {
            watch.object(format!(
                "it began with {restored}, and the last decision is {last}"
            ));
        }
    }

    async fn conclude(
        mut self,
        plan: &Plan,
        entries: &[Entry],
        times: &Times,
        seen: Seen,
        young: Size,
        arms: &Arms,
    ) -> Outcome {
        let mut objections = seen.objections;
        let idle = |status: &Value| {
            ["legacy", "canary"]
                .iter()
                .all(|name| arm(status, name)["under_way"] == 0)
        };
        self.daemon.until("idle", idle).await;
        // What ended just now is counted within a fifth of a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = self.daemon.status().await;
        let metrics = self.daemon.metrics().await;
        let size = self.old(young).await;
        if size.descriptors > young.descriptors + GROWTH_DESCRIPTORS
            || size.rss_kib > young.rss_kib + GROWTH_KIB
        {
            objections.push(format!("it has grown from {young:?} to {size:?}"));
        }
        let code = self.daemon.terminate().await;
        if code != Some(0) {
            objections.push(format!("it ended with {code:?} on SIGTERM"));
        }
        self.log.extend(self.daemon.lines());
        objections.extend(entries.iter().filter_map(|entry| times.objection(entry)));
        objections.extend(arms.legacy.complaints());
        objections.extend(arms.canary.complaints());
        objections.extend(self.secrets(&status, &metrics));
        objections.extend(
            self.log
                .iter()
                .filter(|line| line.contains("panicked"))
                .cloned(),
        );
        let late = Rows::of(&self.home).compare(entries, times, &mut objections);
        if !self.lost_file {
            objections.extend(sums(&self.home, &status));
        }
        if plan.ground != Ground::Lossy && status["store"]["dropped_samples"] != 0 {
            objections.push(format!("samples were dropped: {}", status["store"]));
        }
        let jumped = self.home.sql("SELECT max(started_at) AS at FROM request")[0]["at"].as_i64();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let ahead_ms = jumped.unwrap_or(0) - i64::try_from(now.as_millis()).unwrap();
        if self.clock_jumped && ahead_ms < 3_600_000 {
            objections.push("the clock never jumped".to_owned());
        }
        let counts = Counts::of(entries, times);
        println!(
            "  {} whole ({} by the canary), {} broken off by an arm, {} by a kill, {} refused in a restart; \
             {} looks, {} with a broken store, {} tripped; {young:?}, at last {size:?}{late}",
            counts.whole,
            counts.by_canary,
            counts.broken_off,
            counts.killed,
            counts.refused,
            seen.looks,
            seen.unhealthy,
            seen.tripped,
        );
        Outcome {
            counts,
            objections,
            log: self.log.split_off(self.log.len().saturating_sub(80)),
        }
    }

    /// Its size once what crowds took is given back; the last look if it is not.
    async fn old(&self, young: Size) -> Size {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let size = self.daemon.size();
            let has_shrunk = size.descriptors <= young.descriptors + GROWTH_DESCRIPTORS
                && size.rss_kib <= young.rss_kib + GROWTH_KIB;
            if has_shrunk || Instant::now() > deadline {
                return size;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Where a credential shows.
    fn secrets(&self, status: &Value, metrics: &str) -> Vec<String> {
        let mut found = Vec::new();
        for secret in [CANARY_KEY, CLIENT_KEY] {
            let files = self.home.holding(secret);
            found.extend(
                files
                    .iter()
                    .map(|file| format!("{} holds a credential", file.display())),
            );
            let lines = self.log.iter().filter(|line| line.contains(secret));
            found.extend(lines.map(|line| format!("the log holds a credential: {line}")));
            if metrics.contains(secret) || status.to_string().contains(secret) {
                found.push("status or metrics hold a credential".to_owned());
            }
        }
        found
    }
}

/// The rows of the store, by the model that their request named.
#[derive(Debug)]
struct Rows {
    /// First attempts.
    firsts: HashMap<String, u64>,
    /// Arms that were asked.
    arms: HashSet<(String, String)>,
}

impl Rows {
    fn of(home: &Home) -> Self {
        let mut rows = Self {
            firsts: HashMap::new(),
            arms: HashSet::new(),
        };
        for row in home.sql("SELECT model, arm, role FROM request WHERE model IS NOT NULL") {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            if matches!(
                text("role").as_str(),
                "live" | "probe" | "override" | "pinned"
            ) {
                *rows.firsts.entry(text("model")).or_default() += 1;
            }
            rows.arms.insert((text("model"), text("arm")));
        }
        rows
    }

    /// Every request that a client saw answered has one first attempt, and the arm that it named was asked.
    /// What may be missing is stated; says how late the latest of the missing ones was.
    fn compare(&self, entries: &[Entry], times: &Times, objections: &mut Vec<String>) -> String {
        let (mut lost, mut oldest) = (0, Duration::ZERO);
        for entry in entries {
            let firsts = self.firsts.get(&entry.model).copied().unwrap_or(0);
            let is_answered = matches!(entry.saw, Saw::Whole | Saw::BrokenOff);
            match firsts {
                1 => {}
                0 if !is_answered => {}
                0 if times.excuses_no_row(entry) => {
                    lost += 1;
                    oldest = oldest.max(times.killed_after(entry).unwrap_or_default());
                }
                count => objections.push(format!("{count} rows of {entry:?}")),
            }
            let must_be_told =
                firsts == 1 && entry.saw == Saw::Whole && !times.excuses_no_row(entry);
            if let Some(arm) = entry.arm.clone().filter(|_| must_be_told)
                && !self.arms.contains(&(entry.model.clone(), arm))
            {
                objections.push(format!("no row says that the arm was asked: {entry:?}"));
            }
        }
        let known: HashSet<&str> = entries.iter().map(|entry| entry.model.as_str()).collect();
        let unknown = self
            .firsts
            .keys()
            .filter(|model| !known.contains(model.as_str()) && !model.starts_with(STRAY));
        objections.extend(unknown.map(|model| format!("a row of {model}, which nobody asked for")));
        if lost == 0 {
            return String::new();
        }
        format!("; {lost} rows lost, the oldest ended {oldest:?} before a kill")
    }
}

/// Status, rows and views tell the same.
fn sums(home: &Home, status: &Value) -> Vec<String> {
    let mut objections = Vec::new();
    let rows = home.sql(
        "SELECT arm, count(*) AS requests,
            sum(outcome NOT IN ('ok', 'rate-limited', 'client-error', 'client-gone', 'over-limit', 'internal')) AS errors
        FROM request WHERE role = 'live' GROUP BY arm",
    );
    let summary = home.sql("SELECT arm, requests, errors, masked FROM arm_summary");
    for name in ["legacy", "canary"] {
        let of = |table: &[Value], key: &str| {
            let row = table.iter().find(|row| row["arm"] == name);
            row.map_or(json!(0), |row| row[key].clone())
        };
        for key in ["requests", "errors", "masked"] {
            let (told, stored) = (&arm(status, name)[key], of(&summary, key));
            if *told != stored {
                objections.push(format!(
                    "{key} of {name}: {told} in the status, {stored} in arm_summary"
                ));
            }
        }
        for key in ["requests", "errors"] {
            let (counted, stored) = (of(&rows, key), of(&summary, key));
            if counted != stored {
                objections.push(format!(
                    "{key} of {name}: {counted} rows, {stored} in arm_summary"
                ));
            }
        }
    }
    objections.extend(integrity(home));
    objections
}

fn integrity(home: &Home) -> Option<String> {
    let check = home.sql("PRAGMA integrity_check");
    (check[0]["integrity_check"] != "ok").then(|| format!("the database is damaged: {check:?}"))
}
