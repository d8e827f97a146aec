//! Reads the events of one stream as a client: counts them, misses none, and times them.
//!
//! Every event with content carries its number within its stream and the moment when the provider
//! sent it. Pure but for the clock that it is handed.

use std::time::Instant;

use crate::clients::Seen;
use crate::pacer::{STAMP_DIGITS, Token};

/// What one client knows of its stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    event: Vec<u8>,
    /// Number that the next event must have.
    next: u64,
    /// When the last event was sent and when it arrived, in nanoseconds.
    last: Option<(i64, i64)>,
    fault: Option<String>,
}

impl Reader {
    /// Takes what has arrived just now.
    pub(crate) fn take(&mut self, bytes: &[u8], seen: &Seen, token: &Token) {
        let now = Instant::now();
        seen.bytes.set(seen.bytes.get() + bytes.len() as u64);
        for byte in bytes {
            self.event.push(*byte);
            if self.event.ends_with(b"\n\n") {
                seen.events.set(seen.events.get() + 1);
                self.whole(now, seen, token);
                self.event.clear();
            }
        }
    }

    /// True once an event with content was there.
    pub(crate) const fn has_content(&self) -> bool {
        self.last.is_some()
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// If an event was missing, came twice or was cut.
    pub(crate) fn end(self) -> Result<(), String> {
        match self.fault {
            Some(fault) => Err(fault),
            None if self.event.is_empty() => Ok(()),
            None => Err("half an event at the end of a stream".to_owned()),
        }
    }

    /// Reads number and moment of a whole event; the first and the last ones have none.
    fn whole(&mut self, now: Instant, seen: &Seen, token: &Token) {
        if self.event.len() != token.payload_bytes() {
            return;
        }
        let stamp = self.event.get(token.stamp_in_payload()..);
        let digits = stamp.and_then(|stamp| stamp.get(..STAMP_DIGITS));
        let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let Some((number, sent)) = text.and_then(Token::read) else {
            let event = String::from_utf8_lossy(&self.event);
            self.fault
                .get_or_insert_with(|| format!("an event that nobody sent: {event}"));
            return;
        };
        if number != self.next {
            let next = self.next;
            self.fault
                .get_or_insert_with(|| format!("event {number} where {next} was due"));
        }
        self.next = number + 1;
        let arrived = token.nanoseconds(now);
        if let (true, Some((sent_before, arrived_before))) = (seen.timed.get(), self.last) {
            let added = (arrived - arrived_before) - (sent - sent_before);
            seen.gaps.borrow_mut().push(added);
        }
        self.last = Some((sent, arrived));
    }
}
