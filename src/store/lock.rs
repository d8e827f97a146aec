//! Which process may write: the one that holds the lock file beside the database.
//!
//! The kernel lets go of it when its holder ends, however it ends. It is a file of its own because SQLite
//! loses its locks on a file that anybody else in the process opens and closes. Readers need no lock.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The right to write, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    /// `None` where no lock file can be made.
    _file: Option<File>,
}

/// What became of a try.
#[derive(Debug)]
pub enum Tried {
    /// This process may write.
    Taken(Lock),
    /// Another one does: its number, if it can be read.
    Held(Option<u32>),
}

impl Lock {
    /// Tries to take the lock of the database at `path`; never waits. Where the folder takes no file,
    /// nothing is locked: a full disk must not keep traffic from flowing.
    #[must_use]
    pub fn try_take(path: &Path) -> Tried {
        let at = lock_path(path);
        match try_lock(&at) {
            Ok(file) => Tried::Taken(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&at).ok();
                Tried::Held(holder.and_then(|text| text.trim().parse().ok()))
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    path = %at.display(),
                    %error,
                    "the lock file cannot be made; nothing keeps a second cutover from this database"
                );
                Tried::Taken(Self { _file: None })
            }
        }
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    name.into()
}

fn try_lock(at: &Path) -> Result<File, TryLockError> {
    let mut options = OpenOptions::new();
    // Not emptied when it is opened: it says who holds it.
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(at).map_err(TryLockError::Error)?;
    file.try_lock()?;
    // For people and for the message above; the lock holds without it.
    let written = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = written {
        tracing::debug!(%error, "the lock file does not say who holds it");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_holds_it_and_the_other_learns_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cutover.db");
        let Tried::Taken(first) = Lock::try_take(&path) else {
            panic!("nobody holds it yet");
        };
        let second = Lock::try_take(&path);
        let own = std::process::id();
        assert!(
            matches!(second, Tried::Held(Some(pid)) if pid == own),
            "{second:?}"
        );
        drop(first);
        assert!(matches!(Lock::try_take(&path), Tried::Taken(_)));
        assert!(!path.exists(), "the database is not touched");
    }

    #[test]
    fn a_folder_that_takes_no_file_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/cutover.db");
        assert!(matches!(Lock::try_take(&path), Tried::Taken(_)));
    }
}
