//! What a meter has seen go by so far.

use super::{Meter, Watch};

impl Meter {
    /// True once content went by that a client would show.
    #[must_use]
    pub const fn has_content(&self) -> bool {
        self.sample.ttft_us.is_some()
    }

    /// True if the body is read as a stream of events.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        matches!(self.watch, Watch::Stream(_))
    }

    /// True if the stream announced an error of its own.
    #[must_use]
    pub fn has_stream_error(&self) -> bool {
        matches!(&self.watch, Watch::Stream(stream) if stream.error().is_some())
    }

    /// True if the body is a stream that has given its last word.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        matches!(&self.watch, Watch::Stream(stream) if stream.is_terminated())
    }

    /// True if a stream that has shown content has given neither its last word nor an error.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        let Watch::Stream(stream) = &self.watch else {
            return false;
        };
        self.has_content() && !stream.is_terminated() && stream.error().is_none()
    }
}
