//! Whether records are being kept, and why not.
//!
//! An open WAL database does not notice that its folder became unwritable or that its file was deleted
//! or replaced, so both are looked for explicitly. Nothing here talks to SQLite.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::clock::UnixMillis;

/// The state of the store. Watchers are woken only when `healthy` changes; the other fields are
/// current whenever they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Records are being kept.
    pub healthy: bool,
    /// Since when `healthy` is what it is.
    pub since: UnixMillis,
    /// What failed first, and what to do; `None` while healthy.
    pub error: Option<String>,
    /// Attempts that were dropped since start because the queue was full.
    pub dropped_samples: u64,
    /// Cells of evidence that were dropped since start for the same reason.
    pub dropped_cells: u64,
    /// Where the last corrupt file was set aside, if there was one since start.
    pub set_aside: Option<PathBuf>,
    /// How often since start another file took the place of the one that was open.
    pub files_replaced: u64,
}

impl Health {
    /// A store that just opened.
    pub(super) fn new(now: UnixMillis, set_aside: Option<PathBuf>) -> Self {
        Self {
            healthy: true,
            since: now,
            error: None,
            dropped_samples: 0,
            dropped_cells: 0,
            set_aside,
            files_replaced: 0,
        }
    }

    /// Takes the news; true if watchers must hear of it. The first reason stays until all is well.
    pub(super) fn update(&mut self, now: UnixMillis, error: Option<String>) -> bool {
        if self.healthy == error.is_none() {
            return false;
        }
        self.healthy = error.is_none();
        self.since = now;
        self.error = error;
        true
    }
}

/// Which file a path leads to: device and inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The files that the open connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    database: Option<FileId>,
    wal: Option<FileId>,
}

impl Identity {
    /// The files that are at the path now.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            database: file_id(path),
            wal: file_id(&beside(path, "-wal")),
        }
    }

    /// True if the path still leads to the same database and journal. While a connection is open the
    /// journal may appear but never change.
    pub(super) fn is_same(self, now: Self) -> bool {
        self.database.is_some()
            && self.database == now.database
            && (self.wal.is_none() || self.wal == now.wal)
    }

    /// Moves a WAL that belonged to the vanished database out of the way of its successor, which it
    /// would corrupt. Call it only after every connection was closed.
    pub(super) fn retire_wal(self, path: &Path, now: UnixMillis) -> io::Result<()> {
        if self.wal.is_none() || self.wal != file_id(&beside(path, "-wal")) {
            return Ok(());
        }
        move_aside(path, "vanished", now).map(|_| ())
    }
}

/// `cutover.db` and `-wal` make `cutover.db-wal`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Renames the corrupt database with its journal files; returns the new name of the database.
pub(super) fn set_aside(path: &Path, now: UnixMillis) -> io::Result<PathBuf> {
    let aside = move_aside(path, "corrupt", now)?;
    let moved = fs::rename(path, &aside);
    match moved {
        // Whoever removed it did the work already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(aside),
        moved => moved.map(|()| aside),
    }
}

/// Moves `-wal` and `-shm`; returns the name that the database gets or would get.
fn move_aside(path: &Path, why: &str, now: UnixMillis) -> io::Result<PathBuf> {
    let time = now.to_string().replace(':', "-");
    let aside = beside(path, &format!(".{why}-{time}"));
    for suffix in ["-wal", "-shm"] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// The folder of the database file; the working directory for a bare name.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Checks that the folder takes a new file with content, as SQLite needs.
///
/// # Errors
/// Says in one sentence what fails and what to do.
pub(super) fn check_folder(path: &Path) -> Result<(), String> {
    let probe = beside(path, ".probe");
    let written = fs::File::create(&probe).and_then(|mut file| file.write_all(b"cutover\n"));
    let removed = fs::remove_file(&probe);
    match written.and(removed) {
        // Another process that looks after the same folder may have removed the file first.
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder_of(path).is_dir() => Ok(()),
        result => result.map_err(|error| {
            format!(
                "the store's folder `{}` takes no new file ({error}); make it writable and free some space",
                folder_of(path).display()
            )
        }),
    }
}
