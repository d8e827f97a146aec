//! The folder that a daemon lives in, what may be done to its store, and how it is read.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tempfile::TempDir;

/// Large enough for a round, small enough to be filled at once.
const SMALL_DISK: &str = "size=24m";
const PAGE: usize = 4096;

/// A folder with a configuration and a store. Put right and removed when dropped.
#[derive(Debug)]
pub(crate) struct Home {
    folder: TempDir,
    has_small_disk: bool,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.set_read_only(false);
        if self.has_small_disk {
            run("umount", &["-l", self.store().to_str().unwrap()]);
        }
    }
}

/// True if the command went well.
fn run(program: &str, args: &[&str]) -> bool {
    let ran = Command::new(program)
        .args(args)
        .stderr(Stdio::null())
        .status();
    ran.is_ok_and(|status| status.success())
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Self {
            folder,
            has_small_disk: false,
        };
        fs::create_dir(home.store()).unwrap();
        home
    }

    /// The same with the store on a small disk of its own; `None` where that is not permitted.
    pub(crate) fn on_small_disk() -> Option<Self> {
        let mut home = Self::new();
        let at = home.store();
        let args = [
            "-t",
            "tmpfs",
            "-o",
            SMALL_DISK,
            "cutover-chaos",
            at.to_str().unwrap(),
        ];
        home.has_small_disk = run("mount", &args);
        home.has_small_disk.then_some(home)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("cutover.toml")
    }

    /// The folder of the database.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.store().join("cutover.db")
    }

    /// Forbids writing the database and its folder, to root as well; false if that is not permitted. Not the
    /// `-shm` file: SQLite keeps it mapped, and a page of it that cannot be written is a SIGBUS, which ends
    /// any program.
    pub(crate) fn set_read_only(&self, read_only: bool) -> bool {
        let flag = if read_only { "+i" } else { "-i" };
        let (database, folder) = (self.database(), self.store());
        let journal = self.store().join("cutover.db-wal");
        let mut is_set = true;
        for path in [database, journal, folder] {
            is_set &= run("chattr", &[flag, path.to_str().unwrap()]);
        }
        is_set
    }

    /// Puts a file in the place of the store's folder, or takes it back.
    pub(crate) fn set_moved(&self, moved: bool) {
        let away = self.folder.path().join("away");
        if moved {
            fs::rename(self.store(), &away).unwrap();
            fs::write(self.store(), "in the way").unwrap();
        } else {
            fs::remove_file(self.store()).unwrap();
            fs::rename(away, self.store()).unwrap();
        }
    }

    /// Fills the small disk to the last byte, or frees it again.
    pub(crate) fn set_full(&self, full: bool) {
        let ballast = self.store().join("ballast");
        if !full {
            fs::remove_file(ballast).unwrap();
            return;
        }
        let mut file = fs::File::create(ballast).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![7; size];
            while file.write(&block).is_ok_and(|written| written > 0) {}
        }
    }

    /// Holds the database against all writers until what is returned is killed.
    pub(crate) fn lock(&self) -> Lock {
        let mut child = Command::new("sqlite3")
            .arg(self.database())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the package `sqlite3` is there (`make packages`)");
        let stdin = child.stdin.as_mut().unwrap();
        let script = ".timeout 20000\nBEGIN EXCLUSIVE;\nSELECT 'locked';\n";
        stdin.write_all(script.as_bytes()).unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "locked");
        Lock(child)
    }

    /// Overwrites pages of the database and of its journal, the first page as well if so.
    pub(crate) fn corrupt(&self, first_page: bool, rng: &mut StdRng) {
        for name in ["cutover.db", "cutover.db-wal"] {
            let path = self.store().join(name);
            let Ok(length) = fs::metadata(&path).map(|it| it.len()) else {
                continue;
            };
            let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let mut noise = [0; PAGE];
            let pages = length / PAGE as u64;
            for page in 0..pages {
                if (page == 0 && first_page) || (page > 0) {
                    rng.fill(&mut noise[..]);
                    file.seek(SeekFrom::Start(page * PAGE as u64)).unwrap();
                    file.write_all(&noise).unwrap();
                }
            }
        }
    }

    /// Removes the database, and its journal if so.
    pub(crate) fn delete(&self, journal: bool) {
        fs::remove_file(self.database()).unwrap();
        if journal {
            fs::remove_file(self.store().join("cutover.db-wal")).ok();
        }
    }

    /// Files of the store that were set aside.
    pub(crate) fn set_aside(&self) -> Vec<String> {
        let names = fs::read_dir(self.store()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| {
                name.contains(".db.corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm")
            })
            .collect()
    }

    /// Asks a copy of the database, so that asking mends nothing. Only while no daemon runs.
    pub(crate) fn sql(&self, query: &str) -> Vec<Value> {
        let copy = tempfile::tempdir().unwrap();
        for name in ["cutover.db", "cutover.db-wal"] {
            let from = self.store().join(name);
            if from.exists() {
                fs::copy(from, copy.path().join(name)).unwrap();
            }
        }
        let asked = Command::new("sqlite3")
            .arg("-json")
            .arg(copy.path().join("cutover.db"))
            .arg(query)
            .output()
            .expect("the package `sqlite3` is there (`make packages`)");
        let error = String::from_utf8_lossy(&asked.stderr);
        assert!(asked.status.success(), "{query}: {error}");
        if asked.stdout.is_empty() {
            return Vec::new();
        }
        serde_json::from_slice(&asked.stdout).unwrap()
    }

    /// The files of the folder that hold this text.
    pub(crate) fn holding(&self, secret: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.store()).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = Vec::new();
            fs::File::open(&path)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            if memchr::memmem::find(&bytes, secret.as_bytes()).is_some() {
                found.push(path);
            }
        }
        found
    }
}

/// A process that keeps the database locked. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Lock(Child);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
