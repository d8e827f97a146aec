//! Steps over JSON text: finds where values end, and whether they are valid, without building them.
//!
//! Pure. Accepts what `serde_json` accepts when it skips a value, which a property test holds it to. Texts are
//! most of what LLM calls carry, so strings are passed eight bytes at a time.
#![deny(clippy::disallowed_methods)]

/// A place in a text.
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

/// Brackets that are open, innermost last: one bit each, so that ordinary depths need no memory of their own.
#[derive(Default)]
struct Open {
    /// The innermost ones, the last in the lowest bit; set for an object.
    near: u64,
    near_count: u32,
    /// Full words of those further out.
    far: Vec<u64>,
}

impl Open {
    fn push(&mut self, is_object: bool) {
        if self.near_count == u64::BITS {
            self.far.push(self.near);
            self.near_count = 0;
        }
        self.near = self.near << 1 | u64::from(is_object);
        self.near_count += 1;
    }

    /// The innermost, if there is one: true for an object.
    const fn last(&self) -> Option<bool> {
        if self.near_count == 0 {
            return None;
        }
        Some(self.near & 1 == 1)
    }

    fn pop(&mut self) {
        self.near >>= 1;
        self.near_count -= 1;
        if self.near_count == 0
            && let Some(word) = self.far.pop()
        {
            self.near = word;
            self.near_count = u64::BITS;
        }
    }
}

impl<'a> Scan<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Skips white space, and then this byte if it stands there.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// True if nothing but white space follows.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// The string that stands next, quotes included.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        if !self.takes(b'"') {
            return None;
        }
        let start = self.at - 1;
        self.rest_of_string()?;
        self.text.get(start..self.at)
    }

    /// The raw text of the value that stands next; `None` if there is none that is whole and valid.
    pub(super) fn value(&mut self) -> Option<&'a str> {
        let first = self.peek()?;
        let start = self.at;
        self.at += 1;
        match first {
            b'{' | b'[' => self.rest_of_nested(first == b'{')?,
            _ => self.rest_of_scalar(first)?,
        }
        self.text.get(start..self.at)
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        loop {
            let byte = *bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.text.as_bytes().get(self.at).copied();
        self.at += 1;
        byte
    }

    /// Steps over an object or an array whose first bracket is behind.
    fn rest_of_nested(&mut self, is_object: bool) -> Option<()> {
        let mut open = Open::default();
        open.push(is_object);
        // At the beginning of an object or an array, which alone may be empty.
        let mut is_fresh = true;
        while let Some(is_object) = open.last() {
            let end = if is_object { b'}' } else { b']' };
            if self.takes(end) {
                open.pop();
                is_fresh = false;
                continue;
            }
            if !is_fresh && !self.takes(b',') {
                return None;
            }
            if is_object {
                if !self.takes(b'"') {
                    return None;
                }
                self.rest_of_string()?;
                if !self.takes(b':') {
                    return None;
                }
            }
            let first = self.peek()?;
            self.at += 1;
            is_fresh = matches!(first, b'{' | b'[');
            if is_fresh {
                open.push(first == b'{');
            } else {
                self.rest_of_scalar(first)?;
            }
        }
        Some(())
    }

    fn rest_of_scalar(&mut self, first: u8) -> Option<()> {
        match first {
            b'"' => self.rest_of_string(),
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            b'-' => {
                let first = self.next()?;
                self.rest_of_number(first)
            }
            _ => self.rest_of_number(first),
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let found = self.text.as_bytes().get(self.at..self.at + rest.len())?;
        self.at += rest.len();
        (found == rest).then_some(())
    }

    fn rest_of_number(&mut self, first: u8) -> Option<()> {
        match first {
            // No digit may follow: what stands behind a value has to part it from the next.
            b'0' if self.is_digit() => return None,
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.stands(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if self.stands(b'e') || self.stands(b'E') {
            self.at += 1;
            if self.stands(b'+') || self.stands(b'-') {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn stands(&self, byte: u8) -> bool {
        self.text.as_bytes().get(self.at) == Some(&byte)
    }

    fn is_digit(&self) -> bool {
        let byte = self.text.as_bytes().get(self.at);
        byte.is_some_and(u8::is_ascii_digit)
    }

    fn digits(&mut self) {
        while self.is_digit() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Option<()> {
        let is_digit = self.is_digit();
        self.digits();
        is_digit.then_some(())
    }

    /// Steps over a string whose first quote is behind. Half a pair of surrogates is as good as any.
    fn rest_of_string(&mut self) -> Option<()> {
        loop {
            self.plain_text();
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let code = self.text.as_bytes().get(self.at..self.at + 4)?;
                        if !code.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 4;
                    }
                    _ => return None,
                },
                byte if byte < b' ' => return None,
                _ => {}
            }
        }
    }

    /// Steps over text up to the first byte that may mean something in a string.
    fn plain_text(&mut self) {
        const ONES: u64 = u64::MAX / 255;
        const HIGH: u64 = ONES << 7;
        // The lowest bit that is set marks the first zero byte; those above it may be wrong.
        let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGH;
        let bytes = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let (words, _) = bytes.as_chunks::<8>();
        for word in words {
            let word = u64::from_le_bytes(*word);
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
            let quote = zero(word ^ (ONES * 0x22));
            let escape = zero(word ^ (ONES * 0x5c));
            let found = control | quote | escape;
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        // The last few bytes are looked at one by one.
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// What `serde_json` takes for one value, and ours.
    fn both(text: &str) -> (Option<&str>, Option<&str>) {
        let theirs = serde_json::from_str::<&RawValue>(text);
        let mut scan = Scan::new(text);
        let ours = scan.value();
        let is_all = scan.is_at_end();
        (theirs.ok().map(RawValue::get), ours.filter(|_| is_all))
    }

    fn check(text: &str) {
        let (theirs, ours) = both(text);
        assert_eq!(ours, theirs, "{text:?}");
    }

    #[test]
    fn it_agrees_with_serde_json_about_what_is_a_value() {
        for text in [
            "",
            " ",
            "null",
            " nul",
            "nulls",
            "true ",
            "fals",
            "\"",
            "\"a",
            "\"a\"",
            "\"a\"b",
            r#""\u12""#,
            r#""\u12g4""#,
            r#""\ud800""#,
            r#""\x""#,
            "\"\\",
            "\"\t\"",
            "\"\u{7f}\"",
            "0",
            "-0",
            "00",
            "01",
            "-",
            "-a",
            "1.",
            "1.5",
            ".5",
            "1e",
            "1e+",
            "1e+5",
            "1E-05",
            "1.e1",
            "12345678901234567890123",
            "+1",
            "1 2",
            "[]",
            "[ ]",
            "[,]",
            "[1,]",
            "[1 2]",
            "[1, 2]",
            "[",
            "]",
            "{}",
            "{ }",
            "{,}",
            r#"{"a":1,}"#,
            r#"{"a" : [ {} , [ ] ] }"#,
            r#"{"a"}"#,
            r#"{a:1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":1]"#,
            "[1}",
            "[{]}",
            r#"{"a":}"#,
            r#"{"a":{"b":[1,{"c":"d"}]}}"#,
            "\u{feff}1",
            "\"caf\u{e9} \u{1f600} and more than eight bytes \\\" of it\"",
        ] {
            check(text);
        }
        let deep = "[{\"a\":".repeat(300) + "1" + &"}]".repeat(300);
        check(&deep);
        check(&deep[..deep.len() - 1]);
        check(&format!("{deep}]"));
    }

    proptest! {
        #[test]
        fn whatever_is_thrown_at_it_it_agrees_with_serde_json(
            pieces in prop::collection::vec(prop_oneof![
                8 => prop::sample::select(vec![
                    "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", " ", "\n", "1", "0", "-", ".", "e", "+",
                    "true", "false", "null", "\\", "\\u00", "\\n", "12345678", "text of some length", "\u{e9}",
                ]),
                1 => prop::sample::select(vec!["\u{0}", "\u{1f}", "\u{80}", "\u{ffff}", "/", "\t", "\r"]),
            ], 0..12)
        ) {
            let text = pieces.concat();
            let (theirs, ours) = both(&text);
            prop_assert_eq!(ours, theirs, "{:?}", text);
        }

        #[test]
        fn values_that_are_valid_stay_so_until_they_are_cut(value in json(), cut: prop::sample::Index) {
            check(&value);
            let at = cut.index(value.len() + 1);
            if let Some(start) = value.get(..at) {
                let (theirs, ours) = both(start);
                prop_assert_eq!(ours, theirs, "{:?}", start);
            }
        }
    }

    /// Any value, spelt with some white space.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|it| it.to_string()),
            any::<f64>().prop_filter_map("finite", |it| it.is_finite().then(|| format!("{it:e}"))),
            any::<i64>().prop_map(|it| it.to_string()),
            any::<String>().prop_map(|it| serde_json::to_string(&it).unwrap()),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            let member = ("[a-z\"\\\\]{0,12}", inner.clone()).prop_map(|(key, value)| {
                format!("{} : {value}", serde_json::to_string(&key).unwrap())
            });
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(|all| format!("[{}]", all.join(" ,"))),
                prop::collection::vec(member, 0..6)
                    .prop_map(|all| format!("{{{}}}", all.join(", "))),
            ]
        })
    }
}
