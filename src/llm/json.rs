//! A view of JSON that copies nothing: members and elements as raw text, read only where asked.
//!
//! Lenient by design: a value of an unexpected type reads as absent, and what came before a fault in
//! the text has already been reported. Pure; never recurses, so depth is no danger.
#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::value::RawValue;

use scan::Scan;

mod scan;

/// Calls `each` with the name and the raw value of every member of an object, in order.
/// False if the text is not one whole object.
pub(super) fn members<'a>(json: &'a [u8], each: impl FnMut(&str, &'a str)) -> bool {
    match std::str::from_utf8(json) {
        Ok(text) => fields(text, each),
        Err(fault) => {
            // What stands before the fault is reported; what the fault stands in cannot be whole.
            let before = json.get(..fault.valid_up_to()).unwrap_or_default();
            fields(std::str::from_utf8(before).unwrap_or_default(), each);
            false
        }
    }
}

/// The same for what is known to be text, as every raw value is.
pub(super) fn fields<'a>(json: &'a str, mut each: impl FnMut(&str, &'a str)) -> bool {
    let mut scan = Scan::new(json);
    if !scan.takes(b'{') {
        return false;
    }
    if scan.takes(b'}') {
        return scan.is_at_end();
    }
    loop {
        let Some(key) = scan.string() else {
            return false;
        };
        // Almost no name holds an escape.
        let inner = key.get(1..key.len() - 1).unwrap_or_default();
        let has_escape = memchr::memchr(b'\\', inner.as_bytes()).is_some();
        let name = if has_escape {
            text(key)
        } else {
            Some(Cow::Borrowed(inner))
        };
        let Some(name) = name.filter(|_| scan.takes(b':')) else {
            return false;
        };
        let Some(value) = scan.value() else {
            return false;
        };
        each(&name, value);
        if !scan.takes(b',') {
            return scan.takes(b'}') && scan.is_at_end();
        }
    }
}

/// Calls `each` with the raw text of every element of an array until it breaks off.
pub(super) fn elements<'a>(json: &'a str, mut each: impl FnMut(&'a str) -> ControlFlow<()>) {
    let mut scan = Scan::new(json);
    // A text that is no array has no elements: there is nobody to tell about it.
    if !scan.takes(b'[') || scan.takes(b']') {
        return;
    }
    while let Some(value) = scan.value() {
        if each(value).is_break() || !scan.takes(b',') {
            return;
        }
    }
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
    let bytes = raw.as_bytes();
    // Token counts: few digits, of which the first is no zero.
    let is_plain = matches!(bytes, [b'1'..=b'9', rest @ ..] if rest.len() < 18 && rest.iter().all(u8::is_ascii_digit));
    if is_plain {
        let digits = bytes.iter().map(|digit| u64::from(digit - b'0'));
        return Some(digits.fold(0, |sum, digit| sum * 10 + digit));
    }
    serde_json::from_str(raw).ok()
}

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
