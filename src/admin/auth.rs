//! Who may change something: holders of the token, and never a foreign web page. Who may read: everybody
//! but a foreign web page.
//!
//! Pure. A browser on the operator's machine can reach a loopback port, so every sign of a cross-site
//! request is refused. A foreign site may also point its own name at this port (DNS rebinding), and its pages
//! are then same-origin: so a name that a foreign site can claim is not trusted. Only browsers are judged by
//! it when they read; scrapers, probes and the command line show none of their signs.
#![deny(clippy::disallowed_methods)]

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
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
    if is_cross_site(headers) {
        return Err(CROSS_SITE);
    }
    let Some(token) = token else {
        if is_local_name(host_of(headers)) {
            return Ok(());
        }
        return Err((
            StatusCode::FORBIDDEN,
            "without admin.token only localhost and plain addresses are served as Host",
        ));
    };
    if holds(headers, token) {
        Ok(())
    } else {
        Err((
            StatusCode::UNAUTHORIZED,
            "this needs `Authorization: Bearer <admin.token>`",
        ))
    }
}

/// Checks the head of a request that only reads.
///
/// # Errors
/// With the status and the sentence to answer with.
pub(crate) fn check_read(
    headers: &HeaderMap,
    token: Option<&Secret>,
) -> Result<(), (StatusCode, &'static str)> {
    // Whoever follows a link to this place sees it in a page of its own, which the other site cannot read.
    let follows_link = text(headers, "sec-fetch-mode") == Some("navigate")
        && text(headers, "sec-fetch-dest") == Some("document");
    if is_cross_site(headers) && !follows_link {
        return Err(CROSS_SITE);
    }
    // Browsers send `sec-fetch-site`, which no script can, only over https and to the own machine. A foreign
    // name that leads to this port has neither.
    let is_judged = is_browser(headers) && !headers.contains_key("sec-fetch-site");
    let is_trusted =
        is_unclaimable(host_of(headers)) || token.is_some_and(|token| holds(headers, token));
    if is_judged && !is_trusted {
        return Err((
            StatusCode::FORBIDDEN,
            "under this name a browser is served over https only; without it, use localhost, an address, \
             or a name of the own network like cutover.internal",
        ));
    }
    Ok(())
}

const CROSS_SITE: (StatusCode, &str) = (
    StatusCode::FORBIDDEN,
    "requests from other sites are refused",
);

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn host_of(headers: &HeaderMap) -> &str {
    text(headers, "host").unwrap_or_default()
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    let site = text(headers, "sec-fetch-site");
    let origin = text(headers, "origin");
    site.is_some_and(|site| site != "same-origin" && site != "none")
        || origin.is_some_and(|origin| authority_of(origin) != host_of(headers))
}

/// True with a header that browsers always send and that no page can make them leave out.
fn is_browser(headers: &HeaderMap) -> bool {
    let signs = ["accept-language", "origin", "referer"];
    signs.iter().any(|sign| headers.contains_key(*sign))
        || text(headers, "user-agent").is_some_and(|agent| agent.starts_with("Mozilla/"))
}

fn holds(headers: &HeaderMap, token: &Secret) -> bool {
    let given = text(headers, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    // In a time that depends only on the lengths.
    given.is_some_and(|given| {
        verify_slices_are_equal(given.as_bytes(), token.expose().as_bytes()).is_ok()
    })
}

fn authority_of(origin: &str) -> String {
    let uri: Option<Uri> = origin.parse().ok();
    uri.and_then(|uri| uri.authority().map(ToString::to_string))
        .unwrap_or_default()
}

/// True for `localhost` and plain addresses.
fn is_local_name(host: &str) -> bool {
    let name = without_port(host);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// True for names that no foreign site can have: local ones, those without a dot, and those under endings that
/// are kept for private networks.
fn is_unclaimable(host: &str) -> bool {
    const PRIVATE: [&str; 4] = ["localhost", "internal", "local", "home.arpa"];
    let name = without_port(host).to_ascii_lowercase();
    let is_private = PRIVATE.iter().any(|ending| {
        let before = name.strip_suffix(ending);
        before.is_some_and(|before| before.ends_with('.'))
    });
    is_local_name(host) || is_private || (!name.is_empty() && !name.contains(['.', ':']))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
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

    fn reading(headers: &[(&str, &str)], token: Option<&str>) -> Option<u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.insert(name, value.parse().unwrap());
        }
        check_read(&map, token.map(Secret::new).as_ref())
            .err()
            .map(|(status, _)| status.as_u16())
    }

    #[test]
    fn programs_may_read_under_any_name() {
        for host in ["127.0.0.1:8081", "cutover.example.com", "10.0.0.7:8081", ""] {
            for agent in [
                "curl/8.9.1",
                "Prometheus/2.42.0",
                "kube-probe/1.33",
                "Go-http-client/1.1",
            ] {
                let headers = [
                    ("host", host),
                    ("user-agent", agent),
                    ("accept-encoding", "gzip"),
                ];
                assert_eq!(reading(&headers, None), None, "{host} {agent}");
                assert_eq!(reading(&headers, Some("s3cret")), None, "{host} {agent}");
            }
        }
        assert_eq!(reading(&[], None), None);
    }

    #[test]
    fn a_page_of_another_site_reads_nothing() {
        let host = ("host", "127.0.0.1:8081");
        for sign in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:9999"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let token = ("authorization", "Bearer s3cret");
            assert_eq!(reading(&[host, sign], None), Some(403), "{sign:?}");
            assert_eq!(
                reading(&[host, sign, token], Some("s3cret")),
                Some(403),
                "{sign:?}"
            );
        }
        let link = [
            host,
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(reading(&link, None), None, "a link that was followed");
        let framed = [link[0], link[1], link[2], ("sec-fetch-dest", "iframe")];
        assert_eq!(reading(&framed, None), Some(403));
    }

    #[test]
    fn a_foreign_name_that_leads_here_reads_nothing() {
        // What browsers send to a name over plain http: no `sec-fetch-site`, and to the own origin no `origin`.
        let signs = [
            ("accept-language", "*"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
            ("referer", "http://rebound.evil.example:8081/"),
        ];
        for sign in signs {
            for (host, expected) in [
                ("rebound.evil.example:8081", Some(403)),
                ("rebound.evil.example", Some(403)),
                ("127.0.0.1.evil.example", Some(403)),
                ("notlocalhost.example:1", Some(403)),
                ("evillocal.example", Some(403)),
                ("", Some(403)),
                ("localhost:8081", None),
                ("cutover.localhost:8081", None),
                ("127.0.0.1:8081", None),
                ("[::1]:8081", None),
                ("cutover:8081", None),
                ("cutover.ops.svc.cluster.local:8081", None),
                ("Cutover.Internal", None),
            ] {
                let headers = [("host", host), sign];
                assert_eq!(reading(&headers, None), expected, "{host} {sign:?}");
                assert_eq!(
                    reading(&headers, Some("s3cret")),
                    expected,
                    "{host} {sign:?}"
                );
                let token = ("authorization", "Bearer s3cret");
                let known = reading(&[headers[0], sign, token], Some("s3cret"));
                assert_eq!(known, None, "{host} {sign:?}");
            }
        }
        let over_https = [
            ("host", "cutover.example.com"),
            ("sec-fetch-site", "same-origin"),
            signs[0],
        ];
        assert_eq!(reading(&over_https, Some("s3cret")), None);
    }
}
