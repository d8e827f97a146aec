//! Compressed answers: whatever the bytes are, pieces are bounded, and what was compressed comes back.
#![no_main]

use std::io::Write;

use bytes::Bytes;
use cutover::proxy::inflate::{Coding, Inflate, PIECE_BYTES};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use libfuzzer_sys::fuzz_target;

/// Nothing that a fuzzer writes has to be unpacked further.
const ENOUGH: usize = 4 * 1024 * 1024;

fuzz_target!(|data: &[u8]| {
    for coding in [Coding::Gzip, Coding::Deflate] {
        let whole = decode(coding, &[data]);
        let bytes: Vec<&[u8]> = data.chunks(1).collect();
        assert_eq!(whole, decode(coding, &bytes), "the cut matters");
    }
    check(
        Coding::Gzip,
        data,
        GzEncoder::new(Vec::new(), Compression::fast()),
    );
    check(
        Coding::Deflate,
        data,
        ZlibEncoder::new(Vec::new(), Compression::fast()),
    );
    check(
        Coding::Deflate,
        data,
        DeflateEncoder::new(Vec::new(), Compression::fast()),
    );
});

/// What comes out, and whether the body may end there; `None` if it is corrupt.
fn decode(coding: Coding, pieces: &[&[u8]]) -> Option<(Vec<u8>, bool)> {
    let mut inflate = Inflate::new(coding);
    let mut out = Vec::new();
    for piece in pieces {
        inflate.feed(Bytes::copy_from_slice(piece));
        while let Some(piece) = inflate.next_piece().ok()? {
            assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES);
            out.extend_from_slice(&piece);
            if out.len() > ENOUGH {
                return None;
            }
        }
    }
    Some((out, inflate.is_whole()))
}

fn check(coding: Coding, data: &[u8], mut encoder: impl Encoder) {
    encoder.write_all(data).expect("memory does not fail");
    let coded = encoder.coded();
    assert_eq!(decode(coding, &[&coded]), Some((data.to_vec(), true)));
    if let Some(cut) = coded.len().checked_sub(1) {
        let cut = decode(coding, &[coded.get(..cut).unwrap_or_default()]);
        assert!(
            cut.is_none_or(|(_, is_whole)| !is_whole),
            "a cut body is whole"
        );
    }
}

trait Encoder: Write {
    fn coded(self) -> Vec<u8>;
}

macro_rules! encoder {
    ($kind:ident) => {
        impl Encoder for $kind<Vec<u8>> {
            fn coded(self) -> Vec<u8> {
                self.finish().expect("memory does not fail")
            }
        }
    };
}

encoder!(GzEncoder);
encoder!(ZlibEncoder);
encoder!(DeflateEncoder);
