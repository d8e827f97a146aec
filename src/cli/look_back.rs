//! What commands that look back at a store share: which store, which rollout, which time.
//!
//! Reads files and the clock; opens the store read-only, so that a running daemon is not disturbed.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::{ConfigArg, Failure, config_commands};
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::config::parse;
use crate::store::{History, RolloutRow, StoreError};

/// Arguments that every such command has.
#[derive(Debug, Args)]
pub(super) struct LookBackArgs {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// The store's file, instead of the one in the configuration
    #[arg(long, value_name = "FILE")]
    pub(super) store: Option<PathBuf>,
    /// The rollout, by its name or its id; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    pub(super) rollout: Option<String>,
    /// Only from this time on: 2026-11-21, 2026-11-21 14:30 (UTC), or 2d ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) from: Option<UnixMillis>,
    /// Only until this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) to: Option<UnixMillis>,
}

impl LookBackArgs {
    /// The configuration; the keys in it need not be set.
    pub(super) fn read_config(&self) -> Result<Config, Failure> {
        let parsed = parse::load_without_secrets(&self.config.config)
            .map_err(|error| config_commands::load_failure(&error))?;
        Ok(parsed.config)
    }

    /// The store that is meant.
    pub(super) fn store_path(&self, config: Option<&Config>) -> PathBuf {
        let configured = || config.map(|config| config.store.path.clone());
        let path = self.store.clone().or_else(configured);
        path.unwrap_or_else(|| PathBuf::from("cutover.db"))
    }
}

/// Runs what reads the store.
pub(super) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("no runtime: {error}")))?;
    runtime.block_on(work)
}

/// How a failing store ends the command.
#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
pub(super) fn store_failure(error: StoreError) -> Failure {
    Failure::Unreachable(error.to_string())
}

/// The rollout of a store that is meant: the latest of a name, or the one with that id.
pub(super) async fn choose(history: &History, wanted: Option<&str>) -> Result<RolloutRow, Failure> {
    let rows = history.rollouts().await.map_err(store_failure)?;
    let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    names.dedup();
    let is_wanted = |row: &&RolloutRow| match wanted {
        Some(wanted) => row.name == wanted || row.rollout_id == wanted,
        None => names.len() == 1,
    };
    match (rows.iter().find(is_wanted), wanted) {
        (Some(row), _) => Ok(row.clone()),
        (None, _) if rows.is_empty() => Err(Failure::Refused(
            "the store holds no rollout yet: nothing was decided or measured".to_owned(),
        )),
        (None, None) => Err(Failure::Refused(format!(
            "name one with --rollout: {}",
            names.join(", ")
        ))),
        (None, Some(wanted)) => Err(Failure::Refused(format!(
            "the store holds no rollout {wanted}; it holds: {}",
            names.join(", ")
        ))),
    }
}

/// A time in UTC, or how long ago it was.
fn time(text: &str) -> Result<UnixMillis, String> {
    let text = text.trim();
    let ago = text.strip_suffix("ago").unwrap_or(text).trim();
    if let Ok(ago) = humantime::parse_duration(ago) {
        let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(UnixMillis::now().plus_millis(ago_ms.saturating_neg()));
    }
    let full = match text.len() {
        10 => format!("{text} 00:00:00"),
        16 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let at = humantime::parse_rfc3339_weak(&full)
        .ok()
        .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_millis()).ok());
    at.map(UnixMillis).ok_or_else(|| {
        "write a time in UTC like 2026-11-21 or 2026-11-21T14:30:00Z, or 2d ago".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_moments_or_lengths_ago() {
        let cases = [
            ("2023-11-14", "2023-11-14T00:00:00.000Z"),
            ("2023-11-14 22:13", "2023-11-14T22:13:00.000Z"),
            ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(time(text).unwrap().to_string(), expected);
        }
        let ago_ms = UnixMillis::now().millis_since(time("2h ago").unwrap());
        assert!((7_200_000..7_260_000).contains(&ago_ms), "{ago_ms}");
        for wrong in ["", "yesterday", "2023-13-01", "10:00"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
