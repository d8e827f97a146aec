//! `[[proxy.clients]]`: who may use the proxy, and the rules that come with it.
//!
//! Reads values and notes faults. The one rule of weight: as soon as there are clients, what they send is a key
//! to cutover, so no arm may be sent it.

use std::str::FromStr;

use super::super::clients::{ClientConfig, KeyHash, Rate, is_name};
use super::super::raw::{Field, Reader, Section, Wrong};
use super::super::{Config, Credential};
use super::{defaults, leaf};
use crate::arm::Arm;

/// All that are written and right.
pub(super) fn clients(reader: &mut Reader<'_>, proxy: &Section<'_>) -> Vec<ClientConfig> {
    let Some(field) = proxy.get("clients") else {
        return Vec::new();
    };
    let Some(elements) = field.elements() else {
        reader.fault(&field.place, field.expected("[[proxy.clients]]"));
        return Vec::new();
    };
    if elements.is_empty() {
        // It would look like a proxy that is closed to all, and be one that is open to all.
        let wrong = Wrong::new(
            "an empty list of clients would ask nobody for a key",
            "remove the line, or add a client: cutover client add NAME",
        );
        reader.fault(&field.place, wrong);
    }
    if elements.len() > defaults::CLIENTS_MOST {
        let problem = format!("more than {} clients", defaults::CLIENTS_MOST);
        reader.fault(&field.place, Wrong::new(problem, "remove some"));
    }
    let mut clients: Vec<ClientConfig> = Vec::new();
    for element in &elements {
        if let Some(client) = client(reader, element, &clients) {
            clients.push(client);
        }
    }
    clients
}

fn client(
    reader: &mut Reader<'_>,
    element: &Field<'_>,
    before: &[ClientConfig],
) -> Option<ClientConfig> {
    let section = reader.open(element, "proxy.clients");
    element.value.as_table()?;
    for (key, remedy) in [
        ("name", "add name = \"app\""),
        (
            "key-hash",
            "`cutover client add NAME` makes a key and prints its hash",
        ),
    ] {
        if section.get(key).is_none() {
            let wrong = Wrong::new(format!("a client needs its {key}"), remedy);
            reader.fault(&section.place, wrong);
        }
    }
    let rate = reader.read(&section, "rate", rate);
    let name = reader.read(&section, "name", name);
    let key_hash = reader.read(&section, "key-hash", key_hash);
    if let Some(name) = &name
        && before.iter().any(|other| other.name == *name)
    {
        let wrong = Wrong::new(
            format!("a second client called \"{name}\""),
            "give each [[proxy.clients]] a name of its own",
        );
        reader.fault(&section.place_of("name"), wrong);
    }
    if let Some(hash) = &key_hash
        && let Some(other) = before.iter().find(|other| other.key_hash == *hash)
    {
        let wrong = Wrong::new(
            format!("the same key as client \"{}\"", other.name),
            "give each client a key of its own: cutover client add NAME",
        );
        reader.fault(&section.place_of("key-hash"), wrong);
    }
    Some(ClientConfig {
        name: name?,
        key_hash: key_hash?,
        rate,
    })
}

fn name(field: &Field<'_>) -> Result<String, Wrong> {
    let name = leaf::text(field)?;
    if is_name(&name) {
        Ok(name)
    } else {
        Err(Wrong::new(
            "a client's name goes into metrics and scripts",
            "use 1 to 64 of a-z, 0-9, - and _",
        ))
    }
}

/// Never quotes what is there: it may be the key itself.
fn key_hash(field: &Field<'_>) -> Result<KeyHash, Wrong> {
    let remedy = "write \"sha256:\" and 64 hexadecimal digits; `cutover client hash` makes it from a key. \
                  If a key stood here, it is known to all who can read this file: make another one";
    let text = leaf::text(field)?;
    KeyHash::from_str(&text).map_err(|problem| Wrong::new(problem, remedy))
}

fn rate(field: &Field<'_>) -> Result<Rate, Wrong> {
    let what = "a rate like \"100/s\" or \"600/min\"";
    let text = field.value.as_str().ok_or_else(|| field.expected(what))?;
    text.parse().map_err(|_| {
        Wrong::new(
            "this is no rate",
            format!("write {what}, at most \"1000000/s\""),
        )
    })
}

/// The rules that need the other tables.
pub(super) fn check(reader: &mut Reader<'_>, root: &Section<'_>, config: &Config) {
    let proxy = &config.proxy;
    if root.find(&["proxy", "clients"]).is_none() {
        return;
    }
    for arm in Arm::BOTH {
        let written = root.find(&["arms", arm.as_str(), "api-key"]);
        // A canary without a key, and a secret that cannot be read, have faults of their own.
        let is_told = reader.faults.iter().any(|fault| {
            fault.path == format!("arms.{arm}.api-key") || fault.path == format!("arms.{arm}")
        });
        if config.arms.get(arm).credential != Credential::Client || is_told {
            continue;
        }
        let place = written
            .or_else(|| root.find(&["arms", arm.as_str()]))
            .unwrap_or_else(|| root.place_of("arms"));
        let problem = "what clients send is their key to cutover ([[proxy.clients]]), which no provider may see";
        let remedy = format!(
            "add api-key = \"env:NAME\" (or \"file:PATH\") under [arms.{arm}] with a key of {arm}'s own; \
             any text will do where the provider asks for none"
        );
        reader.fault(
            &place,
            Wrong::new(format!("no key for {arm}: {problem}"), remedy),
        );
    }
    if !proxy.listen.ip().is_loopback() && root.find(&["proxy", "tls"]).is_none() {
        let place = root
            .find(&["proxy", "listen"])
            .unwrap_or_else(|| root.place_of("proxy"));
        reader.warn(
            &place,
            "clients' keys travel unencrypted",
            "add tls = { cert = \"cert.pem\", key = \"key.pem\" }, or let only your own network reach it",
        );
    }
}
