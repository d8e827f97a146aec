//! The dashboard's files, compiled into the binary: a page, its style, its scripts, its icon.
//!
//! Serves bytes that never change while the process runs; what they show comes from the API. The page
//! may load nothing from elsewhere and be framed by nobody, and its headers tell the browser so.

use std::sync::LazyLock;

use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use xxhash_rust::xxh3::xxh3_64;

use super::{Answer, whole, with_type};

pub(super) mod charts;
mod metrics;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

struct File {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! file {
    ($path:literal, $content_type:ident, $name:literal) => {
        File {
            path: $path,
            content_type: $content_type,
            text: include_str!(concat!("page/", $name)),
        }
    };
}

const FILES: [File; 14] = [
    file!("/", HTML, "index.html"),
    file!("/assets/page.css", CSS, "page.css"),
    file!("/assets/parts.css", CSS, "parts.css"),
    file!("/assets/icon.svg", ICON, "icon.svg"),
    file!("/assets/page.js", SCRIPT, "page.js"),
    file!("/assets/dom.js", SCRIPT, "dom.js"),
    file!("/assets/words.js", SCRIPT, "words.js"),
    file!("/assets/live.js", SCRIPT, "live.js"),
    file!("/assets/rollout.js", SCRIPT, "rollout.js"),
    file!("/assets/notices.js", SCRIPT, "notices.js"),
    file!("/assets/tables.js", SCRIPT, "tables.js"),
    file!("/assets/charts.js", SCRIPT, "charts.js"),
    file!("/assets/lists.js", SCRIPT, "lists.js"),
    file!("/assets/dialog.js", SCRIPT, "dialog.js"),
];

/// One tag for all files: a page and scripts of two versions would not fit together.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let all: String = FILES.iter().map(|file| file.text).collect();
    format!("\"{:016x}\"", xxh3_64(all.as_bytes()))
});

/// The file at this path, if it is one of the page's.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Option<Answer> {
    let file = FILES.iter().find(|file| file.path == path)?;
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.split(',').any(|tag| is_ours(tag.trim())));
    let mut answer = if is_known {
        with_type(StatusCode::NOT_MODIFIED, file.content_type, whole(""))
    } else {
        with_type(StatusCode::OK, file.content_type, whole(file.text))
    };
    let headers = answer.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    // Kept, but asked about each time: after an update nobody looks at the page before.
    set(header::CACHE_CONTROL, "no-cache");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::REFERRER_POLICY, "no-referrer");
    if let Ok(tag) = HeaderValue::from_str(&TAG) {
        headers.insert(header::ETAG, tag);
    }
    Some(answer)
}

fn is_ours(tag: &str) -> bool {
    tag.trim_start_matches("W/") == TAG.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_known_is_not_sent_again() {
        let get = |tag: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(tag) = tag {
                headers.insert(header::IF_NONE_MATCH, tag.parse().unwrap());
            }
            file("/", &headers).unwrap()
        };
        let answer = get(None);
        assert_eq!(answer.status(), 200);
        let tag = answer.headers()[header::ETAG].to_str().unwrap();
        for (known, status) in [
            (tag.to_owned(), 304),
            (format!("\"old\", W/{tag}"), 304),
            ("\"old\"".to_owned(), 200),
        ] {
            assert_eq!(get(Some(&known)).status(), status, "{known}");
        }
        assert!(file("/assets/nothing.js", &HeaderMap::new()).is_none());
    }

    #[test]
    fn every_file_that_is_named_is_served_and_nothing_comes_from_elsewhere() {
        for file in &FILES {
            for bad in ["https://", "innerHTML", "eval(", " style=\"", "onclick=\""] {
                assert!(!file.text.contains(bad), "{} has {bad}", file.path);
            }
            let in_quotes = file.text.split('"').skip(1).step_by(2);
            let named = in_quotes.filter_map(|text| {
                let is_module = file.content_type == SCRIPT && text.starts_with("./");
                let module = is_module.then(|| text.trim_start_matches("./"));
                module.or_else(|| text.strip_prefix("assets/"))
            });
            for name in named {
                let path = format!("/assets/{name}");
                let there = FILES.iter().any(|file| file.path == path);
                assert!(there, "{} names {path}", file.path);
            }
        }
    }
}
