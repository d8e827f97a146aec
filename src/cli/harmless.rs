//! Text from outside made harmless for a terminal: model names, upstream ids and reasons may hold anything.
//!
//! Pure. An escape sequence could move the cursor, fake a line or set the window's title; a bidirectional
//! override could turn a number round. They are shown as `\u{1b}`, so that people see that they are there.
#![deny(clippy::disallowed_methods)]

use serde_json::Value;

/// Characters that a terminal acts upon, or that change the order of others.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        )
        || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// One line without anything that a terminal acts upon.
pub(super) fn line(text: &str) -> String {
    escaped(text, false)
}

/// The same, but line breaks stay: for texts of several lines, such as faults in a configuration.
pub(super) fn lines(text: &str) -> String {
    escaped(text, true)
}

fn escaped(text: &str, keeps_lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) && !(keeps_lines && c == '\n') {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// An answer of the admin API for people: every text in it is harmless. The faults of a configuration
/// keep their lines.
pub(super) fn answer(value: Value) -> Value {
    tamed(value, false)
}

fn tamed(value: Value, keeps_lines: bool) -> Value {
    match value {
        Value::String(text) => Value::String(escaped(&text, keeps_lines)),
        Value::Array(values) => values.into_iter().map(|v| tamed(v, keeps_lines)).collect(),
        Value::Object(fields) => {
            let tame = |(name, value): (String, Value)| {
                let keeps_lines = keeps_lines || name == "config";
                (escaped(&name, false), tamed(value, keeps_lines))
            };
            Value::Object(fields.into_iter().map(tame).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// JSON that means the same and holds no such character. JSON itself escapes only those below a space.
pub(super) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) && c != '\n' {
            // All of them have at most four hexadecimal digits.
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn escapes_line_breaks_and_overrides_become_visible() {
        for (text, expected) in [
            ("gpt-4.1 \u{e9}\u{4e2d}", "gpt-4.1 \u{e9}\u{4e2d}"),
            ("\x1b]0;owned\x07", "\\u{1b}]0;owned\\u{7}"),
            ("a\nSTORE FINE", "a\\u{a}STORE FINE"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("12\u{202e}34", "12\\u{202e}34"),
        ] {
            assert_eq!(line(text), expected);
        }
        assert_eq!(lines("a\n\tb"), "a\n\\u{9}b");
    }

    #[test]
    fn only_the_faults_of_a_configuration_keep_their_lines() {
        let found = answer(json!({
            "config": { "error": "a\n  b\x1b" },
            "rollouts": [{ "reason": "a\nb", "x\x1b": 1 }],
        }));
        let expected = json!({
            "config": { "error": "a\n  b\\u{1b}" },
            "rollouts": [{ "reason": "a\\u{a}b", "x\\u{1b}": 1 }],
        });
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn json_means_the_same_and_holds_nothing_that_acts(text in any::<String>()) {
            let value = json!({ "text": format!("{text}\u{9b}\u{202e}\u{7f}") });
            let shown = json(&format!("{value:#}"));
            prop_assert!(!shown.chars().any(|c| is_harmful(c) && c != '\n'));
            prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
        }
    }
}
