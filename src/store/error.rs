//! What can go wrong in the store, and what to do about it.
//!
//! Also judges SQLite's errors: which pass by themselves, which never will, and which mean a broken file.

use std::fmt;
use std::path::PathBuf;

use super::sqlite::OpenError;

/// Why the store could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The folder of the database file does not exist.
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// There is no file to look back at.
    NoFile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A newer cutover wrote the file.
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this binary knows.
        known: i64,
    },
    /// The schema's history differs from this binary's.
    ForeignSchema {
        /// The database file.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// Somebody else stored another version of the rollout. Asking again does not help: load it first.
    Conflict {
        /// The rollout.
        rollout_id: String,
        /// The version that the caller built on.
        expected: i64,
        /// The version in the store; 0 when it has none.
        stored: i64,
    },
    /// The rows break a rule of the schema and will never be stored.
    Refused {
        /// SQLite's words.
        detail: String,
    },
    /// Too many decisions wait for a store that does not answer.
    QueueFull,
    /// The store was closed.
    Closed,
    /// The store does not work at the moment. Asking again later may help.
    Unavailable {
        /// What fails and what to do.
        reason: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFolder { folder } => write!(
                f,
                "the store's folder `{}` does not exist; create it or change store.url",
                folder.display()
            ),
            Self::NoFile { path } => write!(
                f,
                "there is no store `{}`; name it with --store, or run cutover first",
                path.display()
            ),
            Self::NewerSchema { path, found, known } => write!(
                f,
                "`{}` was written by a newer cutover (schema {found}, this binary knows {known}); \
                 run that version, or move the file away to start a new one",
                path.display()
            ),
            Self::ForeignSchema { path, detail } => write!(
                f,
                "`{}` has another schema than this binary's ({detail}); \
                 run the version that wrote it, or move the file away to start a new one",
                path.display()
            ),
            Self::Conflict {
                rollout_id,
                expected,
                stored,
            } => write!(
                f,
                "rollout {rollout_id} is at version {stored} in the store, not {expected}: \
                 another cutover writes the same file; stop one of them"
            ),
            Self::Refused { detail } => write!(f, "the store refused the rows: {detail}"),
            Self::QueueFull => {
                f.write_str("too many decisions wait for the store; repair it first")
            }
            Self::Closed => f.write_str("the store is closed"),
            Self::Unavailable { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for StoreError {}

/// What an error of SQLite means for the work at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It may pass: try again with a new connection.
    Passing,
    /// These rows will never be taken.
    Refused,
    /// The file is broken: set it aside.
    Corrupt,
}

/// SQLite's primary result code, if the error came from SQLite at all.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<i32>().ok()? & 0xff)
}

/// Judges an error.
pub(super) fn fault_of(error: &sqlx::Error) -> Fault {
    match primary_code(error) {
        // SQLITE_CORRUPT, SQLITE_NOTADB
        Some(11 | 26) => Fault::Corrupt,
        // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH, SQLITE_RANGE
        Some(18 | 19 | 20 | 25) => Fault::Refused,
        _ => Fault::Passing,
    }
}

/// Why a turn did not end well.
pub(super) enum Trouble {
    /// Try again after a pause.
    Passing(String),
    /// The file is broken.
    Corrupt(String),
    /// Only the connection must go; nothing is wrong with the store.
    Reconnect,
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        match fault_of(&error) {
            Fault::Corrupt => Self::Corrupt(describe(&error)),
            Fault::Passing | Fault::Refused => Self::Passing(describe(&error)),
        }
    }
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt(reason) => Self::Corrupt(reason),
            OpenError::Other(error) => Self::Passing(error.to_string()),
        }
    }
}

/// An error in one sentence for people, with what to do where that is known.
pub(super) fn describe(error: &sqlx::Error) -> String {
    let what = match primary_code(error) {
        Some(5 | 6) => "another process keeps the database locked; end its transaction",
        Some(8) => "the database is read-only; make the file and its folder writable",
        Some(10) => "reading or writing the file failed; check the disk",
        Some(11 | 26) => "the database file is corrupt",
        Some(13) => "the disk is full; free some space",
        Some(14) => "the database file cannot be opened; check the folder and its permissions",
        _ => "the database does not work",
    };
    format!("{what} ({error})")
}
