//! What a look costs: one step of the controller with the built-in rules, and a whole simulated tick.
//!
//! `cargo bench --bench controller` prints the figures and fails when one is over its limit: a step with the
//! cells of four replicas within 1 ms, a simulated tick within 23 us (100 runs of 30 days at a tick of 10 s
//! within 5 minutes on two cores), a stored state below 64 KiB.
#![expect(clippy::print_stdout, reason = "a bench speaks to a person")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cutover::arm::{Arm, PerArm, Weight};
use cutover::clock::UnixMillis;
use cutover::config::parse::default_policy;
use cutover::config::scenario;
use cutover::controller::evidence::Cell;
use cutover::controller::headroom::Headroom;
use cutover::controller::policy::Policy;
use cutover::controller::split::Assigned;
use cutover::controller::{Effect, Event, Input, State, step};
use cutover::simulate::{Judge, Settings, simulate};
use cutover::sketch;

const STEP_MAX: Duration = Duration::from_millis(1);
const TICK_MAX: Duration = Duration::from_micros(23);
const STATE_MAX_BYTES: usize = 64 * 1024;
const REPLICAS: usize = 4;
const STEPS: i64 = 20_000;

fn main() -> ExitCode {
    // `cargo test --benches` starts it without this flag, to see that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it as `cargo bench --bench controller`");
        return ExitCode::SUCCESS;
    }
    let (per_step, state) = steps();
    let bytes = serde_json::to_string(&state).map_or(usize::MAX, |text| text.len());
    let per_tick = ticks();
    println!(
        "step with {REPLICAS} cells   {:>10.2} us   (limit {STEP_MAX:?})",
        micros(per_step)
    );
    println!(
        "simulated tick      {:>10.2} us   (limit {TICK_MAX:?})",
        micros(per_tick)
    );
    println!("stored state        {bytes:>10} bytes (limit {STATE_MAX_BYTES})");
    if per_step < STEP_MAX && per_tick < TICK_MAX && bytes < STATE_MAX_BYTES {
        ExitCode::SUCCESS
    } else {
        println!("over the limit");
        ExitCode::FAILURE
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A second of four replicas' traffic, half of it on the canary.
fn cells(now: UnixMillis, weight: Weight, turn: i64) -> Vec<Cell> {
    let cell = |replica: usize| {
        let mut cell = Cell::open(now.plus_millis(-1_000), weight, 0);
        cell.closed_at = now;
        for arm in Arm::BOTH {
            let counts = cell.arms.get_mut(arm);
            let requests = 40 + (turn.unsigned_abs() % 7) + replica as u64;
            counts.requests = requests;
            counts.streamed = requests;
            counts.errors = u64::from((turn.unsigned_abs() + replica as u64).is_multiple_of(5));
            for request in 0..requests {
                let ms = 300.0 + 37.0 * ((request * request) % 41) as f64;
                counts.latency.add(sketch::bucket_of(ms), 1.0);
                counts.ttft.add(sketch::bucket_of(ms / 4.0), 1.0);
            }
        }
        cell
    };
    (0..REPLICAS).map(cell).collect()
}

/// The time of one step, the making of its cells not included, and the state after all of them.
fn steps() -> (Duration, State) {
    let mut policy = default_policy();
    policy.warm_up_requests = 0;
    if let Some(first) = policy.stages.first_mut() {
        first.weight = Weight::from_bps(5_000).unwrap_or(Weight::FULL);
        // It stays where it is.
        first.dwell_ms = i64::MAX / 4;
    }
    policy.stages.truncate(1);
    let mut now = UnixMillis(1_767_225_600_000);
    let mut state = State::new(&policy, "bench".to_owned(), now);
    let mut spent = Duration::ZERO;
    for turn in 0..STEPS {
        now = now.plus_millis(1_000);
        let closed = cells(now, state.weight(), turn);
        let began = Instant::now();
        state = look(&policy, state, &closed, now);
        spent += began.elapsed();
    }
    (spent / u32::try_from(STEPS).unwrap_or(1), black_box(state))
}

fn look(policy: &Policy, state: State, closed: &[Cell], now: UnixMillis) -> State {
    let open = Cell::open(now, state.weight(), 0);
    let input = |closed, event| Input {
        closed,
        open: &open,
        event,
        store_healthy: true,
        legacy_breaker_open: false,
        incident: None,
        canary_rate_per_s: 160.0,
        requests_per_s: 320.0,
        assigned: Assigned::default(),
        overdue: PerArm::default(),
        headroom: Headroom::default(),
    };
    let mut stepped = step(policy, state, &input(closed, None), now);
    for effect in std::mem::take(&mut stepped.effects) {
        if let Effect::Propose { proposal, .. } = effect {
            let committed = Some(Event::Committed { proposal });
            stepped = step(policy, stepped.state, &input(&[], committed), now);
        }
    }
    stepped.state
}

/// The time of one tick of the simulator on one thread, traffic included, while both arms have requests:
/// the dearest part of a run.
fn ticks() -> Duration {
    let text = "duration = \"2d\"\n[legacy]\nttft = { median = \"200ms\" }\n";
    let Ok(scenario) = scenario::parse(text) else {
        return Duration::MAX;
    };
    let mut policy = default_policy();
    policy.stages.truncate(4);
    for stage in &mut policy.stages {
        stage.dwell_ms = 0;
    }
    let settings = Settings {
        scenario: &scenario,
        policy: &policy,
        judge: Judge::Controller,
        runs: 5,
        seed: 1,
        threads: 1,
    };
    let ticks = scenario.duration_ms / scenario.tick_ms * 5;
    let began = Instant::now();
    black_box(simulate(&settings, &|_| ()));
    began.elapsed() / u32::try_from(ticks).unwrap_or(1)
}
