//! One TCP connection to whichever of several addresses answers first.
//!
//! An address that swallows packets must not eat the whole time to connect: the next one is tried beside
//! it after [`NEXT_AFTER`], or at once when the one before is refused (RFC 8305). The losers are dropped.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::outcome::Outcome;

/// How long an address is alone in the race.
pub(super) const NEXT_AFTER: Duration = Duration::from_millis(250);

/// Why no address answered.
#[derive(Debug)]
pub(super) struct Undialled {
    /// What was said last, or first where all that followed was lacking something.
    pub(super) error: io::Error,
    /// What that means for the attempt.
    pub(super) outcome: Outcome,
}

impl Undialled {
    fn new(error: io::Error, address: Option<SocketAddr>) -> Self {
        let outcome = outcome_of(&error, address);
        Self { error, outcome }
    }

    /// What there is to say after another address has failed. Where one could be asked, it is the arm's answer
    /// that counts.
    fn and(self, next: Self) -> Self {
        if next.outcome == Outcome::OverLimit {
            self
        } else {
            next
        }
    }
}

/// The connection, and the place in `addresses` of the one that answered.
///
/// # Errors
/// When none answered.
pub(super) async fn dial(addresses: &[SocketAddr]) -> Result<(TcpStream, usize), Undialled> {
    if let [only] = addresses {
        let dialled = TcpStream::connect(only).await;
        return dialled
            .map(|tcp| (tcp, 0))
            .map_err(|error| Undialled::new(error, Some(*only)));
    }
    let mut racing = JoinSet::new();
    let mut left = addresses.iter().copied().enumerate();
    let mut failed: Option<Undialled> = None;
    loop {
        let next = left.next();
        if let Some((place, address)) = next {
            racing.spawn(async move { (place, address, TcpStream::connect(address).await) });
        }
        let ended = if next.is_some() && left.len() > 0 {
            match tokio::time::timeout(NEXT_AFTER, racing.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        } else {
            racing.join_next().await
        };
        let next = match ended {
            Some(Ok((place, _, Ok(tcp)))) => return Ok((tcp, place)),
            Some(Ok((_, address, Err(error)))) => Undialled::new(error, Some(address)),
            Some(Err(error)) => Undialled::new(io::Error::other(error), None),
            None => {
                let none = || Undialled::new(io::Error::other("no address to connect to"), None);
                return Err(failed.unwrap_or_else(none));
            }
        };
        failed = Some(match failed {
            Some(before) => before.and(next),
            None => next,
        });
    }
}

/// What a failure to connect means for the attempt. What this machine lacks, a descriptor, a port of its
/// own or memory, says nothing about the arm: it was never asked.
fn outcome_of(error: &io::Error, address: Option<SocketAddr>) -> Outcome {
    /// `ENFILE` and `EMFILE`, the same on every Unix; `ENOBUFS` of Linux and of the BSDs.
    const LACKING: [i32; 4] = [23, 24, 55, 105];
    let lacks = match error.kind() {
        io::ErrorKind::OutOfMemory => true,
        // No port is left. Over IPv6 it is what a machine says that does not speak it at all.
        io::ErrorKind::AddrNotAvailable => {
            address.is_some_and(|to| to.ip().to_canonical().is_ipv4())
        }
        _ => error
            .raw_os_error()
            .is_some_and(|code| LACKING.contains(&code)),
    };
    if lacks {
        Outcome::OverLimit
    } else {
        Outcome::Connect
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::time::Instant;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// An address that takes packets and never answers, as long as what is returned lives.
    async fn blackhole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody accepts: once the queue is full, the kernel drops whoever knocks.
        let mut queued = Vec::new();
        while queued.len() < 16 {
            let knock = TcpStream::connect(address);
            match tokio::time::timeout(Duration::from_millis(200), knock).await {
                Ok(tcp) => queued.push(tcp.unwrap()),
                Err(_) => return (address, listener, queued),
            }
        }
        panic!("the queue never fills");
    }

    async fn listening() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0));
        let listener = listener.await.unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    async fn refusing() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn an_address_that_answers_nothing_costs_a_quarter_of_a_second() {
        let ((dead, _listener, _queued), (good, _good)) = (blackhole().await, listening().await);
        let began = Instant::now();
        let (tcp, place) = dial(&[dead, good]).await.unwrap();
        assert_eq!((tcp.peer_addr().unwrap(), place), (good, 1));
        assert!(began.elapsed() >= NEXT_AFTER, "{:?}", began.elapsed());
        // The kernel's own limit is minutes away.
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    const FOUR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);
    const SIX: SocketAddr = SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        443,
    );
    const NO_ADDRESS: i32 = 99;

    fn os(code: i32, address: SocketAddr) -> Undialled {
        Undialled::new(io::Error::from_raw_os_error(code), Some(address))
    }

    #[test]
    fn what_this_machine_lacks_is_not_held_against_the_arm() {
        // ENOMEM, ENFILE, EMFILE, ENOBUFS
        for code in [12, 23, 24, 105] {
            for address in [FOUR, SIX] {
                assert_eq!(os(code, address).outcome, Outcome::OverLimit, "{code}");
            }
        }
        // EACCES, ENETUNREACH, ECONNREFUSED, EHOSTUNREACH
        for code in [13, 101, 111, 113] {
            assert_eq!(os(code, FOUR).outcome, Outcome::Connect, "{code}");
        }
        assert_eq!(os(NO_ADDRESS, FOUR).outcome, Outcome::OverLimit);
        // What a machine without IPv6 says.
        assert_eq!(os(NO_ADDRESS, SIX).outcome, Outcome::Connect);
        let unknown = Undialled::new(io::Error::other("no such name"), None);
        assert_eq!(unknown.outcome, Outcome::Connect);
    }

    #[test]
    fn what_one_address_says_counts_more_than_what_was_lacking_for_another() {
        let (refused, files) = (111, 24);
        for (first, next, expected) in [
            (refused, files, Outcome::Connect),
            (files, refused, Outcome::Connect),
            (files, files, Outcome::OverLimit),
        ] {
            let both = os(first, FOUR).and(os(next, FOUR));
            assert_eq!(both.outcome, expected, "{first} {next}");
        }
    }

    #[tokio::test]
    async fn one_that_refuses_costs_nothing_and_the_first_in_order_wins() {
        let (refusing, (good, _good), (other, _other)) =
            (refusing().await, listening().await, listening().await);
        assert_eq!(dial(&[refusing, good, other]).await.unwrap().1, 1);
        assert_eq!(dial(&[good, other, refusing]).await.unwrap().1, 0);
        assert_eq!(dial(&[good]).await.unwrap().1, 0);
        let error = dial(&[refusing, refusing]).await.unwrap_err();
        assert_eq!(error.error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(error.outcome, Outcome::Connect);
        assert!(dial(&[]).await.is_err());
    }
}
