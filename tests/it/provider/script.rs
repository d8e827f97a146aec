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
    /// `500`, `429-retry-after-7`, `429-quota`, `404-model`: an error answer.
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
    /// `gzip`: the body compressed, whether asked for or not.
    Gzip,
    /// `private-headers`: headers that are meant for the peer alone, see [`PRIVATE_HEADERS`].
    PrivateHeaders,
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
    /// `huge-event`: one token of 1 MiB.
    HugeEvent,
    /// `crlf`: lines end with CR LF.
    Crlf,
    /// `comments`: comment lines between events.
    Comments,
    /// `empty`: no choices, no content.
    Empty,
    /// `no-usage`: usage is left out.
    NoUsage,
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
            "gzip" => Self::Gzip,
            "private-headers" => Self::PrivateHeaders,
            "until-fin" => Self::UntilFin,
            "inband-error" => Self::Flaw(Flaw::InbandError),
            "early-error" => Self::Flaw(Flaw::EarlyError),
            "no-done" => Self::Flaw(Flaw::NoDone),
            "malformed-line" => Self::Flaw(Flaw::MalformedLine),
            "huge-event" => Self::Flaw(Flaw::HugeEvent),
            "crlf" => Self::Flaw(Flaw::Crlf),
            "comments" => Self::Flaw(Flaw::Comments),
            "empty" => Self::Flaw(Flaw::Empty),
            "no-usage" => Self::Flaw(Flaw::NoUsage),
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
    let word = &only_at_first(word, shared);
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

fn draft(fault: &Fault, api: Api, provider: &str, request: &Request) -> Draft {
    match fault {
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
        Fault::Gzip => {
            let mut draft = body::answer(api, provider, request, None);
            draft
                .headers
                .push(("content-encoding".to_owned(), "gzip".to_owned()));
            draft.parts = vec![body::gzip(&draft.parts.concat())];
            draft
        }
        Fault::PrivateHeaders => {
            let mut draft = body::answer(api, provider, request, None);
            let headers = PRIVATE_HEADERS.map(|(name, value)| (name.to_owned(), value.to_owned()));
            draft.headers.extend(headers);
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
        if self.fault == Fault::OneByteWrites {
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
