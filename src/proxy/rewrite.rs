//! What changes in a request and in an answer on the way through. Only what must change, changes.
//!
//! Pure apart from the prepared values it holds. Credentials of the client never travel to an arm that
//! has a key of its own, and no credential travels back.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};

use crate::config::values::BaseUrl;
use crate::config::{ArmConfig, Credential};
use crate::llm::{self, Dialect, RequestFacts};

pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(super) const API_KEY: HeaderName = HeaderName::from_static("api-key");
/// Forces an arm on a request, names the arm on an answer.
pub const X_CUTOVER_ARM: HeaderName = HeaderName::from_static("x-cutover-arm");
/// Names the rollout on an answer.
pub const X_CUTOVER_ROLLOUT: HeaderName = HeaderName::from_static("x-cutover-rollout");

/// How requests are rewritten for one arm.
#[derive(Debug)]
pub struct ArmRewrite {
    host: HeaderValue,
    prefix: String,
    version: Version,
    /// `None`: the client's own credential passes.
    key: Option<InjectedKey>,
    models: BTreeMap<String, String>,
    include_usage: bool,
}

/// Where the API version of a base URL stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// The base URL ends in `/v1`.
    V1,
    /// It names a version of its own, as in `/v1beta/openai`: the client's `/v1` gives way.
    Own,
    /// It names none: the client's path stays as it is.
    Unnamed,
}

#[derive(Debug)]
struct InjectedKey {
    bearer: HeaderValue,
    raw: HeaderValue,
}

impl ArmRewrite {
    /// Prepares the values.
    ///
    /// # Errors
    /// If the key or the host cannot stand in a header.
    pub fn new(arm: &ArmConfig) -> Result<Self, String> {
        let host = HeaderValue::from_str(arm.base_url.authority.as_str())
            .map_err(|_| format!("{} cannot stand in a Host header", arm.base_url.authority))?;
        let key = match &arm.credential {
            Credential::Client => None,
            Credential::Key(secret) => {
                let value = |text: &str| {
                    let mut value = HeaderValue::from_str(text)
                        .map_err(|_| "the api-key holds characters that no header can carry")?;
                    value.set_sensitive(true);
                    Ok::<_, String>(value)
                };
                let bearer = value(&format!("Bearer {}", secret.expose()))?;
                Some(InjectedKey {
                    bearer,
                    raw: value(secret.expose())?,
                })
            }
        };
        Ok(Self {
            host,
            prefix: arm.base_url.prefix.clone(),
            version: version_of(&arm.base_url),
            key,
            models: arm.models.clone(),
            include_usage: arm.include_usage,
        })
    }

    /// True if this arm gets a key of cutover's, so that a refused key is cutover's account and not the
    /// client's.
    #[must_use]
    pub const fn injects_key(&self) -> bool {
        self.key.is_some()
    }

    /// True if this arm's streams are to be asked for their usage.
    #[must_use]
    pub const fn includes_usage(&self) -> bool {
        self.include_usage
    }

    /// The arm's URI for a client's path, in origin form.
    #[must_use]
    pub fn uri(&self, asked: &PathAndQuery) -> Uri {
        // `OPTIONS *` asks about the server, which has no place under a prefix.
        if asked.path() == "*" || (self.prefix.is_empty() && under_v1(asked.path())) {
            return Uri::from(asked.clone());
        }
        let path = join(&self.prefix, self.version, asked.path());
        let text = match asked.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        // Both halves were valid, so the whole is; the fallback only keeps this free of panics.
        text.parse().unwrap_or_else(|_| Uri::from(asked.clone()))
    }

    /// The headers for this arm, from the client's.
    ///
    /// A `dialect` is metered, so it asks for an answer that can be read (`accept-encoding: identity`);
    /// `kept_body` leaves the length to the sender, because the body may have changed.
    #[must_use]
    pub fn headers(
        &self,
        client: &HeaderMap,
        dialect: Option<Dialect>,
        kept_body: bool,
    ) -> HeaderMap {
        let metered = dialect.is_some();
        // Copied in one piece: to build the same name by name would hash every one of them again.
        let mut headers = client.clone();
        remove_all(&mut headers, |name| {
            is_hop_by_hop(name) || is_handled_here(name)
        });
        if kept_body {
            headers.remove(header::CONTENT_LENGTH);
        }
        for name in listed_by_connection(client) {
            headers.remove(name);
        }
        headers.insert(header::HOST, self.host.clone());
        if metered {
            headers.insert(
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            );
        }
        if let Some(key) = &self.key {
            let has = Credentials::of(client);
            // The key goes in the dialect that the client used, or that the path speaks.
            let anthropic =
                matches!(dialect, Some(Dialect::AnthropicMessages)) && !has.authorization;
            let (name, value) = if has.x_api_key || anthropic {
                (X_API_KEY, &key.raw)
            } else if has.api_key {
                (API_KEY, &key.raw)
            } else {
                (header::AUTHORIZATION, &key.bearer)
            };
            for (is_there, theirs) in [
                (has.authorization, header::AUTHORIZATION),
                (has.x_api_key, X_API_KEY),
                (has.api_key, API_KEY),
            ] {
                if is_there && theirs != name {
                    headers.remove(theirs);
                }
            }
            headers.insert(name, value.clone());
        }
        headers
    }

    /// The body with this arm's name for the model, and the client's name for it; or the same body. It also
    /// asks for usage at `usage_slot`, if there is one.
    #[must_use]
    pub fn body(
        &self,
        body: &Bytes,
        facts: &RequestFacts<'_>,
        usage_slot: Option<usize>,
    ) -> (Bytes, Option<Box<str>>) {
        let asked = facts.model.as_deref().filter(|_| !self.models.is_empty());
        let mapped = asked.and_then(|asked| Some((asked, self.models.get(asked)?)));
        match (mapped, &facts.model_span) {
            (Some((asked, name)), Some(span)) if asked != name => {
                let model = Some((span.clone(), name.as_str()));
                let body = llm::rewrite_request(body, usage_slot, model);
                (body, Some(asked.into()))
            }
            _ => (llm::rewrite_request(body, usage_slot, None), None),
        }
    }
}

fn version_of(url: &BaseUrl) -> Version {
    let names_version = |segment: &str| {
        let mut letters = segment.bytes();
        letters.next() == Some(b'v') && letters.next().is_some_and(|b| b.is_ascii_digit())
    };
    if url.has_v1 {
        Version::V1
    } else if url.prefix.split('/').any(names_version) {
        Version::Own
    } else {
        Version::Unnamed
    }
}

fn under_v1(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

fn join(prefix: &str, version: Version, asked: &str) -> String {
    match version {
        Version::Own => {
            let rest = if under_v1(asked) {
                asked.get(3..).unwrap_or("")
            } else {
                asked
            };
            format!("{prefix}{rest}")
        }
        Version::V1 if !under_v1(asked) => format!("{prefix}/v1{asked}"),
        Version::V1 | Version::Unnamed => format!("{prefix}{asked}"),
    }
}

/// Strips from an answer what concerns only the connection to the arm, and anything like a credential.
pub fn strip_answer(headers: &mut HeaderMap) {
    for name in listed_by_connection(headers) {
        headers.remove(name);
    }
    remove_all(headers, |name| {
        is_hop_by_hop(name)
            || matches!(
                name.as_str(),
                "authorization"
                    | "set-cookie"
                    | "x-api-key"
                    | "api-key"
                    | "x-cutover-arm"
                    | "x-cutover-rollout"
            )
    });
}

/// Removes what is unwanted. Few messages hold any of it: a look at each name costs less than looking up
/// each that might be there.
fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_unwanted(name)).cloned() {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Headers that end here whatever the arm: `Expect` was answered.
fn is_handled_here(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "expect" | "cookie" | "x-cutover-arm" | "x-cutover-rollout"
    )
}

/// Where a client put its credential.
#[derive(Default)]
struct Credentials {
    authorization: bool,
    x_api_key: bool,
    api_key: bool,
}

impl Credentials {
    fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "authorization" => found.authorization = true,
                "x-api-key" => found.x_api_key = true,
                "api-key" => found.api_key = true,
                _ => {}
            }
        }
        found
    }
}

/// Header names that `Connection` declares to be hop-by-hop.
fn listed_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let listed = value.to_str().unwrap_or("").split(',').map(str::trim);
        // Almost every request says only this, and it names no header.
        let named = listed.filter(|name| {
            !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close")
        });
        names.extend(named.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()));
    }
    names
}
