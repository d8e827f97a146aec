//! Stories as data: `tests/scenarios/*.toml` say what happens and what the controller does about it.
//!
//! Each file is one story: the rules as an operator writes them, a timeline, and the lines that come of it.
//! `UPDATE_EXPECTED=1` writes the lines anew; read the difference before you commit it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::world::{Behaviour, DOWN, GOOD, World, percent};
use crate::arm::PerArm;
use crate::config::parse::{parse, render_all};
use crate::controller::policy::Policy;
use crate::controller::split::Assigned;
use crate::controller::{
    Action, By, Command, Decision, DecisionKind, Effect, Event, Reset, State, Step, adopt, stop,
};

const STORIES: usize = 33;

/// A file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Story {
    /// One sentence.
    title: String,
    seed: u64,
    /// Requests per minute, both arms together.
    rate: f64,
    /// Time between two looks.
    tick: String,
    ends: String,
    /// `[rollout]` of the configuration.
    #[serde(default)]
    rollout: Table,
    #[serde(default)]
    at: Vec<Table>,
    expect: Option<Expected>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    lines: Vec<String>,
}

/// Something that happens. What it does not name stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct At {
    time: String,
    canary: Option<Arm>,
    legacy: Option<Arm>,
    rate: Option<f64>,
    tick: Option<String>,
    /// `failing` or `healthy`.
    store: Option<String>,
    /// `hold`, `resume`, `promote`, `rollback`, `retry` or a weight to set.
    operator: Option<String>,
    /// Only the text of the state survives.
    restart: bool,
    /// The clock is set back by so much.
    clock_back: Option<String>,
    /// The canary refuses its key.
    account_failure: Option<String>,
    /// The configuration names another key for the canary.
    new_key: bool,
    /// The configuration names another canary.
    new_canary: bool,
    /// The configuration names the rollout no more.
    unconfigured: bool,
    /// The configuration's new `[rollout]`.
    rollout: Option<Table>,
    /// Requests that are under way for too long, at every look from now on.
    overdue: Option<[u64; 2]>,
    /// Requests routed to the canary, to legacy, and to the wrong one of them between two looks.
    routed: Option<[u64; 3]>,
    /// Requests per minute that the canary's account may send; 0: its answers do not say any more.
    canary_limit: Option<u32>,
    /// A ledger of the stored state is no number.
    no_number: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Arm {
    /// `well` or `down`.
    Word(String),
    #[serde(rename_all = "kebab-case")]
    Numbers {
        error_rate: Option<String>,
        latency_factor: Option<f64>,
        /// Share of answers that take eight times as long.
        slow_tail: Option<String>,
    },
}

impl Arm {
    fn behaviour(&self) -> Behaviour {
        let share = |text: &Option<String>, absent| {
            text.as_deref()
                .map_or(absent, |text| percent(text).fraction())
        };
        match self {
            Self::Word(word) if word == "well" => GOOD,
            Self::Word(word) if word == "down" => DOWN,
            Self::Word(word) => panic!("an arm is well or down, not {word}"),
            Self::Numbers {
                error_rate,
                latency_factor,
                slow_tail,
            } => Behaviour {
                error_rate: share(error_rate, GOOD.error_rate),
                latency_factor: latency_factor.unwrap_or(1.0),
                slow_tail: share(slow_tail, 0.0),
            },
        }
    }
}

fn ms(text: &str) -> i64 {
    let length = humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    i64::try_from(length.as_millis()).unwrap()
}

/// The rules of a configuration with this `[rollout]`.
fn policy(rollout: &Table) -> Policy {
    let mut whole: Table = toml::from_str(include_str!("../../../config/minimal.toml")).unwrap();
    whole.insert("rollout".into(), Value::Table(rollout.clone()));
    let text = toml::to_string(&whole).unwrap();
    let env = |_: &str| Some("sk-relay".to_owned());
    let parsed =
        parse(&text, &env).unwrap_or_else(|faults| panic!("{}", render_all(&faults, &text)));
    let mut rollouts = parsed.config.rollouts;
    rollouts.remove(0).policy
}

/// What is done to a story to see whether it should matter.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Twist {
    None,
    /// Killed and started again after every so many looks.
    Restarts(usize),
    /// What befalls one arm befalls the other.
    SwappedArms,
}

/// A story being played.
struct Play {
    world: World,
    twist: Twist,
    tick_ms: i64,
    looks: usize,
    /// Decisions and alerts that are told already.
    told: (usize, usize),
    lines: Vec<String>,
    waits: BTreeSet<String>,
}

impl Play {
    fn of(story: &Story, twist: Twist) -> Self {
        let mut world = World::new(policy(&story.rollout), story.seed);
        world.rate_per_s = story.rate / 60.0;
        let mut play = Self {
            world,
            twist,
            tick_ms: ms(&story.tick),
            looks: 0,
            told: (0, 0),
            lines: Vec::new(),
            waits: BTreeSet::new(),
        };
        // Before the first request: without a warm-up the first stage begins here.
        play.world.look(None);
        play.tell();
        let mut elapsed = 0;
        for table in &story.at {
            let at: At = table
                .clone()
                .try_into()
                .unwrap_or_else(|error| panic!("{table}: {error}"));
            elapsed = play.until(elapsed, ms(&at.time));
            play.lines.push(heading(&at.time, table));
            play.happen(&at);
            play.tell();
        }
        play.until(elapsed, ms(&story.ends));
        let view = play.world.view();
        play.lines.push(format!(
            "in the end {} at {}, stage {}/{}, attempt {}",
            view.state, view.weight, view.stage.index, view.stage.of, view.attempt
        ));
        play
    }

    fn until(&mut self, mut elapsed: i64, end: i64) -> i64 {
        while elapsed < end {
            self.world.tick(self.tick_ms);
            elapsed += self.tick_ms;
            self.looks += 1;
            if let Twist::Restarts(every) = self.twist
                && self.looks.is_multiple_of(every)
            {
                self.world.restart();
            }
            self.tell();
        }
        elapsed
    }

    fn happen(&mut self, at: &At) {
        let (canary, legacy) = match self.twist {
            Twist::SwappedArms => (&at.legacy, &at.canary),
            Twist::None | Twist::Restarts(_) => (&at.canary, &at.legacy),
        };
        let world = &mut self.world;
        if let Some(arm) = canary {
            world.canary = arm.behaviour();
        }
        if let Some(arm) = legacy {
            world.legacy = arm.behaviour();
        }
        world.rate_per_s = at.rate.map_or(world.rate_per_s, |rate| rate / 60.0);
        self.tick_ms = at.tick.as_deref().map_or(self.tick_ms, ms);
        if let Some(word) = &at.store {
            world.store_healthy = word == "healthy";
            assert!(world.store_healthy || word == "failing", "store = {word}");
        }
        if let Some([legacy, canary]) = at.overdue {
            world.overdue = PerArm { legacy, canary };
        }
        if let Some([canary, legacy, strays]) = at.routed {
            world.assigned = Assigned {
                canary,
                legacy,
                strays,
            };
        }
        if let Some(limit) = at.canary_limit {
            world.canary_limit = Some(limit).filter(|limit| *limit > 0);
        }
        if at.restart {
            world.restart();
        }
        if at.no_number {
            lose_a_number(world);
        }
        if let Some(back) = &at.clock_back {
            world.now = world.now.plus_millis(-ms(back));
            world.look(None);
        }
        if let Some(why) = &at.account_failure {
            world.look(Some(Event::AccountFailure { why: why.clone() }));
        }
        if let Some(command) = &at.operator {
            self.command(command);
        }
        self.configure(at);
    }

    fn command(&mut self, command: &str) {
        let action = match command {
            "hold" => Action::Hold,
            "resume" => Action::Resume,
            "promote" => Action::Promote,
            "rollback" => Action::Rollback,
            "retry" => Action::Retry,
            weight => Action::SetWeight(percent(weight)),
        };
        self.world.look(Some(Event::Operator(Command {
            action,
            reason: String::new(),
        })));
        self.tell();
        if let Some(why) = self.world.refusal.take() {
            self.lines.push(format!("refused: {why}"));
        }
    }

    fn configure(&mut self, at: &At) {
        let old = self.world.policy.clone();
        let now = self.world.now;
        let adopted = |play: &mut Self, new: Policy, reset: &Reset| {
            let state = play.world.state.take().unwrap();
            let step = adopt(&old, &new, state, reset, now);
            play.world.policy = new;
            play.take(step);
        };
        if let Some(rollout) = &at.rollout {
            adopted(self, policy(rollout), &Reset::None);
        }
        if at.new_key {
            adopted(self, old.clone(), &Reset::Ledgers);
        }
        if at.new_canary {
            adopted(self, old.clone(), &Reset::Rollout { id: "r-2".into() });
        }
        if at.unconfigured {
            let state = self.world.state.take().unwrap();
            let step = stop(&old, state, "the rollout is no longer configured", now);
            self.take(step);
        }
    }

    /// What a driver does with the effects of a changed configuration.
    fn take(&mut self, step: Step) {
        self.world.state = Some(step.state);
        for effect in step.effects {
            match effect {
                Effect::Decide(decision) => self.world.log.push(decision),
                Effect::Propose {
                    proposal, decision, ..
                } => {
                    self.world.log.push(decision);
                    self.world.look(Some(Event::Committed { proposal }));
                }
                other => panic!("{other:?}"),
            }
        }
        self.world.look(None);
    }

    /// Writes down what is new.
    fn tell(&mut self) {
        let wait = wait_of(self.world.state());
        self.waits.extend(wait.clone());
        let (decisions, alerts) = self.told;
        for decision in &self.world.log[decisions..] {
            self.lines.push(line(decision, wait.as_deref()));
        }
        for alert in &self.world.alerts[alerts..] {
            self.lines.push(format!("alert {alert}"));
        }
        self.told = (self.world.log.len(), self.world.alerts.len());
    }
}

/// Why the controller holds, in the word that is stored.
fn wait_of(state: &State) -> Option<String> {
    let wait = state.wait?;
    Some(
        serde_json::to_value(wait)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned(),
    )
}

/// One of the stored ledgers is no number.
fn lose_a_number(world: &mut World) {
    let text = serde_json::to_string(world.state()).unwrap();
    let key = "\"promote\":\"";
    let from = text.find(key).unwrap() + key.len();
    let rest = &text[from..];
    let first = rest.find(' ').unwrap();
    let broken = format!("{}NaN{}", &text[..from], &rest[first..]);
    world.state = Some(serde_json::from_str(&broken).unwrap());
    world.look(None);
}

fn heading(time: &str, table: &Table) -> String {
    let mut parts = Vec::new();
    for (key, value) in table {
        match value {
            _ if key == "time" => {}
            Value::Table(_) if key == "rollout" => parts.push("new rules".to_owned()),
            value => parts.push(format!("{key} = {value}")),
        }
    }
    format!("-- {time}: {}", parts.join(", "))
}

/// The parts of a decision that no change of a digit moves.
fn line(decision: &Decision, wait: Option<&str>) -> String {
    let Decision {
        kind,
        weight_from,
        weight_to,
        ..
    } = decision;
    let mut text = if weight_from == weight_to {
        format!("{kind} {weight_to}")
    } else {
        format!("{kind} {weight_from} -> {weight_to}")
    };
    text.push_str(&format!(
        " stage {}/{}",
        decision.stage + 1,
        decision.stages_total
    ));
    match decision.by {
        By::Controller => {}
        By::Operator => text.push_str(", by operator"),
        By::Config => text.push_str(&format!(", by config: {}", decision.reason)),
    }
    if decision.by == By::Controller && *kind == DecisionKind::Hold {
        text.push_str(&format!(" ({})", wait.unwrap_or("?")));
    } else if let Some(guard) = decision
        .evidence
        .guard
        .filter(|_| *kind != DecisionKind::Promote)
    {
        text.push_str(&format!(" ({})", guard.as_str()));
    }
    text
}

/// The files and their stories, by name.
fn stories() -> Vec<(PathBuf, Story)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let story: Story =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(story.title.ends_with('.') && story.title.matches(". ").count() == 0);
        (path, story)
    };
    let stories: Vec<_> = paths.into_iter().map(read).collect();
    assert_eq!(stories.len(), STORIES);
    stories
}

/// Writes what came of a story into its file.
fn write(path: &Path, found: &[String]) {
    let text = fs::read_to_string(path).unwrap();
    let told = text.split("[expect]").next().unwrap().trim_end();
    let lines: String = found
        .iter()
        .map(|line| format!("  {},\n", Value::String(line.clone())))
        .collect();
    fs::write(path, format!("{told}\n\n[expect]\nlines = [\n{lines}]\n")).unwrap();
}

/// The lines are written by a controller that runs through, and compared with those of one that is killed
/// again and again: a restart must not change a decision.
#[test]
fn every_story_ends_as_it_says_whatever_restarts_and_together_they_tell_of_everything() {
    let updates = std::env::var_os("UPDATE_EXPECTED").is_some();
    let (mut kinds, mut waits) = (BTreeSet::new(), BTreeSet::new());
    for (path, story) in stories() {
        let play = if updates {
            let play = Play::of(&story, Twist::None);
            write(&path, &play.lines);
            play
        } else {
            Play::of(&story, Twist::Restarts(13))
        };
        let expected = story
            .expect
            .as_ref()
            .map_or(&[][..], |expect| &expect.lines);
        if !updates && play.lines != expected {
            let through = Play::of(&story, Twist::None).lines;
            assert_eq!(through, expected, "{}: {}", path.display(), story.title);
            assert_eq!(play.lines, through, "{}: with restarts", path.display());
        }
        kinds.extend(play.world.log.iter().map(|decision| decision.kind.as_str()));
        waits.extend(play.waits);
    }
    for kind in DecisionKind::ALL {
        assert!(kinds.contains(kind.as_str()), "no story tells of {kind}");
    }
    let all = [
        "approval",
        "common-cause",
        "evidence",
        "harm",
        "headroom",
        "not-converging",
        "split",
    ];
    assert_eq!(waits, BTreeSet::from(all.map(str::to_owned)));
}

/// What happens to the canary in a story happens to legacy: nothing of it may stop the canary.
#[test]
fn the_same_trouble_on_legacy_never_stops_the_canary() {
    let mut told = 0;
    for (path, story) in stories() {
        let befalls = |arm: &str| story.at.iter().any(|at| at.contains_key(arm));
        if befalls("legacy") || !befalls("canary") {
            continue;
        }
        told += 1;
        let play = Play::of(&story, Twist::SwappedArms);
        for decision in &play.world.log {
            let stops = matches!(
                decision.kind,
                DecisionKind::Trip | DecisionKind::RollBack | DecisionKind::Retreat
            );
            assert!(
                !stops || decision.by != By::Controller,
                "{}: {}",
                path.display(),
                decision.log_line("r", None)
            );
        }
    }
    assert!(told >= 10, "only {told} stories befall the canary alone");
}
