//! The keys that the file may have, and what was meant by one that it may not.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

/// Every table and its keys: the whole grammar of the file. Free tables (`models`, `prices`, `model-timeouts`, `headers`) have no entry.
pub(in crate::config) const TABLES: [(&str, &[&str]); 18] = [
    (
        "",
        &[
            "proxy", "admin", "store", "arms", "rollout", "alerts", "budget", "traces",
        ],
    ),
    (
        "proxy",
        &[
            "listen",
            "tls",
            "max-body",
            "replay-body",
            "allow-override",
            "response-headers",
            "truncation-event",
            "danger-open-relay",
            "clients",
            "workers",
            "max-connections",
            "keep-alive",
            "client-stall",
            "drain",
            "learned-ids-ttl",
            "tag-header",
            "drain-after-disconnect",
        ],
    ),
    ("proxy.tls", &["cert", "key"]),
    ("admin", &["listen", "token"]),
    ("store", &["url", "retention", "requests"]),
    ("arms", &["legacy", "canary"]),
    (
        "arms.*",
        &[
            "base-url",
            "api-key",
            "models",
            "timeouts",
            "model-timeouts",
            "prices",
            "ca-file",
            "http",
            "max-concurrency",
            "queue",
            "include-usage",
        ],
    ),
    (
        "arms.*.timeouts",
        &[
            "connect",
            "first-byte",
            "idle",
            "total",
            "tokens-per-second",
        ],
    ),
    (
        "arms.*.model-timeouts.*",
        &["first-byte", "idle", "total", "tokens-per-second"],
    ),
    (
        "arms.*.prices.*",
        &[
            "input",
            "cached-input",
            "cache-write",
            "cache-write-1h",
            "output",
        ],
    ),
    (
        "rollout",
        &[
            "name",
            "match",
            "sticky",
            "warm-up",
            "stages",
            "on-harm",
            "confidence",
            "promote-confidence",
            "trip",
            "retreat",
            "cooldown",
            "max-attempts",
            "failover",
            "guards",
        ],
    ),
    ("rollout.match", &["models", "paths"]),
    ("rollout.stages", &["weight", "dwell", "approve", "shadow"]),
    ("rollout.trip", &["cooldown", "max-per-day"]),
    ("alerts", &["webhooks", "held-after"]),
    ("alerts.webhooks", &["url", "format", "key", "events"]),
    ("budget", &["name", "usd-per-day", "arm", "model", "tag"]),
    ("traces", &["endpoint", "headers", "share"]),
];

/// The known keys of a table.
pub(super) fn keys_of(name: &str) -> &'static [&'static str] {
    TABLES
        .iter()
        .find(|(table, _)| *table == name)
        .map_or(&[], |(_, keys)| keys)
}

/// What to do about an unknown key: the nearest known one, the table it belongs to, or all known ones.
pub(super) fn unknown_key_remedy(name: &str, nearest: Option<&str>, known: &[&str]) -> String {
    if let Some(nearest) = nearest {
        return format!("did you mean \"{nearest}\"?");
    }
    let elsewhere = TABLES.iter().find(|(_, keys)| keys.contains(&name));
    match elsewhere {
        Some(("", _)) => format!("[{name}] is a table of its own, at the top level"),
        Some(("rollout", _)) => {
            "it belongs directly under [[rollout]], above [rollout.guards]".to_owned()
        }
        Some(("budget", _)) => "it belongs under [[budget]]".to_owned(),
        Some((table, _)) => format!("it belongs under [{table}]"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The known key that `name` was most likely meant to be.
pub(in crate::config) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_lowercase().replace('_', "-");
    // A name far longer than any key is no slip of the finger, and comparing takes quadratic time.
    if name.len() > 64 {
        return None;
    }
    let limit = (name.chars().count() / 3).max(1);
    known
        .iter()
        .map(|key| (strsim::damerau_levenshtein(&name, key), *key))
        .filter(|(distance, key)| {
            *distance <= limit || (name.len() >= 3 && key.ends_with(&format!("-{name}")))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_likely_one_or_none() {
        let check = |table: &str, name: &str, expected: Option<&str>| {
            assert_eq!(nearest(name, keys_of(table)), expected, "{name}");
        };
        check("arms.*", "api_key", Some("api-key"));
        check("arms.*", "url", Some("base-url"));
        check("arms.*", "Timeout", Some("timeouts"));
        check("rollout", "promote-confidance", Some("promote-confidence"));
        check("store", "retension", Some("retention"));
        check("store", "colour", None);
        check("store", &"x".repeat(100_000), None);
    }
}
