//! The sticky key of a request: the same conversation always hashes to the same number.
//!
//! Pure. The hash must never change between releases: a change would move running conversations to the
//! other arm. It looks at the meaning of the prompt, not at its spelling: order of members, white space,
//! cache marks, the model and later messages do not matter.
#![deny(clippy::disallowed_methods)]

use std::ops::{ControlFlow, Range};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Dialect, RequestFacts, json};

// One seed per kind of key, so that a user "x" and a prompt "x" are different keys.
const CACHE_KEY: u64 = 0x6375_746f_7665_7201;
const USER: u64 = 0x6375_746f_7665_7202;
const PROMPT: u64 = 0x6375_746f_7665_7203;
const FIELD: u64 = 0x6375_746f_7665_7204;
// One seed per kind of JSON value within a prompt.
const TEXT: u64 = 0x6375_746f_7665_7211;
const PLAIN: u64 = 0x6375_746f_7665_7212;
const ARRAY: u64 = 0x6375_746f_7665_7213;
const OBJECT: u64 = 0x6375_746f_7665_7214;
/// Values nested deeper are hashed as they are spelt.
const DEPTH_MAX: u8 = 8;

/// Hash of a key that a header holds.
#[must_use]
pub fn hash_key(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Hash of the request's own key: `prompt_cache_key`, else `user` or `metadata.user_id`, else the system
/// prompt with the first message after it; in this order the first of which `is_none` is not true, for a key
/// that most requests share is none. `None`: there is nothing to hash.
#[must_use]
pub fn sticky_auto(
    dialect: Dialect,
    facts: &RequestFacts<'_>,
    body: &[u8],
    is_none: impl Fn(u64) -> bool,
) -> Option<u64> {
    let cache_key = facts.cache_key.as_deref();
    let named = cache_key.map(|key| xxh3_64_with_seed(key.as_bytes(), CACHE_KEY));
    if let Some(key) = named.filter(|&key| !is_none(key)) {
        return Some(key);
    }
    let user = facts.user.as_deref();
    let named = user.map(|user| xxh3_64_with_seed(user.as_bytes(), USER));
    if let Some(key) = named.filter(|&key| !is_none(key)) {
        return Some(key);
    }
    prompt_key(dialect, facts, body).filter(|&key| !is_none(key))
}

/// Hash of the system prompt with the first message after it.
fn prompt_key(dialect: Dialect, facts: &RequestFacts<'_>, body: &[u8]) -> Option<u64> {
    let prompt = raw_at(body, facts.prompt_span.as_ref())?;
    let mut hash = PROMPT;
    let mut found = false;
    let conversation = !matches!(
        dialect,
        Dialect::OpenAiCompletions | Dialect::OpenAiEmbeddings
    );
    if let Some(system) = raw_at(body, facts.system_span.as_ref())
        && conversation
        && json::is_set(system)
    {
        fold(&mut hash, content(system));
    }
    if conversation && prompt.starts_with('[') {
        json::elements(prompt, |message| {
            found = true;
            let (is_system, message_hash) = read_message(message);
            fold(&mut hash, message_hash);
            if is_system {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
    } else if json::is_set(prompt) {
        found = true;
        fold(&mut hash, content(prompt));
    }
    found.then_some(hash)
}

/// Hash of one member of the body, by its name or by a path with dots; `None` if it is absent or empty.
#[must_use]
pub fn sticky_field(body: &[u8], field: &str) -> Option<u64> {
    let raw = json::member(body, field).or_else(|| {
        let mut names = field.split('.');
        let first = json::member(body, names.next()?)?;
        names.try_fold(first, |raw, name| json::member(raw.as_bytes(), name))
    })?;
    if !json::is_set(raw) {
        return None;
    }
    let text = json::text(raw);
    let bytes = text.as_deref().unwrap_or(raw).as_bytes();
    Some(xxh3_64_with_seed(bytes, FIELD))
}

/// Hash of a whole body, to tell whether it was sent before.
#[must_use]
pub fn hash_body(body: &[u8]) -> u64 {
    xxh3_64(body)
}

fn raw_at<'a>(body: &'a [u8], span: Option<&Range<usize>>) -> Option<&'a str> {
    std::str::from_utf8(body.get(span?.clone())?).ok()
}

fn fold(hash: &mut u64, next: u64) {
    *hash = xxh3_64_with_seed(&next.to_le_bytes(), *hash);
}

/// Whether a message belongs to the system prompt, and the hash of what it says.
fn read_message(raw: &str) -> (bool, u64) {
    let mut is_system = false;
    let mut said = None;
    json::fields(raw, |key, value| match key {
        "role" => is_system = matches!(value, "\"system\"" | "\"developer\""),
        "content" => said = Some(content(value)),
        _ => {}
    });
    (is_system, said.unwrap_or_else(|| value(raw, 0)))
}

/// Hash of a message's content. A text, and a list of one block with that text, are the same.
fn content(raw: &str) -> u64 {
    let mut hash = ARRAY;
    if !raw.starts_with('[') {
        fold(&mut hash, value(raw, 0));
        return hash;
    }
    json::elements(raw, |block| {
        let text = Some(block)
            .filter(|block| block.starts_with('{'))
            .and_then(|block| json::member(block.as_bytes(), "text"))
            .filter(|text| text.starts_with('"'));
        fold(&mut hash, value(text.unwrap_or(block), 0));
        ControlFlow::Continue(())
    });
    hash
}

/// Hash of a value's meaning. Marks for prompt caches move between requests and are left out.
fn value(raw: &str, depth: u8) -> u64 {
    if depth >= DEPTH_MAX {
        return xxh3_64_with_seed(raw.as_bytes(), PLAIN);
    }
    match raw.as_bytes().first() {
        Some(b'"') => match json::text(raw) {
            Some(text) => xxh3_64_with_seed(text.as_bytes(), TEXT),
            None => xxh3_64_with_seed(raw.as_bytes(), PLAIN),
        },
        Some(b'[') => {
            let mut hash = ARRAY;
            json::elements(raw, |element| {
                fold(&mut hash, value(element, depth + 1));
                ControlFlow::Continue(())
            });
            hash
        }
        Some(b'{') => {
            // A sum does not know the order of its parts.
            let mut sum = OBJECT;
            json::fields(raw, |key, member| {
                if key != "cache_control" {
                    let member = value(member, depth + 1).to_le_bytes();
                    let seed = xxh3_64_with_seed(key.as_bytes(), OBJECT);
                    sum = sum.wrapping_add(xxh3_64_with_seed(&member, seed));
                }
            });
            sum
        }
        _ => xxh3_64_with_seed(raw.as_bytes(), PLAIN),
    }
}

#[cfg(test)]
mod tests;
