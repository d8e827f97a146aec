//! `proxy.tls`: the two files, read and checked when the configuration is read.
//!
//! Their contents count as part of the configuration, so a renewed certificate is a new configuration, and
//! a broken one is rejected like any other fault. Never repeats what a file holds.

use std::fs;
use std::path::PathBuf;

use super::super::listener_tls::{ListenerTls, Pem};
use super::super::raw::{Field, Reader, Section, Wrong};
use super::leaf;

/// Larger files are neither a chain nor a key.
const LARGEST_FILE: u64 = 1 << 20;

/// The certificate that clients see; `None` without the key, or after a fault.
pub(super) fn listener(reader: &mut Reader<'_>, proxy: &Section<'_>) -> Option<ListenerTls> {
    let field = proxy.get("tls")?;
    let section = reader.open(&field, "proxy.tls");
    field.value.as_table()?;
    let cert = file(reader, &section, "cert", "the certificate chain");
    let key = file(reader, &section, "key", "its private key");
    match ListenerTls::new(cert?, key?) {
        Ok(tls) => Some(tls),
        Err(unfit) => {
            let wrong = Wrong::new(unfit.problem, unfit.remedy);
            reader.fault(&section.place_of(unfit.key), wrong);
            None
        }
    }
}

fn file(reader: &mut Reader<'_>, section: &Section<'_>, key: &str, what: &str) -> Option<Pem> {
    let Some(field) = section.get(key) else {
        let remedy = format!("add {key} = \"{key}.pem\", the file of {what}");
        reader.fault(&section.place, Wrong::new(format!("no {key}"), remedy));
        return None;
    };
    let (path, content) = reader.take(&field, read)?;
    reader.hash.update(&content.len().to_le_bytes());
    reader.hash.update(&content);
    Some((path, content))
}

fn read(field: &Field<'_>) -> Result<Pem, Wrong> {
    let path = PathBuf::from(leaf::text(field)?);
    let shown = path.display();
    let remedy = "name a PEM file that cutover may read";
    let unreadable = |error| Wrong::new(format!("cannot read {shown}: {error}"), remedy);
    let found = fs::metadata(&path).map_err(unreadable)?;
    // Pipes and devices could keep us waiting for ever.
    if !found.is_file() || found.len() > LARGEST_FILE {
        return Err(Wrong::new(
            format!("{shown} is no file of at most 1 MiB"),
            remedy,
        ));
    }
    let content = fs::read(&path).map_err(unreadable)?;
    Ok((path, content))
}
