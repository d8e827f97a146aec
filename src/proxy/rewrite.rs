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
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

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
        let mut headers = HeaderMap::with_capacity(client.len() + 2);
        headers.insert(header::HOST, self.host.clone());
        let listed = ListedByConnection::of(client);
        for (name, value) in client {
            let dropped = is_hop_by_hop(name)
                || is_handled_here(name)
                || (kept_body && *name == header::CONTENT_LENGTH)
                || (metered && *name == header::ACCEPT_ENCODING)
                || (self.key.is_some() && is_credential(name))
                || listed.contains(name);
            if !dropped {
                headers.append(name, value.clone());
            }
        }
        if metered {
            headers.insert(
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            );
        }
        if let Some(key) = &self.key {
            // The key goes in the dialect that the client used, or that the path speaks.
            let anthropic = matches!(dialect, Some(Dialect::AnthropicMessages))
                && !client.contains_key(header::AUTHORIZATION);
            if client.contains_key(&X_API_KEY) || anthropic {
                headers.insert(X_API_KEY, key.raw.clone());
            } else if client.contains_key(&API_KEY) {
                headers.insert(API_KEY, key.raw.clone());
            } else {
                headers.insert(header::AUTHORIZATION, key.bearer.clone());
            }
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
    let listed = ListedByConnection::of(headers).names;
    for name in listed {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::AUTHORIZATION,
        header::SET_COOKIE,
        X_API_KEY,
        API_KEY,
        X_CUTOVER_ARM,
        X_CUTOVER_ROLLOUT,
    ] {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || *name == header::PROXY_AUTHENTICATE
        || *name == header::PROXY_AUTHORIZATION
        || *name == header::TE
        || *name == header::TRAILER
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
}

/// Headers that end here whatever the arm: `Host` is rewritten, `Expect` was answered.
fn is_handled_here(name: &HeaderName) -> bool {
    *name == header::HOST
        || *name == header::EXPECT
        || *name == header::COOKIE
        || *name == X_CUTOVER_ARM
        || *name == X_CUTOVER_ROLLOUT
}

fn is_credential(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION || *name == X_API_KEY || *name == API_KEY
}

/// Header names that `Connection` declares to be hop-by-hop.
struct ListedByConnection {
    names: Vec<HeaderName>,
}

impl ListedByConnection {
    fn of(headers: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for value in headers.get_all(header::CONNECTION) {
            let listed = value.to_str().unwrap_or("").split(',').map(str::trim);
            // Almost every request says only this, and it names no header.
            let named = listed.filter(|name| {
                !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close")
            });
            names.extend(named.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()));
        }
        Self { names }
    }

    fn contains(&self, name: &HeaderName) -> bool {
        self.names.contains(name)
    }
}
