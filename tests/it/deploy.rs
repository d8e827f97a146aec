//! What lies in `deploy/` fits the program: options that it has, configurations that it takes, files that
//! are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(place(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn cutover(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cutover"))
        .args(args)
        .env("RELAY_API_KEY", "sk-relay")
        .env("CUTOVER_ADMIN_TOKEN", "s3cret")
        .env_remove("CUTOVER_CONFIG")
        .output()
        .unwrap()
}

/// The values of a key in a unit file.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let prefix = format!("{key}=");
    unit.lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .collect()
}

/// The command exists with these options; a configuration that is missing is what it complains of.
fn assert_runs(words: &[&str], what: &str) {
    let at = words.iter().position(|word| word.starts_with("/etc/"));
    let mut words: Vec<_> = words.to_vec();
    words[at.expect(what)] = "/nowhere/cutover.toml";
    let output = cutover(&words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // 2 is wrong usage.
    assert_eq!(output.status.code(), Some(3), "{what}: {said}");
    assert!(said.contains("/nowhere/cutover.toml"), "{what}: {said}");
}

#[test]
fn units_start_the_program_with_options_that_it_has() {
    for name in ["cutover.service", "cutover-bridge.service"] {
        let unit = read(&format!("deploy/systemd/{name}"));
        let [start] = values(&unit, "ExecStart")[..] else {
            panic!("{name} has one ExecStart");
        };
        let (program, args) = start.split_once(' ').unwrap();
        assert_eq!(program, "/usr/bin/cutover");
        assert_runs(&args.split(' ').collect::<Vec<_>>(), name);
        for socket in values(&unit, "Sockets")[0].split(' ') {
            assert!(place("deploy/systemd").join(socket).is_file(), "{socket}");
        }
    }
}

#[test]
fn sockets_listen_where_the_defaults_are_and_have_names_that_are_known() {
    let example = read("config/cutover.toml");
    for (name, port) in [("cutover", "proxy"), ("cutover-admin", "admin")] {
        let unit = read(&format!("deploy/systemd/{name}.socket"));
        assert_eq!(values(&unit, "FileDescriptorName"), [port]);
        let listen = values(&unit, "ListenStream")[0];
        assert!(
            example.contains(&format!("# listen = \"{listen}\"")),
            "{listen}"
        );
    }
}

/// Both services must see the same world, or a restart would change it.
#[test]
fn the_bridge_differs_from_the_service_only_in_when_it_runs() {
    let lines = |name: &str| -> Vec<String> {
        let unit = read(&format!("deploy/systemd/{name}"));
        let (_, service) = unit.split_once("[Service]").unwrap();
        let service = service.split("[Install]").next().unwrap();
        let is_setting = |line: &&str| !line.starts_with("Restart") && !line.is_empty();
        service
            .lines()
            .filter(is_setting)
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(lines("cutover.service"), lines("cutover-bridge.service"));
}

/// Runs the script with a `systemctl` that writes down what it is asked, and whose `fails` fails; the service
/// runs or not.
fn restart(fails: &str, runs: bool) -> (Output, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked");
    let answer = u8::from(!runs);
    let fake = format!(
        "#!/bin/sh\necho \"$*\" >> '{}'\ncase \"$*\" in\n*is-active*) exit {answer} ;;\n\
         '{fails}') exit 1 ;;\nesac\n\
         [ '{fails}' != signal ] || [ \"$1\" != restart ] || kill -INT $PPID\n",
        asked.display()
    );
    let fake_path = folder.path().join("systemctl");
    fs::write(&fake_path, fake).unwrap();
    let made = Command::new("chmod").arg("+x").arg(&fake_path).status();
    assert!(made.unwrap().success());
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("sh")
        .arg(place("deploy/systemd/cutover-restart"))
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .output()
        .unwrap();
    let asked = fs::read_to_string(asked).unwrap();
    (output, asked.lines().map(str::to_owned).collect())
}

#[test]
fn the_bridge_is_stopped_however_a_restart_ends_unless_it_alone_serves() {
    const RESTART: &str = "restart cutover.service";
    for (fails, runs, succeeds) in [
        ("", true, true),
        ("start cutover-bridge.service", true, false),
        (RESTART, true, false),
        (RESTART, false, false),
        ("signal", true, false),
        ("signal", false, false),
    ] {
        let (output, asked) = restart(fails, runs);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), succeeds, "{fails} {runs}: {said}");
        assert_eq!(asked[0], "start cutover-bridge.service");
        let stops = asked.last().unwrap() == "stop cutover-bridge.service";
        assert_eq!(stops, runs, "{fails} {runs}: {asked:?}");
        assert_eq!(said.contains("goes on in its place"), !runs, "{said}");
    }
}

/// The block under `key: |`, without its indent.
fn block<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let mut lines = yaml.lines();
    let start = lines
        .find(|line| line.trim() == format!("{key}: |"))
        .unwrap();
    let indent = start.len() - start.trim_start().len() + 2;
    lines
        .take_while(|line| line.is_empty() || line.len() - line.trim_start().len() >= indent)
        .map(|line| line.get(indent..).unwrap_or_default())
        .collect()
}

fn text_has_relay(path: &Path) -> bool {
    fs::read_to_string(path)
        .unwrap()
        .contains("danger-open-relay = true")
}

#[test]
fn every_configuration_that_is_shipped_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "sk-relay").unwrap();
    let config_map = block(&read("deploy/kubernetes/configmap.yaml"), "cutover.toml").join("\n");
    let package = read("deploy/debian/cutover.toml");
    let credential = "$CREDENTIALS_DIRECTORY/keys_relay-api-key";
    assert!(package.contains(credential));
    for (name, text) in [
        ("kubernetes", config_map),
        ("docker", read("deploy/docker/config/cutover.toml")),
        (
            "debian",
            package.replace(credential, &key.display().to_string()),
        ),
    ] {
        let path = folder.path().join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        let output = cutover(&["check", "--config", &path.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {said}");
        // A relay that is meant to be open is warned of, and nothing else.
        let warnings = usize::from(text_has_relay(&path));
        assert_eq!(said.matches(".toml:").count(), warnings, "{name}: {said}");
    }
}

/// The words of a JSON array after `before` in a line of its own.
fn words(text: &str, before: &str) -> Vec<String> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(before));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no `{before}`"))).unwrap()
}

#[test]
fn the_image_is_built_from_what_there_is_and_runs_what_the_program_knows() {
    let dockerfile = read("deploy/docker/Dockerfile");
    let manifest = read("Cargo.toml");
    let toolchain = values(&manifest.replace(" = ", "="), "rust-version")[0].replace('"', "");
    assert!(dockerfile.contains(&format!("FROM rust:{toolchain}-bookworm AS build")));
    assert!(
        dockerfile.contains("--bin cutover") && manifest.contains("[[bin]]\nname = \"cutover\"")
    );
    // The line of the health check begins with CMD as well, indented.
    let commands: Vec<Vec<String>> = dockerfile
        .lines()
        .filter_map(|line| line.trim().strip_prefix("CMD "))
        .map(|words| serde_json::from_str(words).unwrap())
        .collect();
    let [health, run] = &commands[..] else {
        panic!("a health check and a command: {commands:?}");
    };
    assert_runs(&run.iter().map(String::as_str).collect::<Vec<_>>(), "CMD");
    assert_eq!(health[0], "/usr/bin/cutover");
    // A port that nobody listens on: 3 is a daemon that cannot be reached, 2 would be wrong usage.
    let mut args: Vec<_> = health[1..].iter().map(String::as_str).collect();
    let at = args
        .iter()
        .position(|word| *word == "127.0.0.1:8081")
        .unwrap();
    args[at] = "127.0.0.1:1";
    assert_eq!(cutover(&args).status.code(), Some(3));
}

#[test]
fn manifests_and_package_name_files_and_options_that_exist() {
    let manifest: Vec<String> = read("Cargo.toml")
        .lines()
        .filter(|line| line.trim_start().starts_with("[\""))
        .map(|line| line.trim().trim_end_matches(',').to_owned())
        .collect();
    assert!(manifest.len() >= 12, "{manifest:?}");
    for asset in manifest {
        let asset: Vec<String> = serde_json::from_str(&asset).unwrap();
        let (folder, name) = asset[0].rsplit_once('/').unwrap_or((".", &asset[0]));
        // What the program makes itself is there after `make deb`.
        let is_made = folder.starts_with("target/");
        let is_there = name.starts_with("*.") || place(&asset[0]).is_file();
        assert!(is_made || (place(folder).is_dir() && is_there), "{asset:?}");
    }
    let resources: Value = {
        let text = read("deploy/kubernetes/kustomization.yaml");
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- "));
        names.map(|name| Value::from(name.to_owned())).collect()
    };
    for name in resources.as_array().unwrap() {
        read(&format!("deploy/kubernetes/{}", name.as_str().unwrap()));
    }
    let deployment = read("deploy/kubernetes/deployment.yaml");
    let args = words(&deployment, "args: ");
    assert_runs(&args.iter().map(String::as_str).collect::<Vec<_>>(), "args");
}
