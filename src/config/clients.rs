//! The clients that may use the proxy, as the file names them: what their keys hash to, and how much they may ask.
//!
//! Plain values. Holds no key: only its SHA-256. That is enough because keys are long random texts: nobody can
//! try 2^128 of them, so a slow hash like those for passwords would cost every request and protect nothing.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

/// Shorter keys are too easily guessed: 32 characters hold 128 bits even in hexadecimal.
pub const KEY_CHARS_MIN: usize = 32;
/// Fewer different characters are no random text.
const KEY_DISTINCT_MIN: usize = 8;
/// Higher rates are slips of the finger.
const RATE_MOST: u32 = 1_000_000;
const HASH_BYTES: usize = 32;
const KEY_RANDOM_BYTES: usize = 24;
const KEY_PREFIX: &str = "cutover_";
/// How a hash begins in the file.
const HASH_PREFIX: &str = "sha256:";

/// One client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Its name: 1 to 64 of `a-z 0-9 - _`.
    pub name: String,
    /// What its key hashes to.
    pub key_hash: KeyHash,
    /// How much it may ask; `None`: any amount.
    pub rate: Option<Rate>,
}

/// The SHA-256 of a client's key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash([u8; HASH_BYTES]);

impl KeyHash {
    /// Of a key as it stands in a request.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(hash)
    }

    /// Compares in a time that does not depend on what is compared.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl FromStr for KeyHash {
    type Err = &'static str;

    /// Reads `sha256:` and 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "this is no hash of a key";
        let digits = text.trim().strip_prefix(HASH_PREFIX).ok_or(WRONG)?;
        if digits.len() != 2 * HASH_BYTES || !digits.is_ascii() {
            return Err(WRONG);
        }
        let mut hash = [0; HASH_BYTES];
        for (place, byte) in hash.iter_mut().enumerate() {
            let pair = digits.get(2 * place..2 * place + 2).ok_or(WRONG)?;
            // The parser alone would take a sign.
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(WRONG);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for KeyHash {
    /// As it stands in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(masked)")
    }
}

/// Checks a key that somebody brings along.
///
/// # Errors
/// Says what is wrong with it; never repeats it.
pub fn check_key(key: &str) -> Result<(), String> {
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "a key is one word of visible ASCII characters, so that a header can carry it"
                .to_owned(),
        );
    }
    let mut distinct: Vec<u8> = key.bytes().collect();
    distinct.sort_unstable();
    distinct.dedup();
    if key.len() < KEY_CHARS_MIN || distinct.len() < KEY_DISTINCT_MIN {
        return Err(format!(
            "this key can be guessed: it needs at least {KEY_CHARS_MIN} random characters; \
             `cutover client add NAME` makes one"
        ));
    }
    Ok(())
}

/// A new key: 192 bits of chance, with a beginning that tells people and scanners what it is.
///
/// # Errors
/// If the system has no randomness to give.
pub fn new_key() -> Result<String, String> {
    let mut random = [0; KEY_RANDOM_BYTES];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no randomness".to_owned())?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{KEY_PREFIX}{digits}"))
}

/// How many requests in how much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    period: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Second,
    Minute,
}

impl Period {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
        }
    }

    const fn length(self) -> Duration {
        match self {
            Self::Second => Duration::from_secs(1),
            Self::Minute => Duration::from_secs(60),
        }
    }
}

impl Rate {
    /// Nanoseconds from one request to the next when they come evenly; rounded up, so that the rate is kept.
    #[must_use]
    pub fn interval_ns(self) -> u64 {
        let period = u64::try_from(self.period.length().as_nanos()).unwrap_or(u64::MAX);
        period.div_ceil(u64::from(self.requests.get()))
    }
}

impl FromStr for Rate {
    type Err = String;

    /// Reads `100/s` or `600/min`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "this is no rate: write, for example, 100/s or 600/min".to_owned();
        let (requests, period) = text.split_once('/').ok_or_else(wrong)?;
        let period = [Period::Second, Period::Minute]
            .into_iter()
            .find(|known| known.as_str() == period.trim())
            .ok_or_else(wrong)?;
        let requests: NonZeroU32 = requests.trim().parse().map_err(|_| wrong())?;
        if requests.get() > RATE_MOST {
            return Err(format!("a rate is at most {RATE_MOST}/s"));
        }
        Ok(Self { requests, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, self.period.as_str())
    }
}

/// True for what may be a client's name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_everybody_calls_sha256() {
        // As `printf abc | sha256sum` prints it.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hash = KeyHash::of(b"abc");
        assert_eq!(hash.to_string(), format!("sha256:{abc}"));
        let read: KeyHash = format!(" sha256:{} ", abc.to_uppercase()).parse().unwrap();
        assert!(read.is(&hash) && read == hash);
        assert!(!read.is(&KeyHash::of(b"abd")));
        assert!(!format!("{hash:?}").contains("ba78"));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            "sha256:",
            "sha256:abc",
            &long,
            &format!("sha512:{long}"),
            &format!("sha256:{long}a"),
            &format!("sha256:{}g", "a".repeat(63)),
            &format!("sha256:+{}", "a".repeat(63)),
            &format!("sha256:{}", "\u{e4}".repeat(32)),
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
        ] {
            assert!(text.parse::<KeyHash>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        let check = |text: &str, expected: Option<(&str, u64)>| {
            let rate = text.parse::<Rate>().ok();
            let found = rate.map(|rate| (rate.to_string(), rate.interval_ns()));
            let expected = expected.map(|(text, ns)| (text.to_owned(), ns));
            assert_eq!(found, expected, "{text}");
        };
        check("100/s", Some(("100/s", 10_000_000)));
        check(" 600 / min ", Some(("600/min", 100_000_000)));
        check("3/s", Some(("3/s", 333_333_334)));
        check("1/min", Some(("1/min", 60_000_000_000)));
        check("1000000/s", Some(("1000000/s", 1_000)));
        for text in [
            "",
            "100",
            "100/h",
            "0/s",
            "-1/s",
            "1.5/s",
            "/s",
            "1000001/s",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn each_new_key_is_another_one_and_good_enough() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert_ne!(one, other);
        for key in [one, other] {
            assert_eq!(check_key(&key), Ok(()));
            assert_eq!(key.len(), KEY_PREFIX.len() + 2 * KEY_RANDOM_BYTES);
        }
    }

    #[test]
    fn a_key_that_can_be_guessed_is_refused() {
        let check = |key: &str, expected: bool| {
            assert_eq!(check_key(key).is_ok(), expected, "{key}");
        };
        check("0f1e2d3c4b5a69788796a5b4c3d2e1f0", true);
        check("0f1e2d3c4b5a69788796a5b4c3d2e1f", false);
        check(&"a".repeat(40), false);
        check("0f1e2d3c4b5a6978 796a5b4c3d2e1f0", false);
        check("", false);
    }
}
