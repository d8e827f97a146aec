//! From text to a [`Config`], or to *all* of its faults at once.
//!
//! May read the configuration file and the secrets it refers to. Never prints a secret, never stops
//! at the first fault, and never panics, whatever the file holds.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::Config;
use super::raw::{Reader, Section};
use crate::controller::policy::Policy;

mod alerts;
mod arms;
mod budget;
mod checks;
mod clients;
mod daemon;
mod defaults;
pub mod fault;
mod guards;
pub(super) mod leaf;
mod rollout;
mod secret;
mod tls;
mod traces;

pub use fault::Fault;

/// The commented configuration that `cutover example-config` prints: every key with its default.
pub const EXAMPLE: &str = include_str!("../../config/cutover.toml");

/// Stands for a variable that is not set, for those who only look. Some secrets are addresses; this is one,
/// and as good a key as any.
pub const UNSET: &str = "https://unset.invalid/";

/// Larger files are no configuration.
const LARGEST_FILE: u64 = 1 << 20;

/// A configuration that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What it says.
    pub config: Config,
    /// What is unwise but not wrong, in the order of the file.
    pub warnings: Vec<Fault>,
    /// Of the text and the secrets it refers to; [`super::reload::watch`] compares it.
    pub fingerprint: Fingerprint,
}

/// Stands for the content of a configuration, secrets included. Tells contents apart, reveals none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u128);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A short secret could be guessed from its hash.
        f.write_str("Fingerprint(..)")
    }
}

/// Reads a configuration. `env` looks up an environment variable.
///
/// # Errors
/// Every fault, in the order of the file.
pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Parsed, Vec<Fault>> {
    examine(text, env).1
}

/// The same, with the fingerprint also of a text that is refused.
pub(super) fn examine(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> (Fingerprint, Result<Parsed, Vec<Fault>>) {
    let mut reader = Reader::new(text, env);
    let config = read(&mut reader);
    let fingerprint = Fingerprint(reader.hash.digest128());
    let in_order = |faults: &mut Vec<Fault>| faults.sort_by_key(|f| (f.line, f.column));
    in_order(&mut reader.faults);
    in_order(&mut reader.warnings);
    let result = match config {
        Some(config) if reader.faults.is_empty() => Ok(Parsed {
            config,
            warnings: reader.warnings,
            fingerprint,
        }),
        _ => Err(reader.faults),
    };
    (fingerprint, result)
}

/// `None` only after a syntax error; otherwise faults are in the reader.
fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let document = reader.document()?;
    let root = Section::root(&document);
    reader.check_keys(&root, "");
    let (rollouts, places) = rollout::rollouts(reader, &root).into_iter().unzip();
    let (budgets, budget_places): (_, Vec<_>) = budget::budgets(reader, &root).into_iter().unzip();
    let config = Config {
        proxy: daemon::proxy(reader, &root),
        admin: daemon::admin(reader, &root),
        store: daemon::store(reader, &root),
        arms: arms::arms(reader, &root),
        rollouts,
        alerts: alerts::alerts(reader, &root),
        budgets,
        traces: traces::traces(reader, &root),
    };
    checks::check(reader, &config, &checks::Places::of(&root, places));
    clients::check(reader, &root, &config);
    budget::check(reader, &root, &config, &budget_places);
    Some(config)
}

/// The built-in rules of a rollout, for those who have no configuration file.
#[must_use]
pub fn default_policy() -> Policy {
    rollout::default_policy()
}

/// Reads the configuration file at `path`, with the environment of the process.
///
/// # Errors
/// When the file cannot be read, or with every fault in it.
pub fn load(path: &Path) -> Result<Parsed, LoadError> {
    load_with(path, &process_env)
}

fn load_with(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Parsed, LoadError> {
    let text = read_text(path)?;
    parse(&text, env).map_err(|faults| LoadError::Invalid {
        path: path.to_owned(),
        faults,
    })
}

/// The same for those who only look: an environment variable that is not set yet stands for itself.
///
/// # Errors
/// As [`load`].
pub fn load_without_secrets(path: &Path) -> Result<Parsed, LoadError> {
    let env = |name: &str| process_env(name).or(Some(UNSET.to_owned()));
    load_with(path, &env)
}

/// The variable's value, if it is set and is UTF-8.
pub(super) fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The text of the file at `path`.
pub(super) fn read_text(path: &Path) -> Result<String, LoadError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => LoadError::Missing {
            path: path.to_owned(),
        },
        _ => LoadError::Unreadable {
            path: path.to_owned(),
            problem: error.to_string(),
        },
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut text = Vec::new();
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    let wrong = |problem: &str| LoadError::Unreadable {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST_FILE) {
        return Err(wrong("it is larger than 1 MiB"));
    }
    String::from_utf8(text).map_err(|_| wrong("it is not UTF-8 text"))
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// There is no such file.
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there but cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The file was read and cannot be used.
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every fault; never empty.
        faults: Vec<Fault>,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(
                f,
                "there is no {}; write one with: cutover example-config > {}",
                path.display(),
                path.display()
            ),
            Self::Unreadable { path, problem } => write!(
                f,
                "cannot read {}: {problem}; check its owner and permissions",
                path.display()
            ),
            Self::Invalid { path, faults } => {
                f.write_str(&render_all(faults, &path.display().to_string()))
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Every fault as [`Fault::render`] shows it, one after the other, with their number at the end.
#[must_use]
pub fn render_all(faults: &[Fault], file_name: &str) -> String {
    let mut lines: Vec<String> = faults.iter().map(|fault| fault.render(file_name)).collect();
    if faults.len() > 1 {
        lines.push(format!("{} faults in {file_name}", faults.len()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;
