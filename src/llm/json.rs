//! A view of JSON that copies nothing: members and elements as raw text, read only where asked.
//!
//! Lenient by design: a value of an unexpected type reads as absent, and what came before a fault in
//! the text has already been reported. Pure; never recurses, so depth is no danger.
#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Calls `each` with the name and the raw value of every member of an object, in order.
/// False if the text is not one whole object.
pub(super) fn members<'a>(json: &'a [u8], each: impl FnMut(&str, &'a str)) -> bool {
    let mut reader = serde_json::Deserializer::from_slice(json);
    reader.deserialize_map(Members(each)).is_ok() && reader.end().is_ok()
}

/// Calls `each` with the raw text of every element of an array until it breaks off.
pub(super) fn elements<'a>(json: &'a str, each: impl FnMut(&'a str) -> ControlFlow<()>) {
    // A text that is no array has no elements: there is nobody to tell about it.
    drop(serde_json::Deserializer::from_str(json).deserialize_seq(Elements(each)));
}

/// Calls `each` with every JSON value of a text that may hold several in a row. False if there was none.
pub(super) fn documents<'a>(json: &'a [u8], mut each: impl FnMut(&'a [u8])) -> bool {
    let mut any = false;
    let values = serde_json::Deserializer::from_slice(json).into_iter::<&'a RawValue>();
    for value in values.map_while(Result::ok) {
        any = true;
        each(value.get().as_bytes());
    }
    any
}

/// The raw value of one member of an object; the last one when the name is repeated.
pub(super) fn member<'a>(json: &'a [u8], name: &str) -> Option<&'a str> {
    let mut found = None;
    members(json, |key, value| {
        if key == name {
            found = Some(value);
        }
    });
    found
}

/// The text of a raw string value; borrowed unless it holds escapes.
pub(super) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// True for a string that is not empty; cheaper than [`text`].
pub(super) fn is_text(raw: &str) -> bool {
    raw.len() > 2 && raw.starts_with('"')
}

/// True for anything but `null`, `false`, `""`, `{}`, `[]`.
pub(super) fn is_set(raw: &str) -> bool {
    let empty = |open, close| {
        raw.strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
            .is_some_and(|inner| inner.trim_ascii().is_empty())
    };
    !matches!(raw, "null" | "false" | "\"\"" | "") && !empty('{', '}') && !empty('[', ']')
}

/// A whole number of 0 or more.
pub(super) fn uint(raw: &str) -> Option<u64> {
    serde_json::from_str(raw).ok()
}

struct Members<F>(F);

impl<'de, F: FnMut(&str, &'de str)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
            (self.0)(&key, value.get());
        }
        Ok(())
    }
}

struct Elements<F>(F);

impl<'de, F: FnMut(&'de str) -> ControlFlow<()>> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element::<&'de RawValue>()? {
            if (self.0)(value.get()).is_break() {
                return Err(A::Error::custom("seen enough"));
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_raw_and_in_order() {
        let mut seen = Vec::new();
        let whole = members(
            br#" {"a": 1, "\u0062":{"x":[ ]} , "a":"z" } "#,
            |key, raw| {
                seen.push((key.to_owned(), raw.to_owned()));
            },
        );
        assert!(whole);
        let seen: Vec<_> = seen.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(seen, [("a", "1"), ("b", r#"{"x":[ ]}"#), ("a", r#""z""#)]);
    }

    #[test]
    fn what_is_not_one_whole_object_is_said() {
        for text in ["", "[]", "1", "{", r#"{"a":}"#, "{} x", "\u{feff}{}", "nul"] {
            assert!(!members(text.as_bytes(), |_, _| {}), "{text}");
        }
        assert!(!members(b"{\"a\":\"\xff\"}", |_, _| {}));
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(members(deep.as_bytes(), |_, _| {}));
    }

    #[test]
    fn empty_values_are_not_set() {
        for raw in ["null", "false", "\"\"", "{}", "[ ]", "{\n}"] {
            assert!(!is_set(raw), "{raw}");
        }
        for raw in ["0", "true", "\"x\"", "{\"a\":1}", "[1]"] {
            assert!(is_set(raw), "{raw}");
        }
    }
}
