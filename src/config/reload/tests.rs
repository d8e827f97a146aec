//! Real files, saved in every way that people and machines save them.

use std::io::Write as _;
use std::os::unix::fs::symlink;

use super::*;
use crate::config::parse::load;

/// Far above the two seconds that are promised: a bound for a broken watcher, not a measurement.
const PATIENCE: Duration = Duration::from_secs(30);

fn text(max_attempts: u32) -> String {
    format!(
        "[arms.legacy]\nbase-url = \"http://127.0.0.1:1\"\n[arms.canary]\n\
         base-url = \"http://127.0.0.1:2\"\napi-key = \"client\"\n\
         [[rollout]]\nmax-attempts = {max_attempts}\n"
    )
}

/// A watched file in a folder of its own.
struct Watched {
    path: PathBuf,
    rx: mpsc::Receiver<Reloaded>,
}

impl Watched {
    fn start(path: &Path) -> Self {
        let initial = load(path).unwrap().fingerprint;
        let (tx, rx) = mpsc::channel(16);
        tokio::spawn(watch(path.to_owned(), initial, tx));
        Self {
            path: path.to_owned(),
            rx,
        }
    }

    async fn next(&mut self) -> Reloaded {
        time::timeout(PATIENCE, self.rx.recv())
            .await
            .expect("no message in time")
            .expect("the watcher ended")
    }

    /// The next message must be the configuration with this many attempts.
    async fn expect(&mut self, max_attempts: u32) {
        match self.next().await {
            Reloaded::Config(config, _) => {
                assert_eq!(config.rollouts[0].policy.max_attempts, max_attempts);
            }
            other => panic!("{other:?}"),
        }
    }

    fn save(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }
}

#[tokio::test]
async fn a_save_in_place_is_one_message_however_slowly_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cutover.toml");
    fs::write(&path, text(1)).unwrap();
    let mut watched = Watched::start(&path);
    for attempts in 2..5 {
        let new = text(attempts);
        let (first, rest) = new.split_at(new.len() / 2);
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(first.as_bytes()).unwrap();
        // Part of the input, not a wait for readiness: a writer that pauses in the middle.
        time::sleep(Duration::from_millis(20)).await;
        file.write_all(rest.as_bytes()).unwrap();
        drop(file);
        watched.expect(attempts).await;
    }
    assert!(watched.rx.try_recv().is_err());
}

#[tokio::test]
async fn a_save_by_rename_is_seen_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cutover.toml");
    fs::write(&path, text(1)).unwrap();
    let mut watched = Watched::start(&path);
    for attempts in 2..5 {
        let new = folder.path().join(".cutover.toml.swp");
        fs::write(&new, text(attempts)).unwrap();
        fs::rename(&new, &path).unwrap();
        watched.expect(attempts).await;
    }
}

#[tokio::test]
async fn a_config_map_swap_is_seen_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let version = |number: u32| {
        let name = format!("..v{number}");
        fs::create_dir(at(&name)).unwrap();
        fs::write(at(&name).join("cutover.toml"), text(number)).unwrap();
        name
    };
    symlink(version(1), at("..data")).unwrap();
    symlink("..data/cutover.toml", at("cutover.toml")).unwrap();
    let mut watched = Watched::start(&at("cutover.toml"));
    for number in 2..5 {
        symlink(version(number), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        fs::remove_dir_all(at(&format!("..v{}", number - 1))).unwrap();
        watched.expect(number).await;
    }
}

/// The poll would hide a deaf watcher from the tests above.
#[tokio::test]
async fn each_way_to_save_gives_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("..v1")).unwrap();
    fs::write(at("..v1").join("linked.toml"), "").unwrap();
    symlink("..v1", at("..data")).unwrap();
    symlink("..data/linked.toml", at("linked.toml")).unwrap();
    fs::write(at("cutover.toml"), "").unwrap();
    fs::create_dir(at("..v2")).unwrap();
    fs::write(at("new"), "").unwrap();
    symlink("..v2", at("..data_tmp")).unwrap();
    let in_place = || fs::write(at("cutover.toml"), "x").unwrap();
    let rename = || fs::rename(at("new"), at("cutover.toml")).unwrap();
    let swap = || fs::rename(at("..data_tmp"), at("..data")).unwrap();
    let ways: [(&str, &dyn Fn()); 3] = [
        ("cutover.toml", &in_place),
        ("cutover.toml", &rename),
        ("linked.toml", &swap),
    ];
    for (file, save) in ways {
        let mut signs = Signs::new();
        signs.watch(&at(file)).await;
        save();
        let event = time::timeout(PATIENCE, signs.events.recv()).await;
        assert_eq!(event, Ok(Some(())), "{file}");
    }
}

#[tokio::test]
async fn sighup_asks_for_a_look() {
    let mut hang_up = HangUp::new();
    let command = format!("kill -HUP {}", std::process::id());
    let status = std::process::Command::new("sh")
        .args(["-c", &command])
        .status();
    assert!(status.unwrap().success());
    time::timeout(PATIENCE, hang_up.received())
        .await
        .expect("no signal in time");
}

#[tokio::test]
async fn a_link_into_another_folder_is_followed() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, file) = (
        here.path().join("link.toml"),
        there.path().join("real.toml"),
    );
    fs::write(&file, text(1)).unwrap();
    symlink(&file, &link).unwrap();
    let real = |folder: &tempfile::TempDir| fs::canonicalize(folder.path()).unwrap();
    assert_eq!(folders_of(&link), [real(&here), real(&there)]);
    let mut watched = Watched::start(&link);
    fs::write(&file, text(2)).unwrap();
    watched.expect(2).await;
}

#[tokio::test]
async fn a_wrong_file_is_told_once_and_the_way_back_is_told_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cutover.toml");
    fs::write(&path, text(1)).unwrap();
    let mut watched = Watched::start(&path);
    watched.save(&text(0));
    let Reloaded::Rejected(faults) = watched.next().await else {
        panic!("a wrong file was taken")
    };
    assert_eq!((faults.len(), faults[0].line), (1, 7));
    // Saved again without a change: nothing to tell, and the next message is the next content.
    watched.save(&text(0));
    watched.save(&text(1));
    watched.expect(1).await;
    fs::remove_file(&path).unwrap();
    let gone = watched.next().await;
    assert!(
        matches!(&gone, Reloaded::Unreadable(why) if why.contains("is gone")),
        "{gone:?}"
    );
    watched.save(&text(1));
    watched.expect(1).await;
    watched.save(&text(3));
    watched.expect(3).await;
}

#[tokio::test]
async fn a_new_content_of_a_key_file_is_a_new_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (
        folder.path().join("cutover.toml"),
        folder.path().join("key"),
    );
    fs::write(&key, "one").unwrap();
    let text = text(1).replace("\"client\"", &format!("\"file:{}\"", key.display()));
    fs::write(&path, text).unwrap();
    let mut watched = Watched::start(&path);
    fs::write(&key, "two").unwrap();
    watched.expect(1).await;
    fs::remove_file(&key).unwrap();
    assert!(matches!(watched.next().await, Reloaded::Rejected(_)));
    fs::write(&key, "two").unwrap();
    watched.expect(1).await;
}

#[tokio::test]
async fn the_watch_ends_with_its_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cutover.toml");
    fs::write(&path, text(1)).unwrap();
    let (tx, rx) = mpsc::channel(1);
    let task = tokio::spawn(watch(path.clone(), load(&path).unwrap().fingerprint, tx));
    drop(rx);
    time::timeout(PATIENCE, task)
        .await
        .expect("still watching")
        .unwrap();
}
