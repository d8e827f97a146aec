//! Who may change something: holders of the token, and never a foreign web page.
//!
//! Pure. A browser on the operator's machine can reach a loopback port, so every sign of a cross-site
//! request is refused, and without a token only hosts that no foreign site can claim are served.
#![deny(clippy::disallowed_methods)]

use std::net::IpAddr;

use http::{HeaderMap, StatusCode, Uri};

use crate::config::values::Secret;

/// Checks a mutation's head.
///
/// # Errors
/// With the status and the sentence to answer with.
pub(crate) fn check(
    headers: &HeaderMap,
    token: Option<&Secret>,
) -> Result<(), (StatusCode, &'static str)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host").unwrap_or_default();
    let cross_site =
        text("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    let foreign_origin = text("origin").is_some_and(|origin| authority_of(origin) != host);
    if cross_site || foreign_origin {
        return Err((
            StatusCode::FORBIDDEN,
            "requests from other sites are refused",
        ));
    }
    let Some(token) = token else {
        if is_local_name(host) {
            return Ok(());
        }
        return Err((
            StatusCode::FORBIDDEN,
            "without admin.token only localhost and plain addresses are served as Host",
        ));
    };
    let given = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    match given {
        Some(given) if same(given.as_bytes(), token.expose().as_bytes()) => Ok(()),
        _ => Err((
            StatusCode::UNAUTHORIZED,
            "this needs `Authorization: Bearer <admin.token>`",
        )),
    }
}

fn authority_of(origin: &str) -> String {
    let uri: Option<Uri> = origin.parse().ok();
    uri.and_then(|uri| uri.authority().map(ToString::to_string))
        .unwrap_or_default()
}

fn is_local_name(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Compares in a time that depends only on the lengths.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&str, &str)], token: Option<&str>) -> Option<u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.insert(name, value.parse().unwrap());
        }
        check(&map, token.map(Secret::new).as_ref())
            .err()
            .map(|(status, _)| status.as_u16())
    }

    #[test]
    fn only_the_token_opens_a_port_that_has_one() {
        let host = ("host", "cutover.internal:8081");
        assert_eq!(answer(&[host], Some("s3cret")), Some(401));
        assert_eq!(
            answer(&[host, ("authorization", "Bearer wrong!")], Some("s3cret")),
            Some(401)
        );
        assert_eq!(
            answer(&[host, ("authorization", "s3cret")], Some("s3cret")),
            Some(401)
        );
        assert_eq!(
            answer(&[host, ("authorization", "Bearer s3cret")], Some("s3cret")),
            None
        );
    }

    #[test]
    fn a_foreign_page_is_refused_with_and_without_a_token() {
        let host = ("host", "127.0.0.1:8081");
        let token = ("authorization", "Bearer s3cret");
        for sign in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:9999"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(answer(&[host, sign], None), Some(403), "{sign:?}");
            assert_eq!(
                answer(&[host, sign, token], Some("s3cret")),
                Some(403),
                "{sign:?}"
            );
        }
        let own = [
            host,
            ("origin", "http://127.0.0.1:8081"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(answer(&own, None), None);
    }

    #[test]
    fn a_name_that_a_foreign_site_can_claim_is_refused_without_a_token() {
        for (host, expected) in [
            ("localhost:8081", None),
            ("127.0.0.1:8081", None),
            ("[::1]:8081", None),
            ("127.0.0.1", None),
            ("rebound.evil.example:8081", Some(403)),
            ("", Some(403)),
        ] {
            assert_eq!(answer(&[("host", host)], None), expected, "{host}");
        }
    }
}
