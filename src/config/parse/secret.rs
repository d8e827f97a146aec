//! Secrets: `env:NAME` and `file:PATH`, looked up when the configuration is read.
//!
//! May read key files. Never repeats what it found, or what was written in place of a reference.

use std::fs;

use super::super::raw::{Field, Reader, Wrong};
use super::super::values::Secret;

/// Larger files hold no key.
const LARGEST_FILE: u64 = 64 << 10;

/// The secret that `field` refers to; a text written in place of a reference is a fault.
pub(super) fn secret(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Secret> {
    match look_up(reader, field) {
        Ok(Some(secret)) => Some(secret),
        Ok(None) => {
            let wrong = Wrong::new(
                "a secret must not stand in the file",
                "write \"env:NAME\" for an environment variable or \"file:PATH\" for a file that holds it",
            );
            reader.fault(&field.place, wrong);
            None
        }
        Err(wrong) => {
            reader.fault(&field.place, wrong);
            None
        }
    }
}

/// The secret behind `env:` or `file:`; `None` if the text begins with neither.
pub(super) fn look_up(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<Option<Secret>, Wrong> {
    let text = field
        .value
        .as_str()
        .ok_or_else(|| field.expected("\"env:NAME\" or \"file:PATH\""))?;
    let (found, remedy) = if let Some(name) = text.strip_prefix("env:") {
        (from_env(reader, name), format!("set {name} and try again"))
    } else if let Some(path) = text.strip_prefix("file:") {
        let remedy = format!("write the secret into {path}, readable for cutover");
        (from_file(reader, path), remedy)
    } else {
        return Ok(None);
    };
    // A secret that changes, appears or goes counts as a change of the configuration.
    let hashed = found.as_deref().unwrap_or_default();
    reader.hash.update(&hashed.len().to_le_bytes());
    reader.hash.update(hashed.as_bytes());
    let found = found.map_err(|problem| Wrong::new(problem, remedy.clone()))?;
    let secret = found.trim();
    if secret.is_empty() {
        return Err(Wrong::new(format!("{text} is empty"), remedy));
    }
    if !secret.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Wrong::new(
            format!("{text} holds a character that cannot be sent in a header"),
            "keep one line of plain ASCII there, without quotes",
        ));
    }
    Ok(Some(Secret::new(secret)))
}

fn from_env(reader: &Reader<'_>, name: &str) -> Result<String, String> {
    // The environment panics or lies for such names.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("env: names no environment variable".to_owned());
    }
    (reader.env)(name).ok_or_else(|| format!("the environment variable {name} is not set"))
}

/// A path may begin with the folder in which a service manager shows credentials, which has another name for
/// each unit.
fn from_file(reader: &Reader<'_>, path: &str) -> Result<String, String> {
    let credential = match path.strip_prefix("$CREDENTIALS_DIRECTORY/") {
        Some(name) => {
            let folder = from_env(reader, "CREDENTIALS_DIRECTORY")?;
            Some(format!("{folder}/{name}"))
        }
        None => None,
    };
    let path = credential.as_deref().unwrap_or(path);
    let size = fs::metadata(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    // Pipes and devices could keep us waiting for ever.
    if !size.is_file() || size.len() > LARGEST_FILE {
        return Err(format!("{path} is no file of at most 64 KiB"));
    }
    fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}
