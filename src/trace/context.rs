//! W3C Trace Context: where a request stands in a trace.
//!
//! Pure. A header that is not as the standard wants it is none: a new trace begins.
#![deny(clippy::disallowed_methods)]

use http::{HeaderMap, HeaderName, HeaderValue};

/// Names the trace and the parent.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bit of the flags: somebody records this trace.
const SAMPLED: u8 = 1;
/// What the standard asks everybody to pass on at least; longer ones are not kept in spans.
const TRACESTATE_MAX_BYTES: usize = 512;

/// What a client said of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Never 0.
    pub trace_id: u128,
    /// The client's span; never 0.
    pub span_id: u64,
    /// As they came.
    pub flags: u8,
}

/// A request's place in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Never 0.
    pub trace_id: u128,
    /// The request's own span; never 0.
    pub span_id: u64,
    /// The client's span; `None`: the trace begins here.
    pub parent_id: Option<u64>,
    /// The client's flags, or that it is sampled.
    pub flags: u8,
}

impl Parent {
    /// The client's place in its trace; `None` if it names none, several, or one that is not valid.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(value.to_str().ok()?.trim_matches([' ', '\t']))
    }

    fn parse(text: &str) -> Option<Self> {
        let version = hex(text.get(..2)?)?;
        // A later version may add something behind a dash.
        let is_long = match version {
            0 => text.len() == 55,
            255 => false,
            _ => text.len() == 55 || text.as_bytes().get(55) == Some(&b'-'),
        };
        let mut parts = text.get(..55)?.split('-').skip(1);
        let [trace_id, span_id, flags] = [parts.next()?, parts.next()?, parts.next()?];
        let lengths = (trace_id.len(), span_id.len(), flags.len());
        if !is_long || parts.next().is_some() || lengths != (32, 16, 2) {
            return None;
        }
        let parent = Self {
            trace_id: hex(trace_id)?,
            span_id: u64::try_from(hex(span_id)?).ok()?,
            flags: u8::try_from(hex(flags)?).ok()?,
        };
        (parent.trace_id != 0 && parent.span_id != 0).then_some(parent)
    }

    /// True if its trace is recorded.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Lower-case hexadecimal digits.
fn hex(digits: &str) -> Option<u128> {
    let is_lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !digits.bytes().all(is_lower) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

impl Context {
    /// A request below `parent`, or at the beginning of a trace. `draw` is random.
    #[must_use]
    pub fn new(parent: Option<Parent>, draw: (u128, u64)) -> Self {
        let (trace_id, span_id) = (draw.0.max(1), draw.1.max(1));
        match parent {
            Some(parent) => Self {
                trace_id: parent.trace_id,
                span_id,
                parent_id: Some(parent.span_id),
                flags: parent.flags,
            },
            None => Self {
                trace_id,
                span_id,
                parent_id: None,
                flags: SAMPLED,
            },
        }
    }

    /// What those below this request are told.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        let text = format!(
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.span_id, self.flags
        );
        HeaderValue::from_str(&text).ok()
    }
}

/// The client's `tracestate` as one line, if it is short enough.
#[must_use]
pub fn trace_state(headers: &HeaderMap) -> Option<Box<str>> {
    let values = headers.get_all(TRACESTATE).iter();
    let parts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    let text = parts.join(",");
    (!text.is_empty() && text.len() <= TRACESTATE_MAX_BYTES).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_parent_is_read_and_written_back() {
        let parent = Parent::parse(VALID).unwrap();
        assert_eq!(parent.span_id, 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled());
        let context = Context::new(Some(parent), (7, 0xab));
        let written = context.header().unwrap();
        assert_eq!(
            written,
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-01"
        );
        assert_eq!(context.parent_id, Some(parent.span_id));
        let own = Context::new(None, (0, 0));
        assert!(Parent::parse(own.header().unwrap().to_str().unwrap()).is_some());
    }

    #[test]
    fn whatever_the_standard_calls_invalid_is_none() {
        let zeros = "0".repeat(32);
        for text in [
            "",
            "00-1-2-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736+00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e4}-0f067aa0ba902b7-01",
            &format!("00-{zeros}-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(Parent::parse(text), None, "{text}");
        }
        // What a later version adds is skipped.
        assert!(Parent::parse(&VALID.replacen("00", "cc", 1)).is_some());
        assert!(
            Parent::parse(&format!("{}-what-follows", VALID.replacen("00", "cc", 1))).is_some()
        );
        assert!(Parent::parse(&format!("{}.x", VALID.replacen("00", "cc", 1))).is_none());
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(VALID));
        assert!(Parent::read(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(VALID));
        assert_eq!(Parent::read(&headers), None);
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        assert_eq!(trace_state(&headers).as_deref(), Some("a=1,b=2"));
    }
}
