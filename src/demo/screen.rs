//! What the demo prints: a line that is redrawn on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::load::Counts;
use super::standin::StandIn;
use crate::app::App;
use crate::arm::Arm;
use crate::driver::status::Status;
use crate::stdout;
use crate::store::StoredDecision;

const PLAIN_LINE_EVERY: Duration = Duration::from_secs(5);
const BAR: usize = 20;

/// The terminal, or whatever stands in for it.
pub(super) struct Screen {
    is_terminal: bool,
    last_decision: i64,
    last_line_at: Option<Instant>,
    started_at: Instant,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
            last_decision: 0,
            last_line_at: None,
            started_at: Instant::now(),
        }
    }

    pub(super) fn opening(&self, legacy: &StandIn, canary: &StandIn, database: &Path, rate: f64) {
        stdout::line("cutover demo: a whole migration on this machine, in about two minutes\n");
        stdout::line(&format!(
            "  legacy    {}   stand-in provider",
            legacy.base_url()
        ));
        stdout::line(&format!(
            "  canary    {}   stand-in provider, a little faster, much cheaper",
            canary.base_url()
        ));
        stdout::line(&format!("  database  {}", database.display()));
        stdout::line(&format!(
            "  traffic   {rate:.0} requests/s, half of them streams"
        ));
    }

    pub(super) fn addresses(&self, app: &App) {
        stdout::line(&format!("  proxy     http://{}/v1", app.proxy_addr));
        stdout::line(&format!(
            "  dashboard http://{}/   open it and watch",
            app.admin_addr
        ));
    }

    /// A new part of the story.
    pub(super) fn act(&mut self, title: &str) {
        self.clear();
        stdout::line(&format!("\n{title}"));
        self.last_line_at = None;
    }

    /// Something worth saying.
    pub(super) fn note(&self, text: &str) {
        self.clear();
        stdout::line(&format!("  {text}"));
    }

    /// Decisions that were not shown yet; `newest_first` as the store gives them.
    pub(super) fn decisions(&mut self, newest_first: Vec<StoredDecision>) {
        for decision in newest_first.into_iter().rev() {
            if decision.id <= self.last_decision {
                continue;
            }
            self.last_decision = decision.id;
            self.clear();
            stdout::line(&format!(
                "  {:>6.1}s  {:<9} {} -> {}  {}",
                self.started_at.elapsed().as_secs_f64(),
                decision.kind,
                decision.weight_from,
                decision.weight_to,
                decision.reason,
            ));
        }
    }

    /// Where things stand.
    pub(super) fn progress(&mut self, status: &Status, counts: &Counts) {
        let Some(rollout) = status.rollouts.first() else {
            return;
        };
        let due = self
            .last_line_at
            .is_none_or(|at| at.elapsed() >= PLAIN_LINE_EVERY);
        if !self.is_terminal && !due {
            return;
        }
        self.last_line_at = Some(Instant::now());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of twenty characters"
        )]
        let filled = (rollout.weight.clamp(0.0, 1.0) * 20.0).round() as usize;
        let bar = format!(
            "{}{}",
            "#".repeat(filled),
            ".".repeat(BAR.saturating_sub(filled))
        );
        let line = format!(
            "  [{bar}] {:>5.1}%  {:<10}  {} answered, {} failed  {}",
            rollout.weight * 100.0,
            rollout.state,
            counts.ok,
            counts.failed,
            rollout.reason,
        );
        if self.is_terminal {
            let short: String = line.chars().take(118).collect();
            stdout::raw(&format!("\r\x1b[2K{short}"));
        } else {
            stdout::line(&line);
        }
    }

    pub(super) fn summary(
        &self,
        status: &Status,
        counts: &Counts,
        asked: (u64, u64),
        promoted_in: Duration,
        tripped_in: Duration,
        database: &Path,
    ) {
        self.clear();
        let Some(rollout) = status.rollouts.first() else {
            return;
        };
        stdout::line("\nWhat happened");
        stdout::line(&format!(
            "  promoted to 100% in {:.0}s, every step by proof",
            promoted_in.as_secs_f64()
        ));
        stdout::line(&format!(
            "  outage: back on legacy after {:.1}s",
            tripped_in.as_secs_f64()
        ));
        stdout::line(&format!(
            "  clients: {} requests, {} answered, {} failed",
            counts.sent, counts.ok, counts.failed
        ));
        stdout::line(&format!(
            "  masked by failover: {} failures of the canary that no client saw",
            rollout.arms.canary.masked
        ));
        stdout::line(&format!(
            "  providers asked: legacy {}, canary {}",
            asked.0, asked.1
        ));
        for arm in Arm::BOTH {
            let seen = rollout.arms.get(arm);
            let ms = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
            stdout::line(&format!(
                "  {arm}: p50 {}, p99 {}, first token p50 {}, errors {}, cost {}",
                ms(seen.latency_ms.p50),
                ms(seen.latency_ms.p99),
                ms(seen.ttft_ms.p50),
                seen.errors,
                seen.cost_usd
                    .map_or("unknown".to_owned(), |usd| format!("${usd:.2}")),
            ));
        }
        let database = database.display();
        stdout::line("\nTry next");
        stdout::line(&format!(
            "  sqlite3 -box {database} 'select * from decision_log'"
        ));
        stdout::line(&format!(
            "  sqlite3 -box {database} 'select * from arm_summary'"
        ));
        stdout::line("  cutover example-config > cutover.toml && cutover check");
    }

    /// Wipes the line that is redrawn.
    fn clear(&self) {
        if self.is_terminal {
            stdout::raw("\r\x1b[2K");
        }
    }
}
