//! Reads HTTP/1.1 answers off the wire: the head, then a body framed by length or by chunks.
//!
//! Pure: bytes in, facts out. Strict where it matters to the figures: a body that ends early, a
//! status that is not 200 or a framing it does not know is an error, never a shorter answer.

/// Where the head of a message ends, just behind its empty line.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// The value of a header in a head; names are compared without regard to case.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// How far a body has come.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many bytes of a body with a length are missing.
    Length(usize),
    /// In the line that gives a chunk's size.
    Size(usize),
    /// So many bytes of a chunk are missing.
    Chunk(usize),
    /// In the line end behind a chunk.
    ChunkEnd,
    /// In the trailer; so many bytes of its current line were seen.
    Trailer(usize),
    Done,
}

/// A body in progress.
#[derive(Debug)]
pub(crate) struct Body {
    step: Step,
}

impl Body {
    /// Starts the body of an answer whose head this is.
    ///
    /// # Errors
    /// If the status is not 200 or the body has no framing that keeps the connection usable.
    pub(crate) fn of_answer(head: &[u8]) -> Result<Self, String> {
        let head = std::str::from_utf8(head).map_err(|_| "a head that is not text".to_owned())?;
        if !head.starts_with("HTTP/1.1 200") {
            let line = head.lines().next().unwrap_or_default();
            return Err(format!("answered {line:?} instead of 200"));
        }
        if let Some(length) = header(head, "content-length") {
            let length = length
                .parse()
                .map_err(|_| format!("content-length {length:?}"))?;
            return Ok(Self {
                step: Step::Length(length),
            });
        }
        match header(head, "transfer-encoding") {
            Some("chunked") => Ok(Self {
                step: Step::Size(0),
            }),
            other => Err(format!("no content-length and transfer-encoding {other:?}")),
        }
    }

    /// True once the last byte was seen.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done | Step::Length(0))
    }

    /// Takes what it can of `input`, hands body bytes to `sink`, and returns what is left over.
    ///
    /// # Errors
    /// If a chunk's size is not a number.
    pub(crate) fn feed<'a>(
        &mut self,
        mut input: &'a [u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<&'a [u8], String> {
        while !self.is_done() {
            if let Step::Length(missing) | Step::Chunk(missing) = self.step {
                let (body, rest) = input.split_at(missing.min(input.len()));
                sink(body);
                input = rest;
                let missing = missing - body.len();
                self.step = match self.step {
                    Step::Length(_) => Step::Length(missing),
                    _ if missing == 0 => Step::ChunkEnd,
                    _ => Step::Chunk(missing),
                };
                if input.is_empty() {
                    break;
                }
                continue;
            }
            let Some((byte, rest)) = input.split_first() else {
                break;
            };
            input = rest;
            self.step = self.step.after(*byte)?;
        }
        Ok(input)
    }
}

impl Step {
    /// The step behind one byte of framing.
    fn after(self, byte: u8) -> Result<Self, String> {
        Ok(match (self, byte) {
            (Self::Size(0), b'\n') => Self::Trailer(0),
            (Self::Size(size), b'\n') => Self::Chunk(size),
            (Self::Size(size), b'\r') => Self::Size(size),
            (Self::Size(size), digit) => {
                let value = char::from(digit)
                    .to_digit(16)
                    .and_then(|v| usize::try_from(v).ok());
                let value = value.ok_or_else(|| format!("byte {digit:#x} in a chunk's size"))?;
                Self::Size(size * 16 + value)
            }
            (Self::ChunkEnd, b'\n') => Self::Size(0),
            (Self::Trailer(0), b'\n') => Self::Done,
            (Self::Trailer(_), b'\n') => Self::Trailer(0),
            (Self::Trailer(seen), b'\r') => Self::Trailer(seen),
            (Self::Trailer(seen), _) => Self::Trailer(seen + 1),
            (step, _) => step,
        })
    }
}
