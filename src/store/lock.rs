//! Which process may write: the one that holds the lock file beside the database.
//!
//! The kernel lets go of it when its holder ends, however it ends. It is a file of its own because SQLite
//! loses its locks on a file that anybody else in the process opens and closes. Readers need no lock.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

/// A lock file that cannot be opened is tried again so often.
const TRY_EVERY: Duration = Duration::from_secs(1);

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
    /// The lock file cannot be had; nobody knows.
    Failed(io::Error),
}

impl Lock {
    /// Tries to take the lock of the database at `path`; never waits.
    #[must_use]
    pub fn try_take(path: &Path) -> Tried {
        let at = lock_path(path);
        let tried = open(&at).map_err(TryLockError::Error).and_then(|file| {
            file.try_lock()?;
            Ok(file)
        });
        match tried {
            Ok(file) => Tried::Taken(Self::taken(file)),
            Err(TryLockError::WouldBlock) => Tried::Held(holder(path)),
            Err(TryLockError::Error(error)) => Tried::Failed(error),
        }
    }

    /// Waits for the lock on a thread of its own. The kernel wakes it when the holder ends, so that it comes
    /// before a process that has yet to be started. An error says that the thread is gone. Nothing waits for
    /// the thread: it ends with the process, or gives up a lock that nobody wants any more.
    pub fn wait(path: &Path) -> oneshot::Receiver<Self> {
        let (sender, receiver) = oneshot::channel();
        let at = lock_path(path);
        let wait = move || {
            while !sender.is_closed() {
                match wait_for(&at) {
                    Ok(Some(file)) => {
                        drop(sender.send(Self::taken(file)));
                        return;
                    }
                    // Somebody has put another file in its place.
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(%error, "the lock cannot be waited for; trying again");
                        thread::sleep(TRY_EVERY);
                    }
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("store-lock".into()).spawn(wait) {
            tracing::warn!(%error, "no thread can wait for the store; trying again");
        }
        receiver
    }

    /// Goes on without a lock, where the folder takes no file: a full disk must not keep traffic from
    /// flowing. Only for a process that sets out: one that stands by knows that there is another.
    #[must_use]
    pub fn none(path: &Path, error: &io::Error) -> Self {
        tracing::warn!(
            path = %lock_path(path).display(),
            %error,
            "the lock file cannot be made; nothing keeps a second cutover from this database"
        );
        Self { _file: None }
    }

    fn taken(mut file: File) -> Self {
        // For people and for messages; the lock holds without it.
        let written = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::debug!(%error, "the lock file does not say who holds it");
        }
        Self { _file: Some(file) }
    }
}

/// The number of the process that holds the lock, or held it last, if it can be read.
#[must_use]
pub fn holder(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(lock_path(path)).ok()?;
    text.trim().parse().ok()
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    name.into()
}

fn open(at: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Not emptied when it is opened: it says who holds it.
    options.read(true).write(true).create(true).truncate(false);
    options.open(at)
}

/// The locked file; `None` if it is no longer the one that others find.
fn wait_for(at: &Path) -> io::Result<Option<File>> {
    let file = open(at)?;
    file.lock()?;
    let (own, found) = (file.metadata()?, fs::metadata(at)?);
    let is_same = (own.dev(), own.ino()) == (found.dev(), found.ino());
    Ok(is_same.then_some(file))
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
    fn a_folder_that_takes_no_file_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/cutover.db");
        assert!(matches!(Lock::try_take(&path), Tried::Failed(_)));
    }

    #[tokio::test]
    async fn who_waits_has_it_after_the_holder_and_never_a_file_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/cutover.db");
        let waiting = Lock::wait(&path);
        // What cannot be opened is held, as far as anybody knows.
        fs::create_dir(folder.path().join("missing")).unwrap();
        let first = waiting.await.unwrap();
        let waiting = Lock::wait(&path);
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(first);
        let second = waiting.await.unwrap();
        assert!(matches!(Lock::try_take(&path), Tried::Held(_)));
        let mut waiting = Lock::wait(&path);
        // The same place, another file.
        let beside = folder.path().join("beside");
        let other = File::create(&beside).unwrap();
        other.lock().unwrap();
        fs::rename(&beside, lock_path(&path)).unwrap();
        drop(second);
        assert!(waiting.try_recv().is_err());
        drop(other);
        waiting.await.unwrap();
    }
}
