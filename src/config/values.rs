//! Leaf values of the configuration: secrets, URLs, globs, prices. Each is right by construction.
//!
//! May read the environment and key files (secrets only). Never prints what a [`Secret`] holds.

use std::fmt;

use http::uri::{Authority, Scheme};

/// Text that is never shown: `Debug` and `Display` print a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself; name every use of this in review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(masked)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// Where an arm is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and optional port, as written; the `Host` header of upstream requests.
    pub authority: Authority,
    /// Port, the scheme's own when the URL names none.
    pub port: u16,
    /// Path without trailing slash and without a final `/v1`: "" for `https://api.openai.com/v1`.
    pub prefix: String,
    /// True if the URL as written ended in `/v1`.
    pub has_v1: bool,
}

impl BaseUrl {
    /// The host without port and without the brackets of IPv6.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
    }

    /// True for `https`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v1 = if self.has_v1 { "/v1" } else { "" };
        write!(f, "{}://{}{}{v1}", self.scheme, self.authority, self.prefix)
    }
}

/// A pattern with `*` for any run of characters; everything else stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// A pattern; every text is one.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        let Some(mut middle) = rest.strip_suffix(last) else {
            return false;
        };
        for part in parts {
            let Some(found) = middle.find(part) else {
                return false;
            };
            middle = middle.get(found + part.len()..).unwrap_or_default();
        }
        true
    }
}

/// Price of a model in US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Input tokens that came from no cache.
    pub input: f64,
    /// Input tokens read from a prompt cache; `input` when the file names none.
    pub cached_input: f64,
    /// Input tokens written to a prompt cache; `input` when the file names none.
    pub cache_write: f64,
    /// Output tokens.
    pub output: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_texts() {
        let cases = [
            ("gpt-*", "gpt-4.1", true),
            ("gpt-*", "my-gpt-4", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("*mini", "gpt-4o-mini", true),
            ("gpt-4", "gpt-4", true),
            ("gpt-4", "gpt-4o", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                Glob::new(pattern).matches(text),
                expected,
                "{pattern} on {text}"
            );
        }
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new("sk-very-secret");
        assert!(!format!("{secret:?} {secret}").contains("very"));
    }
}
