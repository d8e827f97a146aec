//! Why the daemon cannot start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the daemon cannot start.
#[derive(Debug)]
pub enum StartError {
    /// A port cannot be listened on.
    Listen {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        addr: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another process writes to the database.
    StoreInUse {
        /// The database file.
        path: PathBuf,
        /// That process, if it is known.
        holder: Option<u32>,
    },
    /// Anything else, in one sentence with its remedy.
    Other(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { key, addr, error } => {
                write!(
                    f,
                    "cannot listen on {addr}: {error}; free the port or change {key}"
                )
            }
            Self::StoreInUse { path, holder } => {
                let path = path.display();
                write!(f, "another cutover uses `{path}`")?;
                if let Some(holder) = holder {
                    write!(f, " (process {holder})")?;
                }
                f.write_str(
                    "; stop it first, or give this one a store.url of its own \
                     (a restart without a gap needs socket activation, see docs/deploying.md)",
                )
            }
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for StartError {}

pub(super) fn other(error: impl fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}
