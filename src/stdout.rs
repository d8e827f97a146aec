//! Standard output, which may be a pipe that somebody closed: `cutover status | head` is no fault.

use std::io::{self, Write as _};

/// Prints a line. What nobody reads any more is dropped.
pub(crate) fn line(text: &str) {
    raw(&format!("{text}\n"));
}

/// Prints a text as it is.
pub(crate) fn raw(text: &str) {
    try_raw(text);
}

/// Prints a text as it is. False if nobody reads any more, which ends whatever prints on and on.
pub(crate) fn try_raw(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}
