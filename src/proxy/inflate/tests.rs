use std::io::Write;

use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{Compression, GzBuilder};
use proptest::prelude::*;

use super::Coding::{Deflate, Gzip};
use super::*;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn raw(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// All that a body decodes to, whether it is corrupt, and whether it may end there.
fn decoded<'a>(
    coding: Coding,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<u8>, Result<(), Corrupt>, bool) {
    let mut inflate = Inflate::new(coding);
    let mut out = Vec::new();
    for chunk in chunks {
        inflate.feed(Bytes::copy_from_slice(chunk));
        loop {
            match inflate.next_piece() {
                Ok(Some(piece)) => {
                    assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES);
                    out.extend_from_slice(&piece);
                }
                Ok(None) => break,
                Err(Corrupt) => {
                    assert_eq!(inflate.next_piece(), Err(Corrupt), "it stays corrupt");
                    return (out, Err(Corrupt), inflate.is_whole());
                }
            }
        }
    }
    (out, Ok(()), inflate.is_whole())
}

/// Text with repeats, longer than several pieces.
fn long_text() -> Vec<u8> {
    let lines = (0..9_000).map(|n: u32| format!("data: {}\n\n", n.wrapping_mul(2_654_435_761)));
    lines.collect::<String>().into_bytes()
}

#[test]
fn every_coding_decodes_however_it_is_split() {
    let text = long_text();
    let members = [gzip(b"one"), gzip(b""), gzip(&text), vec![0; 5]].concat();
    let named = {
        let builder = GzBuilder::new().filename("a").comment("b").extra(*b"xyz");
        let mut encoder = builder.write(Vec::new(), Compression::default());
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap()
    };
    let cases = [
        (Gzip, gzip(&text), text.clone()),
        (Gzip, members, [b"one", text.as_slice()].concat()),
        (Gzip, named, text.clone()),
        (Gzip, gzip(b""), Vec::new()),
        (Gzip, Vec::new(), Vec::new()),
        (Deflate, zlib(&text), text.clone()),
        (Deflate, raw(&text), text.clone()),
        (Deflate, zlib(b"x"), b"x".to_vec()),
        (Deflate, raw(b"x"), b"x".to_vec()),
    ];
    for (coding, body, expected) in cases {
        for size in [1, 2, 7, 1000, body.len().max(1)] {
            let found = decoded(coding, body.chunks(size));
            assert!(
                found == (expected.clone(), Ok(()), true),
                "{coding:?} {size}"
            );
        }
    }
}

#[test]
fn what_is_flushed_comes_out_at_once() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut inflate = Inflate::new(Gzip);
    for event in ["data: a\n\n", "data: b\n\n", "data: [DONE]\n\n"] {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
        inflate.feed(std::mem::take(encoder.get_mut()).into());
        let mut out = Vec::new();
        while let Some(piece) = inflate.next_piece().unwrap() {
            out.extend_from_slice(&piece);
        }
        assert_eq!(out, event.as_bytes());
        assert!(!inflate.is_whole());
    }
}

#[test]
fn a_cut_body_gives_what_was_there_and_is_not_whole() {
    let text = long_text();
    for (coding, body) in [
        (Gzip, gzip(&text)),
        (Deflate, zlib(&text)),
        (Deflate, raw(&text)),
    ] {
        for cut in [1, 5, 15, body.len() / 2, body.len() - 1] {
            let (out, result, is_whole) = decoded(coding, [&body[..cut]]);
            assert!(text.starts_with(&out), "{coding:?} {cut}");
            assert_eq!((result, is_whole), (Ok(()), false), "{coding:?} {cut}");
        }
    }
}

#[test]
fn what_is_no_such_body_is_corrupt_and_what_came_before_is_given_out() {
    let mut wrong_sum = gzip(b"before");
    let at = wrong_sum.len() - 8;
    wrong_sum[at] ^= 1;
    let mut wrong_length = gzip(b"before");
    *wrong_length.last_mut().unwrap() ^= 1;
    let mut wrong_zlib_sum = zlib(b"before");
    *wrong_zlib_sum.last_mut().unwrap() ^= 1;
    let long_name = [
        &[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0],
        vec![b'x'; 5_000].as_slice(),
    ]
    .concat();
    let cases: [(Coding, Vec<u8>, &str); 9] = [
        (Gzip, b"{\"choices\":[]}".to_vec(), ""),
        (Gzip, [0x1f, 0x8b, 8, 0xff].to_vec(), ""),
        (Gzip, long_name, ""),
        (Gzip, wrong_sum, "before"),
        (Gzip, wrong_length, "before"),
        (
            Gzip,
            [gzip(b"before"), b"and behind".to_vec()].concat(),
            "before",
        ),
        (
            Deflate,
            [zlib(b"before"), b"and behind".to_vec()].concat(),
            "before",
        ),
        (Deflate, wrong_zlib_sum, "before"),
        (Deflate, b"data: {\"choices\":[]}\n\n".to_vec(), ""),
    ];
    for (coding, body, before) in cases {
        for size in [1, body.len()] {
            let (out, result, is_whole) = decoded(coding, body.chunks(size));
            let found = (String::from_utf8(out).unwrap(), result, is_whole);
            assert_eq!(found, (before.to_owned(), Err(Corrupt), false), "{body:?}");
        }
    }
}

#[test]
fn a_body_that_unpacks_to_a_huge_one_comes_piece_by_piece() {
    const ZEROS: usize = 100 * 1024 * 1024;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..100 {
        encoder.write_all(&vec![0; ZEROS / 100]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 200_000);
    let mut inflate = Inflate::new(Gzip);
    inflate.feed(bomb.into());
    let mut total = 0;
    while let Some(piece) = inflate.next_piece().unwrap() {
        total += piece.len();
        assert!(piece.len() <= PIECE_BYTES);
        assert!(inflate.piece.capacity() <= 2 * PIECE_BYTES);
    }
    assert_eq!((total, inflate.is_whole()), (ZEROS, true));
}

proptest! {
    #[test]
    fn any_text_comes_back_whatever_the_chunks(
        text in prop::collection::vec(prop_oneof![4 => Just(b'a'), 1 => any::<u8>()], 0..4_000),
        size in 1usize..500,
    ) {
        for (coding, body) in [(Gzip, gzip(&text)), (Deflate, zlib(&text)), (Deflate, raw(&text))] {
            let (out, result, is_whole) = decoded(coding, body.chunks(size));
            prop_assert!(out == text && result.is_ok() && is_whole);
        }
    }

    #[test]
    fn no_bytes_at_all_make_it_panic_or_loop(
        gzipped in any::<bool>(),
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20),
    ) {
        let begin: &[u8] = if gzipped { &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3] } else { &[] };
        for coding in [Gzip, Deflate] {
            let chunks = chunks.iter().map(Vec::as_slice);
            drop(decoded(coding, std::iter::once(begin).chain(chunks)));
        }
    }
}
