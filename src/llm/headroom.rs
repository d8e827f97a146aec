//! How much of its rate limits a provider says is left, from the headers of an answer.
//!
//! Pure. A provider without limits costs one look at each name. What is no limit (Azure sends -1 and 0) is
//! not known, which is not the same as exhausted.
#![deny(clippy::disallowed_methods)]

use http::{HeaderMap, HeaderValue};

/// What is left of the limits of one account; `None` where the answer does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headroom {
    /// Of the limit of requests.
    pub requests: Option<Left>,
    /// Of the limit of tokens; of several, the one that is nearest to its end.
    pub tokens: Option<Left>,
}

/// What is left of one limit, in the provider's own period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// The limit; above 0. One beyond 32 bits is scaled down, `remaining` with it.
    pub limit: u32,
    /// What is left of it; at most `limit`.
    pub remaining: u32,
}

impl Left {
    /// True if less of it is left, as a share, than of `other`.
    fn is_nearer_to_its_end(self, other: Self) -> bool {
        let crossed = |a: u32, b: u32| u64::from(a) * u64::from(b);
        crossed(self.remaining, other.limit) < crossed(other.remaining, self.limit)
    }
}

/// Reads the headers of OpenAI and of Anthropic, whichever are there: a relay may send either with any
/// dialect. All names are looked for in one pass: most answers have none of them.
#[must_use]
pub fn read_headroom(headers: &HeaderMap) -> Headroom {
    let mut said = Said::default();
    for (name, value) in headers {
        let name = name.as_str();
        if let Some(name) = name.strip_prefix("x-ratelimit-") {
            match name {
                "limit-requests" => said.openai.0.limit(value),
                "remaining-requests" => said.openai.0.remaining(value),
                "limit-tokens" => said.openai.1.limit(value),
                "remaining-tokens" => said.openai.1.remaining(value),
                _ => {}
            }
        } else if let Some(name) = name.strip_prefix("anthropic-ratelimit-") {
            match name {
                "requests-limit" => said.requests.limit(value),
                "requests-remaining" => said.requests.remaining(value),
                "tokens-limit" => said.tokens.limit(value),
                "tokens-remaining" => said.tokens.remaining(value),
                "input-tokens-limit" => said.input.limit(value),
                "input-tokens-remaining" => said.input.remaining(value),
                "output-tokens-limit" => said.output.limit(value),
                "output-tokens-remaining" => said.output.remaining(value),
                _ => {}
            }
        }
    }
    said.headroom()
}

/// What the headers say, each by its first value.
#[derive(Default)]
struct Said<'a> {
    /// Of requests, and of tokens.
    openai: (Pair<'a>, Pair<'a>),
    requests: Pair<'a>,
    tokens: Pair<'a>,
    input: Pair<'a>,
    output: Pair<'a>,
}

impl Said<'_> {
    fn headroom(&self) -> Headroom {
        let openai = Headroom {
            requests: self.openai.0.left(),
            tokens: self.openai.1.left(),
        };
        if openai != Headroom::default() {
            return openai;
        }
        let (requests, tokens) = (self.requests.left(), self.tokens.left());
        if requests.is_none() && tokens.is_none() {
            return Headroom::default();
        }
        let all = [tokens, self.input.left(), self.output.left()];
        let nearest = all
            .into_iter()
            .flatten()
            .reduce(|a, b| if b.is_nearer_to_its_end(a) { b } else { a });
        Headroom {
            requests,
            tokens: nearest,
        }
    }
}

/// A limit and what is left of it, unread.
#[derive(Default)]
struct Pair<'a> {
    limit: Option<&'a HeaderValue>,
    remaining: Option<&'a HeaderValue>,
}

impl<'a> Pair<'a> {
    fn limit(&mut self, value: &'a HeaderValue) {
        self.limit.get_or_insert(value);
    }

    fn remaining(&mut self, value: &'a HeaderValue) {
        self.remaining.get_or_insert(value);
    }

    fn left(&self) -> Option<Left> {
        let count =
            |value: &HeaderValue| -> Option<u64> { value.to_str().ok()?.trim().parse().ok() };
        let remaining = count(self.remaining?)?;
        let limit = count(self.limit?).filter(|limit| *limit > 0)?;
        let shift = (u64::BITS - limit.leading_zeros()).saturating_sub(u32::BITS);
        let fitting = |count: u64| u32::try_from(count >> shift).unwrap_or(u32::MAX);
        Some(Left {
            limit: fitting(limit),
            remaining: fitting(remaining.min(limit)),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    /// Each limit as (limit, remaining).
    type Expected = Option<(u32, u32)>;

    fn check(headers: &[(&'static str, &str)], requests: Expected, tokens: Expected) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            map.insert(HeaderName::from_static(name), value);
        }
        let found = read_headroom(&map);
        let pair = |left: Option<Left>| left.map(|left| (left.limit, left.remaining));
        let found = (pair(found.requests), pair(found.tokens));
        assert_eq!(found, (requests, tokens), "{headers:?}");
    }

    #[test]
    fn openais_headers_are_read() {
        check(&[], None, None);
        check(
            &[
                ("x-ratelimit-limit-requests", "10000"),
                ("x-ratelimit-remaining-requests", "9998"),
                ("x-ratelimit-reset-requests", "12ms"),
                ("x-ratelimit-limit-tokens", "30000000"),
                ("x-ratelimit-remaining-tokens", "29999985"),
                ("x-ratelimit-reset-tokens", "0s"),
            ],
            Some((10_000, 9_998)),
            Some((30_000_000, 29_999_985)),
        );
        check(
            &[
                ("x-ratelimit-limit-requests", "500"),
                ("x-ratelimit-remaining-requests", "0"),
            ],
            Some((500, 0)),
            None,
        );
    }

    #[test]
    fn anthropics_headers_are_read_and_the_nearest_limit_of_tokens_counts() {
        check(
            &[
                ("anthropic-ratelimit-requests-limit", "4000"),
                ("anthropic-ratelimit-requests-remaining", "3999"),
                ("anthropic-ratelimit-requests-reset", "2026-08-23T10:00:00Z"),
                ("anthropic-ratelimit-tokens-limit", "480000"),
                ("anthropic-ratelimit-tokens-remaining", "470000"),
                ("anthropic-ratelimit-input-tokens-limit", "400000"),
                ("anthropic-ratelimit-input-tokens-remaining", "400000"),
                ("anthropic-ratelimit-output-tokens-limit", "80000"),
                ("anthropic-ratelimit-output-tokens-remaining", "20000"),
            ],
            Some((4_000, 3_999)),
            Some((80_000, 20_000)),
        );
        check(
            &[
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", "49"),
                ("anthropic-ratelimit-input-tokens-limit", "50000"),
                ("anthropic-ratelimit-input-tokens-remaining", "49000"),
            ],
            Some((50, 49)),
            Some((50_000, 49_000)),
        );
    }

    #[test]
    fn what_is_no_limit_is_not_known() {
        for (limit, remaining) in [
            ("-1", "-1"),
            ("0", "0"),
            ("0", "-1"),
            ("500", "-1"),
            ("-1", "0"),
            ("many", "1"),
            ("500", ""),
            ("99999999999999999999", "1"),
        ] {
            let headers = [
                ("x-ratelimit-limit-requests", limit),
                ("x-ratelimit-remaining-requests", remaining),
            ];
            check(&headers, None, None);
        }
        check(&[("x-ratelimit-remaining-requests", "5")], None, None);
        check(&[("x-ratelimit-limit-requests", "5")], None, None);
        // Exhausted tokens beside a limit of requests that is none.
        check(
            &[
                ("x-ratelimit-limit-requests", "-1"),
                ("x-ratelimit-remaining-requests", "-1"),
                ("x-ratelimit-limit-tokens", "1000"),
                ("x-ratelimit-remaining-tokens", "0"),
            ],
            None,
            Some((1_000, 0)),
        );
    }

    #[test]
    fn odd_numbers_keep_their_share() {
        let headers = |limit, remaining| {
            [
                ("x-ratelimit-limit-tokens", limit),
                ("x-ratelimit-remaining-tokens", remaining),
            ]
        };
        check(&headers("100", "150"), None, Some((100, 100)));
        check(&headers(" 100 ", " 50"), None, Some((100, 50)));
        check(
            &headers("8000000000", "2000000000"),
            None,
            Some((4_000_000_000, 1_000_000_000)),
        );
        check(
            &headers("18446744073709551615", "0"),
            None,
            Some((u32::MAX, 0)),
        );
    }
}
