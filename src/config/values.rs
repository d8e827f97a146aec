//! Leaf values of the configuration: secrets, URLs, globs, prices. Each is right by construction.
//!
//! Plain values. Never prints what a [`Secret`] holds.

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
    /// Reads a base URL as an SDK takes it: with or without `/v1`, with or without slashes at the end.
    /// Doubled slashes count as one.
    ///
    /// # Errors
    /// Says in one clause what is wrong; never repeats a user or password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("a base URL starts with https:// or http://")?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "https" => (Scheme::HTTPS, 443),
            "http" => (Scheme::HTTP, 80),
            _ => return Err("a base URL starts with https:// or http://".to_owned()),
        };
        if let Some(mark) = rest.chars().find(|c| matches!(c, '?' | '#')) {
            return Err(format!("a base URL has no `{mark}` part"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err("a base URL has no user or password".to_owned());
        }
        let authority: Authority = authority
            .parse()
            .map_err(|_| format!("`{authority}` is no host"))?;
        if authority.host().is_empty() {
            return Err("the base URL has no host".to_owned());
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, digits)) if !digits.ends_with(']') => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("`{digits}` is no port"))?,
            _ => default_port,
        };
        if let Some(strange) = path.chars().find(|c| !is_path_char(*c)) {
            return Err(format!("the path holds {strange:?}, which a URL cannot"));
        }
        let mut segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let has_v1 = segments.last() == Some(&"v1");
        if has_v1 {
            segments.pop();
        }
        let prefix: String = segments.iter().map(|part| format!("/{part}")).collect();
        Ok(Self {
            scheme,
            authority,
            port,
            prefix,
            has_v1,
        })
    }

    /// The host without port and without the brackets of IPv6.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
    }

    /// True if both lead to the same upstream, however they are written.
    #[must_use]
    pub fn leads_where(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && self.port == other.port
            && self.prefix == other.prefix
            && self.host().eq_ignore_ascii_case(other.host())
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

/// True for what RFC 3986 lets stand in a path, `%` included.
fn is_path_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(c)
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
    /// Of these, those that are kept for an hour; `cache_write` when the file names none.
    pub cache_write_1h: f64,
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
    fn base_urls_are_read_as_sdks_write_them() {
        let cases = [
            ("https://api.openai.com/v1", "", true, 443),
            ("https://api.openai.com", "", false, 443),
            ("HTTPS://api.openai.com/v1///", "", true, 443),
            (
                "https://relay.example.com/api//openai/v1/",
                "/api/openai",
                true,
                443,
            ),
            ("http://localhost:9000/x", "/x", false, 9000),
            ("http://[::1]:9000", "", false, 9000),
            ("https://[2001:db8::1]/v1", "", true, 443),
            ("https://x/v1/v1", "/v1", true, 443),
            (
                "https://x/deployments/gpt-4.1",
                "/deployments/gpt-4.1",
                false,
                443,
            ),
        ];
        for (text, prefix, has_v1, port) in cases {
            let url = BaseUrl::parse(text).unwrap();
            let found = (url.prefix.as_str(), url.has_v1, url.port);
            assert_eq!(found, (prefix, has_v1, port), "{text}");
            assert_eq!(BaseUrl::parse(&url.to_string()), Ok(url), "{text}");
        }
        assert_eq!(BaseUrl::parse("http://[::1]:9/").unwrap().host(), "::1");
    }

    #[test]
    fn a_base_url_that_is_none_is_refused_without_its_password() {
        let texts = [
            "",
            "api.openai.com",
            "ftp://x",
            "https://",
            "https:///v1",
            "https://x?y=1",
            "https://x/#y",
            "https://me:hunter2@x",
            "https://x:0",
            "https://x:99999",
            "https://x:",
            "https://a b/",
            "https://x/a b",
            "https://x/\u{e4}",
            "https://[::1",
        ];
        for text in texts {
            let problem = BaseUrl::parse(text).expect_err(text);
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new("sk-very-secret");
        assert!(!format!("{secret:?} {secret}").contains("very"));
    }
}
