//! What must happen, row by row.

use std::fmt;

/// One way to fail.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) title: &'static str,
    pub(super) fault: Fault,
    pub(super) dialects: Dialects,
    /// `None` where a plain answer cannot fail like that.
    pub(super) plain: Option<Cell>,
    /// `None` where a stream cannot.
    pub(super) streamed: Option<Cell>,
    pub(super) is_about_the_account: bool,
}

/// How the canary is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A fault of the scripted provider.
    Script(&'static str),
    /// Nobody listens.
    Refused,
    /// Nobody answers the attempt to connect.
    Blackhole,
    /// A certificate of an unknown authority.
    Untrusted,
}

/// Which dialects can fail like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialects {
    All,
    Chat,
    Messages,
    /// Those with a marker after the reason to finish.
    Marked,
}

/// What must be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) gets: Gets,
    pub(super) outcome: &'static str,
}

impl Cell {
    /// True if the client has to get the canary's own bytes.
    pub(super) const fn is_passed_on(self) -> bool {
        matches!(self.gets, Gets::Whole | Gets::Refusal(_))
    }
}

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gets {
    Rescue,
    Whole,
    Refusal(u16),
    Abort,
    ErrorEvent,
    /// An error of cutover's own.
    Own(u16),
}

impl fmt::Display for Gets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rescue => f.write_str("legacy's answer"),
            Self::Whole => f.write_str("passed on whole"),
            Self::Refusal(status) => write!(f, "the {status}, passed on"),
            Self::Abort => f.write_str("breaks off"),
            Self::ErrorEvent => f.write_str("error event"),
            Self::Own(status) => write!(f, "{status} by cutover"),
        }
    }
}

impl fmt::Display for Dialects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Chat => "chat completions",
            Self::Messages => "messages",
            Self::Marked => "chat completions, messages",
        })
    }
}

const fn row(
    title: &'static str,
    word: &'static str,
    plain: Option<Cell>,
    streamed: Option<Cell>,
) -> Spec {
    Spec {
        title,
        fault: Fault::Script(word),
        dialects: Dialects::All,
        plain,
        streamed,
        is_about_the_account: false,
    }
}

/// Both kinds of answer alike.
const fn both(title: &'static str, word: &'static str, cell: Option<Cell>) -> Spec {
    row(title, word, cell, cell)
}

impl Spec {
    /// True if a limit of time has to pass.
    pub(super) fn waits(&self) -> bool {
        let cells = [self.plain, self.streamed];
        let mut outcomes = cells.iter().flatten().map(|cell| cell.outcome);
        outcomes.any(|outcome| outcome.starts_with("timeout"))
    }

    const fn only(self, dialects: Dialects) -> Self {
        Self { dialects, ..self }
    }

    const fn by(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    const fn of_the_account(self) -> Self {
        Self {
            is_about_the_account: true,
            ..self
        }
    }
}

const fn gets(gets: Gets, outcome: &'static str) -> Option<Cell> {
    Some(Cell { gets, outcome })
}

const fn rescued(outcome: &'static str) -> Option<Cell> {
    gets(Gets::Rescue, outcome)
}

const fn refused(status: u16, outcome: &'static str) -> Option<Cell> {
    gets(Gets::Refusal(status), outcome)
}

const WHOLE: Option<Cell> = gets(Gets::Whole, "ok");

/// With failover.
pub(super) const ROWS: &[Spec] = &[
    both("refuses connections", "", rescued("connect")).by(Fault::Refused),
    both(
        "does not answer the attempt to connect",
        "",
        rescued("timeout-connect"),
    )
    .by(Fault::Blackhole),
    both(
        "has a certificate of an unknown authority",
        "",
        rescued("tls"),
    )
    .by(Fault::Untrusted),
    both(
        "resets instead of an answer",
        "reset-before-head",
        rescued("reset"),
    ),
    both(
        "closes instead of an answer",
        "close-before-head",
        rescued("reset"),
    ),
    both(
        "takes the request and is silent",
        "stall-head",
        rescued("timeout-first-byte"),
    ),
    both(
        "sends its headers too late",
        "slow-head-2500",
        rescued("timeout-first-byte"),
    ),
    both(
        "sends its headers and is silent",
        "stall-after-0",
        rescued("timeout-idle"),
    ),
    both(
        "falls silent before content",
        "stall-after-20",
        rescued("timeout-idle"),
    ),
    row(
        "falls silent after content",
        "stall-after-1500",
        None,
        gets(Gets::ErrorEvent, "timeout-idle"),
    ),
    both(
        "closes before content, within its framing",
        "truncate-at-20",
        rescued("reset"),
    ),
    both("resets before content", "reset-at-20", rescued("reset")),
    both(
        "ends before content, well framed",
        "end-at-20",
        rescued("soft-error"),
    ),
    row(
        "closes after content, within its framing",
        "truncate-at-1500",
        None,
        gets(Gets::Abort, "reset"),
    ),
    row(
        "resets after content",
        "reset-at-1500",
        None,
        gets(Gets::Abort, "reset"),
    ),
    row(
        "ends after content, well framed, unfinished",
        "no-done",
        None,
        gets(Gets::ErrorEvent, "truncated"),
    ),
    row(
        "leaves out the marker after the reason to finish",
        "no-marker",
        None,
        WHOLE,
    )
    .only(Dialects::Marked),
    row(
        "sends a line that is no JSON",
        "malformed-line",
        rescued("soft-error"),
        gets(Gets::Whole, "soft-error"),
    ),
    row(
        "sends an error after start-up events",
        "early-error",
        None,
        rescued("in-band-error"),
    ),
    row(
        "sends an error after content",
        "inband-error",
        None,
        gets(Gets::Whole, "in-band-error"),
    ),
    both(
        "sends an error with status 200",
        "soft-error",
        rescued("soft-error"),
    ),
    both(
        "sends a web page with status 200",
        "html",
        rescued("soft-error"),
    ),
    both("sends 204 and nothing", "204", rescued("soft-error")),
    row("sends no choices", "empty", rescued("soft-error"), None).only(Dialects::Chat),
    row(
        "leaves out the names of events",
        "unnamed",
        None,
        rescued("soft-error"),
    )
    .only(Dialects::Messages),
    both("compresses, although asked not to", "gzip", WHOLE),
    row("ends lines with CR LF", "crlf", None, WHOLE),
    row("ends lines with CR", "cr", None, WHOLE),
    row(
        "leaves out the space after `data:`",
        "no-space",
        None,
        WHOLE,
    ),
    row("sends comments between events", "comments", None, WHOLE),
    both("writes each byte alone", "one-byte-writes", WHOLE),
    both("splits characters of several bytes", "utf8-split", WHOLE),
    both("sends an event of 5 MiB", "huge-event-5", WHOLE),
    both("pauses between its events", "gap-50", WHOLE),
    both("leaves out the usage", "no-usage", WHOLE),
    both("has neither length nor chunks", "until-fin", WHOLE),
    both("answers 500", "500", rescued("server-error")),
    both(
        "answers 503 with `Retry-After: 2`",
        "503-retry-after-2",
        rescued("server-error"),
    ),
    both("answers 529", "529", rescued("server-error")),
    both("answers 408", "408", rescued("server-error")),
    both("answers 429", "429", rescued("rate-limited")),
    both(
        "answers 429 with `Retry-After: 0`",
        "429-retry-after-0",
        rescued("rate-limited"),
    ),
    both(
        "answers 429 with a date to retry after",
        "429-retry-after-date",
        rescued("rate-limited"),
    ),
    both(
        "answers 429 with `Retry-After: 86400`",
        "429-retry-after-86400",
        rescued("rate-limited"),
    ),
    both(
        "answers 429, the quota is used up",
        "429-quota",
        rescued("quota"),
    )
    .of_the_account(),
    both("answers 402", "402", rescued("quota")).of_the_account(),
    both(
        "answers 400, no credit is left",
        "400-credit",
        rescued("quota"),
    )
    .of_the_account()
    .only(Dialects::Messages),
    both("answers 401 to our key", "401", rescued("auth")).of_the_account(),
    both("answers 403 to our key", "403", rescued("auth")).of_the_account(),
    both("answers 404, no such model", "404-model", rescued("parity")),
    both(
        "answers 400, no such parameter",
        "400-param",
        rescued("parity"),
    ),
    both(
        "answers 400 to a bad request",
        "400",
        refused(400, "client-error"),
    ),
    both("answers 413", "413", refused(413, "client-error")),
    both("answers 422", "422", refused(422, "client-error")),
];

/// Without failover.
pub(super) const UNRESCUED: &[Spec] = &[
    both("refuses connections", "", gets(Gets::Own(502), "connect")).by(Fault::Refused),
    both(
        "does not answer the attempt to connect",
        "",
        gets(Gets::Own(504), "timeout-connect"),
    )
    .by(Fault::Blackhole),
    both(
        "has a certificate of an unknown authority",
        "",
        gets(Gets::Own(502), "tls"),
    )
    .by(Fault::Untrusted),
    both(
        "resets instead of an answer",
        "reset-before-head",
        gets(Gets::Own(502), "reset"),
    ),
    both(
        "takes the request and is silent",
        "stall-head",
        gets(Gets::Own(504), "timeout-first-byte"),
    ),
    both(
        "sends an error with status 200",
        "soft-error",
        gets(Gets::Whole, "soft-error"),
    ),
    row(
        "sends an error after start-up events",
        "early-error",
        None,
        gets(Gets::Whole, "in-band-error"),
    ),
    both("answers 500", "500", refused(500, "server-error")),
    both(
        "answers 429 with `Retry-After: 86400`",
        "429-retry-after-86400",
        refused(429, "rate-limited"),
    ),
    both("answers 401 to our key", "401", refused(401, "auth")).of_the_account(),
    both(
        "answers 404, no such model",
        "404-model",
        refused(404, "parity"),
    ),
    both(
        "answers 400 to a bad request",
        "400",
        refused(400, "client-error"),
    ),
];
