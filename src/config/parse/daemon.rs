//! The tables of the daemon itself: `[proxy]`, `[admin]`, `[store]`.
//!
//! Reads values and fills in defaults; rules that span tables are in `checks`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use http::HeaderName;

use super::super::raw::{Field, Reader, Section, Wrong};
use super::super::{AdminConfig, ProxyConfig, RequestRows, StoreConfig};
use super::{defaults, leaf, secret, tls};

/// A key that DESIGN promises and that nothing behind it exists for yet.
pub(super) fn not_built(reader: &mut Reader<'_>, section: &Section<'_>, key: &str, what: &str) {
    if let Some(field) = section.get(key) {
        let wrong = Wrong::new(format!("{what} is not built yet"), "remove it");
        reader.fault(&field.place, wrong);
    }
}

pub(super) fn proxy(reader: &mut Reader<'_>, root: &Section<'_>) -> ProxyConfig {
    let section = reader.section(root, "proxy", "proxy");
    not_built(
        reader,
        &section,
        "clients",
        "a list of clients with their own keys",
    );
    let flag = |reader: &mut Reader<'_>, key: &str, default: bool| {
        reader.read(&section, key, leaf::boolean).unwrap_or(default)
    };
    let max_body_bytes = reader
        .read(&section, "max-body", leaf::bytes)
        .unwrap_or(defaults::MAX_BODY_BYTES);
    ProxyConfig {
        allow_override: flag(reader, "allow-override", false),
        response_headers: flag(reader, "response-headers", defaults::RESPONSE_HEADERS),
        truncation_event: flag(reader, "truncation-event", defaults::TRUNCATION_EVENT),
        danger_open_relay: flag(reader, "danger-open-relay", false),
        listen: reader
            .read(&section, "listen", leaf::socket)
            .unwrap_or(defaults::PROXY_LISTEN),
        tls: tls::listener(reader, &section),
        max_body_bytes,
        replay_body_bytes: reader
            .read(&section, "replay-body", leaf::bytes)
            .unwrap_or_else(|| defaults::REPLAY_BODY_BYTES.min(max_body_bytes)),
        workers: reader
            .read(&section, "workers", |field| count(field, 0, 1024))
            .and_then(NonZeroUsize::new)
            .unwrap_or_else(default_workers),
        max_connections: reader
            .read(&section, "max-connections", |field| {
                count(field, 1, 1_000_000)
            })
            .and_then(NonZeroUsize::new)
            .or(NonZeroUsize::new(defaults::MAX_CONNECTIONS))
            .unwrap_or(NonZeroUsize::MIN),
        keep_alive: reader
            .read(&section, "keep-alive", leaf::positive_duration)
            .unwrap_or(defaults::KEEP_ALIVE),
        client_stall: reader
            .read(&section, "client-stall", leaf::positive_duration)
            .unwrap_or(defaults::CLIENT_STALL),
        drain: reader
            .read(&section, "drain", leaf::duration)
            .unwrap_or(defaults::DRAIN),
        learned_ids_ttl: reader
            .read(&section, "learned-ids-ttl", leaf::positive_duration)
            .unwrap_or(defaults::LEARNED_IDS_TTL),
        tag_header: reader.read(&section, "tag-header", tag_header),
        drain_after_disconnect: reader
            .read(&section, "drain-after-disconnect", drain_after_disconnect)
            .unwrap_or_default(),
    }
}

/// A header whose values go into the store and the log: none that carries a credential.
fn tag_header(field: &Field<'_>) -> Result<HeaderName, Wrong> {
    const CREDENTIALS: [&str; 7] = [
        "authorization",
        "cookie",
        "key",
        "password",
        "secret",
        "set-cookie",
        "token",
    ];
    // `x-api-key`, `x-goog-api-key`, `x-auth-token`, `proxy-authorization` ...
    const ENDS: [&str; 5] = ["-authorization", "-cookie", "-key", "-secret", "-token"];
    let remedy = "write the name of a header of your own, like \"x-team\"";
    let name = HeaderName::from_bytes(leaf::text(field)?.trim().as_bytes())
        .map_err(|_| Wrong::new("this is no name of a header", remedy))?;
    let is_credential =
        CREDENTIALS.contains(&name.as_str()) || ENDS.iter().any(|end| name.as_str().ends_with(end));
    if is_credential {
        return Err(Wrong::new(
            "this header carries a credential, which must not be stored",
            remedy,
        ));
    }
    Ok(name)
}

/// Longer drains would pay for whole answers that nobody reads.
fn drain_after_disconnect(field: &Field<'_>) -> Result<Duration, Wrong> {
    let time = leaf::duration(field)?;
    if time > defaults::DRAIN_AFTER_DISCONNECT_MOST {
        return Err(Wrong::new(
            "a drain of more than ten minutes",
            "write at most \"10m\"",
        ));
    }
    Ok(time)
}

fn count(field: &Field<'_>, least: u64, most: u64) -> Result<usize, Wrong> {
    leaf::whole(field, least, most).map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}

fn default_workers() -> NonZeroUsize {
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(defaults::MOST_WORKERS).map_or(cores, |most| cores.min(most))
}

pub(super) fn admin(reader: &mut Reader<'_>, root: &Section<'_>) -> AdminConfig {
    let section = reader.section(root, "admin", "admin");
    AdminConfig {
        listen: reader
            .read(&section, "listen", leaf::socket)
            .unwrap_or(defaults::ADMIN_LISTEN),
        token: section
            .get("token")
            .and_then(|field| secret::secret(reader, &field)),
    }
}

pub(super) fn store(reader: &mut Reader<'_>, root: &Section<'_>) -> StoreConfig {
    let section = reader.section(root, "store", "store");
    let words = [
        ("all", RequestRows::All),
        ("failures", RequestRows::Failures),
        ("none", RequestRows::None),
    ];
    StoreConfig {
        path: reader
            .read(&section, "url", store_path)
            .unwrap_or_else(|| PathBuf::from(defaults::STORE_PATH)),
        retention: reader
            .read(&section, "retention", leaf::positive_duration)
            .unwrap_or(defaults::RETENTION),
        requests: reader
            .read(&section, "requests", |field| leaf::word(field, &words))
            .unwrap_or(RequestRows::All),
    }
}

fn store_path(field: &Field<'_>) -> Result<PathBuf, Wrong> {
    let text = leaf::text(field)?;
    let remedy = "write \"sqlite:\" and the path of a file, like \"sqlite:cutover.db\"";
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Err(Wrong::new(
            "a store shared by several replicas (PostgreSQL) is not built yet",
            remedy,
        ));
    }
    let path = text
        .strip_prefix("sqlite:")
        .ok_or_else(|| Wrong::new("this is no address of a store", remedy))?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path == ":memory:" || path.contains(['?', '\0']) {
        return Err(Wrong::new("the store must be a plain file", remedy));
    }
    Ok(PathBuf::from(path))
}
