//! What may be done to an answer's body between the meter and the client.
//!
//! Pure. Only what must change changes, and whatever is not concerned passes as it came.
#![deny(clippy::disallowed_methods)]

use bytes::Bytes;

use super::inflate::Inflate;
use crate::llm::{Dialect, ModelEcho, UsageStrip};

/// What may be done to a body on its way. Its length is then not known beforehand.
#[derive(Debug)]
pub struct Edit {
    /// The arm compressed it.
    pub inflate: Option<Box<Inflate>>,
    /// A stream that is cut short ends with an error event of this dialect.
    pub truncation: Option<Dialect>,
    /// The model gets the client's name again.
    pub echo: Option<ModelEcho>,
    /// A stream loses the usage event that its client did not ask for.
    pub strip: Option<UsageStrip>,
}

impl Edit {
    /// What of it the meter needs when nobody gets the answer any more.
    pub(super) fn for_the_meter(self) -> Option<Self> {
        let inflate = Some(self.inflate?);
        Some(Self {
            inflate,
            truncation: None,
            echo: None,
            strip: None,
        })
    }

    /// What may pass now.
    pub(super) fn feed(&mut self, chunk: Bytes) -> Bytes {
        let chunk = match &mut self.echo {
            Some(echo) => echo.feed(&chunk),
            None => chunk,
        };
        match &mut self.strip {
            Some(strip) => strip.feed(&chunk),
            None => chunk,
        }
    }

    /// What still waits at the end of the body.
    pub(super) fn end(&mut self) -> Bytes {
        let rest = self.echo.as_mut().map(ModelEcho::end).unwrap_or_default();
        match &mut self.strip {
            Some(strip) => [strip.feed(&rest), strip.end()].concat().into(),
            None => rest,
        }
    }

    /// Bytes that wait for more.
    pub(super) fn held_bytes(&self) -> usize {
        let echo = self.echo.as_ref().map_or(0, ModelEcho::held_bytes);
        echo + self.strip.as_ref().map_or(0, UsageStrip::held_bytes)
    }
}
