//! Which fault a request asks for, and how it is played. See [`only_at_first`] for faults that pass.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::body::{self, Api};
use super::wire::Wire;
use super::{Request, Shared};

/// Credentials, cookies and headers of the connection. The last one is no secret.
pub(crate) const PRIVATE_HEADERS: [(&str, &str); 11] = [
    ("set-cookie", "a=1"),
    ("set-cookie", "b=2"),
    ("authorization", "Bearer provider"),
    ("x-api-key", "provider"),
    ("api-key", "provider"),
    ("connection", "X-Hop, keep-alive"),
    ("x-hop", "1"),
    ("keep-alive", "timeout=5"),
    ("proxy-authenticate", "Basic"),
    ("x-cutover-rollout", "forged"),
    ("x-ratelimit-remaining-tokens", "99"),
];

/// What goes wrong. The words are the model names, with `fault-` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Any other name: nothing.
    None,
    /// `500`, `429-retry-after-7`, `429-quota`, `404-model`: an error answer. `400-usage`: to requests with
    /// `stream_options` only.
    Status { status: u16, detail: String },
    /// `reset-before-head`: RST instead of an answer.
    ResetBeforeHead,
    /// `close-before-head`: FIN instead of an answer.
    CloseBeforeHead,
    /// `stall-head`: no answer at all.
    StallHead,
    /// `slow-head-MS`: the whole answer, that much later.
    SlowHead(u64),
    /// `gap-MS`: that long a pause before each event.
    Gap(u64),
    /// `reset-at-K`, `truncate-at-K` (FIN within the framing), `end-at-K` (framing ends well),
    /// `stall-after-K`: after K bytes of body.
    Cut { at: usize, how: Cut },
    /// `one-byte-writes`: each byte of the body alone, in a chunk of its own if chunked.
    OneByteWrites,
    /// `html`: a web page with status 200.
    Html,
    /// `soft-error`: an error body with status 200, also in place of a stream.
    SoftError,
    /// `private-headers`: headers that are meant for the peer alone, see [`PRIVATE_HEADERS`].
    PrivateHeaders,
    /// `cost-header`: a gateway's statement of costs in a header, 0.125 dollars.
    CostHeader,
    /// `room-R-of-L`: a good answer that says that R of L requests are left, in OpenAI's headers.
    Room { left: String, limit: String },
    /// `until-fin`: neither length nor chunks, FIN is the end.
    UntilFin,
    /// The stream itself is wrong, see [`Flaw`].
    Flaw(Flaw),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Reset,
    Fin,
    End,
    Stall,
}

/// What is wrong with the events of a stream; plain answers are wrong in the nearest way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// `inband-error`: an error event after some tokens.
    InbandError,
    /// `early-error`: an error event before the first token.
    EarlyError,
    /// `no-done`: no terminal event.
    NoDone,
    /// `malformed-line`: an event that is no JSON among the tokens.
    MalformedLine,
    /// `no-marker`: a reason to finish, and then nothing.
    NoMarker,
    /// `huge-event`, `huge-event-5`: one token of so many MiB.
    HugeEvent(usize),
    /// `crlf`: lines end with CR LF.
    Crlf,
    /// `cr`: lines end with CR.
    Cr,
    /// `no-space`: no space after `data:`.
    NoSpace,
    /// `unnamed`: no `event:` lines, where there should be some.
    Unnamed,
    /// `utf8-split`: characters of several bytes, each byte written alone.
    Utf8Split,
    /// `comments`: comment lines between events.
    Comments,
    /// `empty`: no choices, no content.
    Empty,
    /// `no-usage`: usage is left out.
    NoUsage,
    /// `cost`: usage states a cost of 0.25 dollars, in the dialects of chat and completions.
    Cost,
}

/// `gzip`, `gzip-500`, `gzip-end-at-80`, `deflate`, `br-500`, ...: another answer, compressed whether asked
/// for or not, and flushed after each part. Only then comes a fault of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    /// Called `br`; the bytes are nobody's.
    Brotli,
    /// `garbled`: called `gzip`, and plain.
    Garbled,
}

impl Coding {
    /// The coding that a name asks for, and the name without it.
    fn of(word: String, provider: &str) -> (Option<Self>, String) {
        let (name, only_at) = word.split_once('@').unwrap_or((&word, provider));
        for (kind, coding) in [
            ("fault-gzip", Self::Gzip),
            ("fault-deflate", Self::Deflate),
            ("fault-br", Self::Brotli),
            ("fault-garbled", Self::Garbled),
        ] {
            let rest = name.strip_prefix(kind);
            let is_it = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
            if let Some(rest) = rest.filter(|_| is_it && only_at == provider) {
                return match rest {
                    "" => (Some(coding), "ok".to_owned()),
                    rest => (Some(coding), format!("fault{rest}")),
                };
            }
        }
        (None, word)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip | Self::Garbled => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
        }
    }
}

/// What becomes of the connection.
pub(super) enum After {
    KeepAlive,
    Fin,
    Reset,
}

impl Fault {
    /// Reads a name. A `fault-` that is not known is an error, lest a test rely on it.
    pub(super) fn parse(name: &str, provider: &str) -> Result<Self, String> {
        let (name, only_at) = name.split_once('@').unwrap_or((name, provider));
        let Some(word) = name.strip_prefix("fault-") else {
            return Ok(Self::None);
        };
        if only_at != provider {
            return Ok(Self::None);
        }
        let number_after = |prefix: &str| word.strip_prefix(prefix)?.parse::<usize>().ok();
        for (prefix, how) in [
            ("reset-at-", Cut::Reset),
            ("truncate-at-", Cut::Fin),
            ("end-at-", Cut::End),
            ("stall-after-", Cut::Stall),
        ] {
            if let Some(at) = number_after(prefix) {
                return Ok(Self::Cut { at, how });
            }
        }
        if let Some(ms) = number_after("slow-head-") {
            return Ok(Self::SlowHead(ms as u64));
        }
        if let Some(ms) = number_after("gap-") {
            return Ok(Self::Gap(ms as u64));
        }
        if let Some(mib) = number_after("huge-event-") {
            return Ok(Self::Flaw(Flaw::HugeEvent(mib)));
        }
        if let Some((left, limit)) = word
            .strip_prefix("room-")
            .and_then(|room| room.split_once("-of-"))
        {
            let (left, limit) = (left.to_owned(), limit.to_owned());
            return Ok(Self::Room { left, limit });
        }
        let (status, detail) = word.split_once('-').unwrap_or((word, ""));
        if let Ok(status) = status.parse() {
            let detail = detail.to_owned();
            return Ok(Self::Status { status, detail });
        }
        Ok(match word {
            "reset-before-head" => Self::ResetBeforeHead,
            "close-before-head" => Self::CloseBeforeHead,
            "stall-head" => Self::StallHead,
            "one-byte-writes" => Self::OneByteWrites,
            "html" => Self::Html,
            "soft-error" => Self::SoftError,
            "private-headers" => Self::PrivateHeaders,
            "cost-header" => Self::CostHeader,
            "until-fin" => Self::UntilFin,
            "inband-error" => Self::Flaw(Flaw::InbandError),
            "early-error" => Self::Flaw(Flaw::EarlyError),
            "no-done" => Self::Flaw(Flaw::NoDone),
            "malformed-line" => Self::Flaw(Flaw::MalformedLine),
            "no-marker" => Self::Flaw(Flaw::NoMarker),
            "huge-event" => Self::Flaw(Flaw::HugeEvent(1)),
            "crlf" => Self::Flaw(Flaw::Crlf),
            "cr" => Self::Flaw(Flaw::Cr),
            "no-space" => Self::Flaw(Flaw::NoSpace),
            "unnamed" => Self::Flaw(Flaw::Unnamed),
            "utf8-split" => Self::Flaw(Flaw::Utf8Split),
            "comments" => Self::Flaw(Flaw::Comments),
            "empty" => Self::Flaw(Flaw::Empty),
            "no-usage" => Self::Flaw(Flaw::NoUsage),
            "cost" => Self::Flaw(Flaw::Cost),
            _ => return Err(format!("no fault is called `{name}`")),
        })
    }

    fn flaw(&self) -> Option<Flaw> {
        match self {
            Self::Flaw(flaw) => Some(*flaw),
            _ => None,
        }
    }
}

/// An answer before any fault of delivery.
pub(super) struct Draft {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(String, String)>,
    /// The body in the parts it is written in: events, or one.
    pub(super) parts: Vec<Vec<u8>>,
    pub(super) chunked: bool,
}

/// Answers one request. An error means that the peer has hung up.
pub(super) async fn play(wire: &mut Wire, shared: &Shared, request: &Request) -> io::Result<After> {
    let body = request.json();
    let model = body.get("model").and_then(Value::as_str);
    let word = request.header("x-fault").or(model).unwrap_or("ok");
    let api = Api::of(request);
    let (coding, word) = Coding::of(only_at_first(word, shared), &shared.name);
    let word = &word;
    let (mut fault, mut draft) = match Fault::parse(word, &shared.name) {
        Ok(fault) => {
            let draft = draft(&fault, api, &shared.name, request);
            (fault, draft)
        }
        Err(unknown) => (
            Fault::None,
            body::error(api, 599, &unknown, "unknown-fault"),
        ),
    };
    if let Some(coding) = coding {
        let name = coding.name().to_owned();
        draft.headers.push(("content-encoding".to_owned(), name));
        draft.parts = body::coded(coding, &draft.parts);
    }
    draft
        .headers
        .push(("x-provider".to_owned(), shared.name.clone()));
    let id = format!("req-{}-{}", shared.name, request.order);
    let name = if api == Api::Messages {
        "request-id"
    } else {
        "x-request-id"
    };
    draft.headers.push((name.to_owned(), id));
    match fault {
        Fault::ResetBeforeHead => return Ok(After::Reset),
        Fault::CloseBeforeHead => return Ok(After::Fin),
        Fault::StallHead => wire.stall().await?,
        Fault::SlowHead(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        _ => {}
    }
    if let Fault::Cut { at, .. } = fault {
        let length: usize = draft.parts.iter().map(Vec::len).sum();
        if at >= length {
            // A cut that cannot happen must not pass for a fault.
            let message = format!("`{word}` cuts behind the {length} bytes of the body");
            draft = body::error(api, 599, &message, "");
            fault = Fault::None;
        }
    }
    let mut delivery = Delivery {
        wire,
        shared,
        fault,
        written: 0,
    };
    delivery.deliver(draft, request.method == "HEAD").await
}

/// `fault-times-N-500`: the fault for the first N requests with this name, then none.
fn only_at_first(word: &str, shared: &Shared) -> String {
    let Some((times, fault)) = word
        .strip_prefix("fault-times-")
        .and_then(|rest| rest.split_once('-'))
    else {
        return word.to_owned();
    };
    let log = shared.log.lock().unwrap();
    let seen = log.iter().filter(|request| request.json()["model"] == word);
    if seen.count() <= times.parse().unwrap() {
        format!("fault-{fault}")
    } else {
        "ok".to_owned()
    }
}

fn asks_usage(request: &Request) -> bool {
    request.json().get("stream_options").is_some()
}

fn draft(fault: &Fault, api: Api, provider: &str, request: &Request) -> Draft {
    match fault {
        Fault::Status { detail, .. } if detail == "usage" && !asks_usage(request) => {
            body::answer(api, provider, request, None)
        }
        Fault::Status { status, detail } => body::error(api, *status, "scripted failure", detail),
        Fault::Html => Draft {
            status: 200,
            content_type: "text/html",
            headers: Vec::new(),
            parts: vec![b"<html><body>Welcome to the portal</body></html>".to_vec()],
            chunked: false,
        },
        Fault::SoftError => Draft {
            status: 200,
            ..body::error(api, 500, "scripted soft error", "")
        },
        Fault::PrivateHeaders => {
            let mut draft = body::answer(api, provider, request, None);
            let headers = PRIVATE_HEADERS.map(|(name, value)| (name.to_owned(), value.to_owned()));
            draft.headers.extend(headers);
            draft
        }
        Fault::CostHeader => {
            let mut draft = body::answer(api, provider, request, None);
            let name = "x-litellm-response-cost".to_owned();
            draft.headers.push((name, "0.125".to_owned()));
            draft
        }
        Fault::Room { left, limit } => {
            let mut draft = body::answer(api, provider, request, None);
            for (name, value) in [("remaining", left), ("limit", limit)] {
                let name = format!("x-ratelimit-{name}-requests");
                draft.headers.push((name, value.clone()));
            }
            draft
        }
        fault => body::answer(api, provider, request, fault.flaw()),
    }
}

struct Delivery<'a> {
    wire: &'a mut Wire,
    shared: &'a Shared,
    fault: Fault,
    /// Bytes of body so far.
    written: usize,
}

impl Delivery<'_> {
    async fn deliver(&mut self, draft: Draft, head_only: bool) -> io::Result<After> {
        let mut length: usize = draft.parts.iter().map(Vec::len).sum();
        if let Fault::Cut { at, how: Cut::End } = self.fault {
            length = length.min(at);
        }
        let until_fin = self.fault == Fault::UntilFin;
        let chunked = draft.chunked && !until_fin;
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", draft.status);
        head += &format!("content-type: {}\r\n", draft.content_type);
        for (name, value) in &draft.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if chunked {
            head += "transfer-encoding: chunked\r\n";
        } else if until_fin {
            head += "connection: close\r\n";
        } else {
            head += &format!("content-length: {length}\r\n");
        }
        head += "\r\n";
        self.write(head.as_bytes()).await?;
        if head_only {
            return Ok(After::KeepAlive);
        }
        for part in &draft.parts {
            if let Fault::Gap(ms) = self.fault {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            if let Some(after) = self.part(part, chunked).await? {
                return Ok(after);
            }
        }
        if chunked {
            self.write(b"0\r\n\r\n").await?;
        }
        Ok(if until_fin {
            After::Fin
        } else {
            After::KeepAlive
        })
    }

    /// Writes a part of the body, up to the cut if it lies within.
    async fn part(&mut self, part: &[u8], chunked: bool) -> io::Result<Option<After>> {
        if matches!(
            self.fault,
            Fault::OneByteWrites | Fault::Flaw(Flaw::Utf8Split)
        ) {
            for byte in part.chunks(1) {
                self.framed(byte, chunked).await?;
                tokio::task::yield_now().await;
            }
            return Ok(None);
        }
        let Fault::Cut { at, how } = self.fault else {
            self.framed(part, chunked).await?;
            return Ok(None);
        };
        let fits = part.len().min(at - self.written);
        self.framed(&part[..fits], chunked).await?;
        self.written += fits;
        if self.written < at {
            return Ok(None);
        }
        match how {
            Cut::Reset => Ok(Some(After::Reset)),
            Cut::Fin => Ok(Some(After::Fin)),
            Cut::Stall => self.wire.stall().await.map(|()| None),
            Cut::End => {
                if chunked {
                    self.write(b"0\r\n\r\n").await?;
                }
                Ok(Some(After::KeepAlive))
            }
        }
    }

    async fn framed(&mut self, bytes: &[u8], chunked: bool) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if chunked {
            let size = format!("{:x}\r\n", bytes.len());
            self.write(&[size.as_bytes(), bytes, b"\r\n"].concat())
                .await
        } else {
            self.write(bytes).await
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.shared.mute.load(Ordering::SeqCst) {
            self.wire.stall().await?;
        }
        if self.wire.peer_has_gone() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.wire.write(bytes).await
    }
}
