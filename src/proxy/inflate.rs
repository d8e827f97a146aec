//! Decodes an answer that the arm compressed although it was asked not to.
//!
//! Pure and incremental: what has arrived is decoded at once, so that a flushed event never waits for the
//! next one, and in pieces of at most [`PIECE_BYTES`], so that a small body that unpacks to a huge one is
//! never in memory as a whole. What is not decoded yet waits compressed. It must never end a body early:
//! [`Inflate::is_whole`] says whether one may end where it did.
#![deny(clippy::disallowed_methods)]

use bytes::{Buf, Bytes};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use memchr::memchr;

/// Longest decoded piece.
pub const PIECE_BYTES: usize = 16 * 1024;
/// A gzip header may hold a file's name and a comment. Nobody sends long ones with an answer.
const HEADER_BYTES_MAX: usize = 4 * 1024;
const TRAILER_BYTES: usize = 8;

/// A coding that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, of one or more members.
    Gzip,
    /// `deflate`: with the wrapper of zlib, or without, as some servers send it.
    Deflate,
}

/// The body is not what its coding says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

/// Decodes one body.
#[derive(Debug)]
pub struct Inflate {
    coding: Coding,
    part: Part,
    /// What has arrived and is not decoded. Between two calls: a piece of a header or trailer, or what is
    /// behind the piece that was given last.
    input: Bytes,
    piece: Vec<u8>,
    /// Of the current member.
    sum: Crc,
    /// Some member is complete.
    any_whole: bool,
}

/// What comes next in the input.
#[derive(Debug)]
enum Part {
    Header,
    Data(Decompress),
    Trailer,
    /// Nothing may follow.
    End,
    /// Nothing after a fault can be read.
    Fault,
}

impl Inflate {
    /// At the start of a body.
    #[must_use]
    pub fn new(coding: Coding) -> Self {
        Self {
            coding,
            part: Part::Header,
            input: Bytes::new(),
            piece: Vec::with_capacity(PIECE_BYTES),
            sum: Crc::new(),
            any_whole: false,
        }
    }

    /// Takes the next bytes. Ask for all pieces before there are more.
    pub fn feed(&mut self, chunk: Bytes) {
        self.input = if self.input.is_empty() {
            chunk
        } else {
            [&*self.input, &*chunk].concat().into()
        };
    }

    /// The next piece; `None` until more is fed.
    ///
    /// # Errors
    /// If the body is corrupt. What came before the fault has been given out by then.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, Corrupt> {
        loop {
            let goes_on = match &mut self.part {
                Part::Header => self.begin(),
                Part::Data(_) => {
                    if let Some(piece) = self.decode() {
                        return Ok(Some(piece));
                    }
                    !matches!(self.part, Part::Data(_)) || !self.input.is_empty()
                }
                Part::Trailer => self.check_trailer(),
                Part::End if self.input.is_empty() => false,
                Part::End | Part::Fault => return Err(Corrupt),
            };
            if !goes_on {
                return Ok(None);
            }
        }
    }

    /// True if the body may end here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.part, Part::Header | Part::End) && self.input.is_empty()
    }

    /// Reads what precedes the data. False if more of it has to arrive.
    fn begin(&mut self) -> bool {
        if self.any_whole {
            // Files are padded with zeros now and then.
            let padding = self.input.iter().take_while(|byte| **byte == 0).count();
            self.input.advance(padding);
        }
        if self.input.is_empty() {
            return false;
        }
        let header = match self.coding {
            Coding::Gzip => gzip_header(&self.input).map(|length| length.map(|at| (at, false))),
            // The wrapper is the decoder's to read.
            Coding::Deflate => Ok(has_zlib_wrapper(&self.input).map(|wrapped| (0, wrapped))),
        };
        match header {
            Ok(Some((length, wrapped))) => {
                self.input.advance(length);
                self.sum.reset();
                self.part = Part::Data(Decompress::new(wrapped));
                true
            }
            Ok(None) if self.input.len() <= HEADER_BYTES_MAX => false,
            Ok(None) | Err(Corrupt) => {
                self.part = Part::Fault;
                true
            }
        }
    }

    /// Decodes up to one piece. `None`: there is nothing more in what has arrived, or in the data.
    fn decode(&mut self) -> Option<Bytes> {
        let Part::Data(inflater) = &mut self.part else {
            return None;
        };
        self.piece.clear();
        let before = inflater.total_in();
        let status = inflater.decompress_vec(&self.input, &mut self.piece, FlushDecompress::None);
        let used = usize::try_from(inflater.total_in() - before).unwrap_or(usize::MAX);
        self.input.advance(used.min(self.input.len()));
        match status {
            Ok(Status::StreamEnd) => {
                self.any_whole = true;
                self.part = match self.coding {
                    Coding::Gzip => Part::Trailer,
                    Coding::Deflate => Part::End,
                };
            }
            Ok(Status::Ok | Status::BufError) => {
                let is_stuck = self.piece.is_empty() && used == 0 && !self.input.is_empty();
                if is_stuck {
                    self.part = Part::Fault;
                }
            }
            Err(_) => self.part = Part::Fault,
        }
        if self.piece.is_empty() {
            return None;
        }
        self.sum.update(&self.piece);
        Some(Bytes::copy_from_slice(&self.piece))
    }

    /// Compares checksum and length. False if more of them has to arrive.
    fn check_trailer(&mut self) -> bool {
        if self.input.len() < TRAILER_BYTES {
            return false;
        }
        let is_right = self.input.get_u32_le() == self.sum.sum()
            && self.input.get_u32_le() == self.sum.amount();
        self.part = if is_right { Part::Header } else { Part::Fault };
        true
    }
}

/// The length of the gzip header that the bytes begin with; `None` if it is not there as a whole.
fn gzip_header(bytes: &[u8]) -> Result<Option<usize>, Corrupt> {
    const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
    const CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;
    if bytes
        .iter()
        .zip(MAGIC)
        .any(|(found, known)| *found != known)
    {
        return Err(Corrupt);
    }
    let Some(&flags) = bytes.get(3) else {
        return Ok(None);
    };
    if flags & RESERVED != 0 {
        return Err(Corrupt);
    }
    let mut at = 10;
    if flags & EXTRA != 0 {
        let Some(&[low, high]) = bytes.get(at..at + 2) else {
            return Ok(None);
        };
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let Some(end) = bytes.get(at..).and_then(|rest| memchr(0, rest)) else {
                return Ok(None);
            };
            at += end + 1;
        }
    }
    if flags & CRC != 0 {
        at += 2;
    }
    Ok((bytes.len() >= at).then_some(at))
}

/// True if the data begin with the two bytes of a zlib header; `None` if they are not there yet.
fn has_zlib_wrapper(bytes: &[u8]) -> Option<bool> {
    let &[first, second] = bytes.get(..2)? else {
        return None;
    };
    let is_deflate = first & 0x0f == 8 && first >> 4 <= 7;
    Some(is_deflate && u16::from_be_bytes([first, second]).is_multiple_of(31))
}

#[cfg(test)]
mod tests;
