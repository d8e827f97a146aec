//! One more client in a configuration file, without touching what stands there.
//!
//! Only ever appends, and only what makes the whole file a configuration with exactly this client more. A table
//! of `[[proxy.clients]]` may stand anywhere in the file, so its end will do, and comments stay as they are.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use super::clients::ClientConfig;
use super::parse::{self, LoadError};

/// Why a client cannot be added to a file.
#[derive(Debug)]
pub enum AddError {
    /// The file has a client of this name.
    NameTaken,
    /// There is no such file, or with the client it would be no configuration.
    Load(LoadError),
    /// It cannot be written.
    Write(io::Error),
}

/// The lines that name a client.
#[must_use]
pub fn block(client: &ClientConfig) -> String {
    let mut block = format!(
        "[[proxy.clients]]\nname = \"{}\"\nkey-hash = \"{}\"\n",
        client.name, client.key_hash
    );
    if let Some(rate) = client.rate {
        // Writing to a String cannot fail.
        writeln!(block, "rate = \"{rate}\"").ok();
    }
    block
}

/// Looks whether the file would be a configuration with this client more; gives what to append. A secret that is
/// not at hand stands for itself.
///
/// # Errors
/// If the name is taken, or with what would be wrong then.
pub fn check(path: &Path, client: &ClientConfig) -> Result<String, AddError> {
    let text = parse::read_text(path).map_err(AddError::Load)?;
    let env = |name: &str| parse::process_env(name).or(Some(parse::UNSET.to_owned()));
    // What is wrong now may be mended by the client: an open relay.
    let before = parse::parse(&text, &env).map(|parsed| parsed.config.proxy.clients);
    if before.is_ok_and(|clients| clients.iter().any(|other| other.name == client.name)) {
        return Err(AddError::NameTaken);
    }
    let line_end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let appended = format!("{line_end}\n{}", block(client));
    parse::parse(&(text + &appended), &env).map_err(|faults| {
        AddError::Load(LoadError::Invalid {
            path: path.to_owned(),
            faults,
        })
    })?;
    Ok(appended)
}

/// Adds the client at the end of the file.
///
/// # Errors
/// As [`check`], and if the file cannot be written.
pub fn add(path: &Path, client: &ClientConfig) -> Result<(), AddError> {
    let appended = check(path, client)?;
    // In place, so that owner, permissions and links stay; in one piece, so that nobody reads half of it.
    let mut file = OpenOptions::new()
        .append(true)
        .open(path)
        .map_err(AddError::Write)?;
    file.write_all(appended.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(AddError::Write)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::clients::KeyHash;

    const BASE: &str = "# mine\n[proxy]\nlisten = \"0.0.0.0:8080\" # all\n\
        [arms.legacy]\nbase-url = \"https://a.example.com\"\napi-key = \"env:CUTOVER_TEST_UNSET\"\n\
        [arms.canary]\nbase-url = \"https://b.example.com\"\napi-key = \"env:CUTOVER_TEST_UNSET\"\n\
        [[rollout]]\nwarm-up = 5";

    fn client(name: &str, rate: Option<&str>) -> ClientConfig {
        ClientConfig {
            name: name.to_owned(),
            key_hash: KeyHash::of(name.as_bytes()),
            rate: rate.map(|rate| rate.parse().unwrap()),
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cutover.toml");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_client_is_added_at_the_end_and_nothing_else_changes() {
        // An open relay until then.
        let (_folder, path) = file(BASE);
        assert!(parse::load_without_secrets(&path).is_err());
        let (app, batch) = (client("app", Some("100/s")), client("batch", None));
        add(&path, &app).unwrap();
        add(&path, &batch).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            format!("{BASE}\n\n{}\n{}", block(&app), block(&batch))
        );
        let parsed = parse::load_without_secrets(&path).unwrap();
        assert_eq!(parsed.config.proxy.clients, [app, batch]);
        assert_eq!(parsed.config.rollouts[0].policy.warm_up_requests, 5);
    }

    #[test]
    fn a_file_that_would_be_wrong_then_is_left_alone() {
        let one = format!("{BASE}\n{}", block(&client("app", None)));
        let cases = [
            (one.clone(), "taken"),
            (
                BASE.replacen("api-key = \"env:CUTOVER_TEST_UNSET\"\n", "", 1),
                "no key for legacy",
            ),
            (
                BASE.replace("# all", "\nclients = [{ name = \"a\", key-hash = \"b\" }]"),
                "not TOML",
            ),
            (BASE.replace("warm-up", "warm"), "unknown key"),
        ];
        for (text, expected) in cases {
            let (_folder, path) = file(&text);
            let said = match add(&path, &client("app", None)) {
                Err(AddError::NameTaken) => "taken".to_owned(),
                Err(AddError::Load(error)) => error.to_string(),
                other => panic!("{other:?}"),
            };
            assert!(said.contains(expected), "{expected}: {said}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
