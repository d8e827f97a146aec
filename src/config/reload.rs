//! Watches the configuration file and tells of each new content, right or wrong, exactly once.
//!
//! Reads the file and the secrets it refers to; applies nothing. Three ways lead to a look at the
//! file: events of its folders, a poll (network drives, bind mounts and some sandboxes give no
//! events), and SIGHUP. What counts is the content, never the kind or the name of an event: editors
//! save by rename, and a Kubernetes ConfigMap only swaps a symlink in another folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::task;
use tokio::time;

use super::Config;
use super::parse::{Fault, Fingerprint, LoadError, examine, process_env, read_text};

/// After an event, and until a content is believed: a save in place is first an empty file, then
/// perhaps a half one that is valid by itself.
const QUIET: Duration = Duration::from_millis(250);
/// How often to look without any event.
const POLL: Duration = Duration::from_secs(1);
/// A chain of symlinks is followed so far.
const MOST_LINKS: usize = 16;

/// A new content of the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Reloaded {
    /// It is right: use it. With what is unwise about it.
    Config(Box<Config>, Vec<Fault>),
    /// It is wrong: keep what is running. Never empty.
    Rejected(Vec<Fault>),
    /// The file is gone or cannot be read: keep what is running. The sentence says why.
    Unreadable(String),
}

/// What the file was at the last look.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Content(Fingerprint),
    Unreadable(String),
}

/// Watches the file at `path` until the receiver of `tx` is dropped. `initial` is the fingerprint of
/// the configuration that is running; a file that differs already is told at once. After a content
/// that was wrong or unreadable, a return to the previous one is told as well.
pub async fn watch(path: PathBuf, initial: Fingerprint, tx: mpsc::Sender<Reloaded>) {
    let mut signs = Signs::new();
    let mut last = Seen::Content(initial);
    loop {
        // Before the look, so that no change falls between the look and the watch.
        signs.watch(&path).await;
        let (seen, news) = settled(&path, &last).await;
        if seen != last {
            last = seen;
            if tx.send(news).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = signs.wait() => {}
            () = tx.closed() => return,
        }
    }
}

/// Looks at the file until two looks agree, or until it is what it was.
async fn settled(path: &Path, last: &Seen) -> (Seen, Reloaded) {
    let mut now = look(path).await;
    while now.0 != *last {
        time::sleep(QUIET).await;
        let again = look(path).await;
        if again.0 == now.0 {
            return again;
        }
        now = again;
    }
    now
}

/// One look at the file, off the threads that must not wait for a disk.
async fn look(path: &Path) -> (Seen, Reloaded) {
    let path = path.to_owned();
    let unreadable = |why: String| (Seen::Unreadable(why.clone()), Reloaded::Unreadable(why));
    let looked = task::spawn_blocking(move || match read_text(&path) {
        Ok(text) => Ok(examine(&text, &process_env)),
        Err(error) => Err(explain(&error)),
    });
    match looked.await {
        Ok(Ok((fingerprint, Ok(parsed)))) => (
            Seen::Content(fingerprint),
            Reloaded::Config(Box::new(parsed.config), parsed.warnings),
        ),
        Ok(Ok((fingerprint, Err(faults)))) => {
            (Seen::Content(fingerprint), Reloaded::Rejected(faults))
        }
        Ok(Err(why)) => unreadable(why),
        Err(error) => unreadable(format!("the look at the configuration failed: {error}")),
    }
}

/// Why a running daemon keeps what it has.
fn explain(error: &LoadError) -> String {
    match error {
        LoadError::Missing { path } => format!(
            "{} is gone, the running configuration stays; put the file back",
            path.display()
        ),
        other => format!("{other}; the running configuration stays"),
    }
}

/// Everything that says: look at the file.
struct Signs {
    events: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
    hang_up: HangUp,
}

impl Signs {
    fn new() -> Self {
        // One mark is enough: it says that something happened, not what.
        let (mark, events) = mpsc::channel(1);
        let on_event = move |event: notify::Result<notify::Event>| {
            // Reading the file makes access events; answering them would never end.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                // Full means that the mark is set already.
                mark.try_send(()).ok();
            }
        };
        let watcher = notify::recommended_watcher(on_event)
            .inspect_err(|error| {
                tracing::warn!(%error, "no file events; the configuration is polled only");
            })
            .ok();
        Self {
            events,
            watcher,
            watched: Vec::new(),
            hang_up: HangUp::new(),
        }
    }

    /// Watches the folder of the file and of each symlink on the way to it, and nothing else.
    async fn watch(&mut self, path: &Path) {
        let path = path.to_owned();
        let folders = task::spawn_blocking(move || folders_of(&path)).await;
        let (Some(watcher), Ok(folders)) = (&mut self.watcher, folders) else {
            return;
        };
        if folders == self.watched {
            return;
        }
        // All anew: a folder of the same name may be another one by now.
        for folder in self.watched.drain(..) {
            // The folder may be gone, and its watch with it.
            watcher.unwatch(&folder).ok();
        }
        for folder in &folders {
            // A folder that is missing is found by the poll when it comes.
            watcher.watch(folder, RecursiveMode::NonRecursive).ok();
        }
        self.watched = folders;
    }

    /// Waits for an event and the quiet after it, for the poll, or for SIGHUP.
    async fn wait(&mut self) {
        tokio::select! {
            Some(()) = self.events.recv() => {
                time::sleep(QUIET).await;
                // Whatever came meanwhile is seen by the look that follows.
                self.events.try_recv().ok();
            }
            () = self.hang_up.received() => {}
            () = time::sleep(POLL) => {}
        }
    }
}

/// The folder of the file, those of each symlink on the way, and the real folder at the end.
fn folders_of(path: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        let folder = match at.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => break,
        };
        // Resolved, so that a swapped `..data` shows as another folder.
        let real = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
        if !folders.contains(&real) {
            folders.push(real);
        }
        let Ok(target) = fs::read_link(&at) else {
            break;
        };
        at = folder.join(target);
    }
    folders
}

/// SIGHUP, where there is such a thing.
struct HangUp {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl HangUp {
    #[cfg(unix)]
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP will not reload"))
            .ok();
        Self { signal }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Self {}
    }

    async fn received(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
