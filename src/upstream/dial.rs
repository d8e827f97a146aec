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

/// The connection, and the place in `addresses` of the one that answered.
///
/// # Errors
/// What the last address said, when none answered.
pub(super) async fn dial(addresses: &[SocketAddr]) -> io::Result<(TcpStream, usize)> {
    if let [only] = addresses {
        return TcpStream::connect(only).await.map(|tcp| (tcp, 0));
    }
    let mut racing = JoinSet::new();
    let mut left = addresses.iter().copied().enumerate();
    let mut last = io::Error::other("no address to connect to");
    loop {
        let next = left.next();
        if let Some((place, address)) = next {
            racing.spawn(async move { (place, TcpStream::connect(address).await) });
        }
        let ended = if next.is_some() && left.len() > 0 {
            match tokio::time::timeout(NEXT_AFTER, racing.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        } else {
            racing.join_next().await
        };
        match ended {
            Some(Ok((place, Ok(tcp)))) => return Ok((tcp, place)),
            Some(Ok((_, Err(error)))) => last = error,
            Some(Err(error)) => last = io::Error::other(error),
            None => return Err(last),
        }
    }
}

/// What a failure to connect means for the attempt. What this machine lacks, a descriptor, a port of its
/// own or memory, says nothing about the arm: it was never asked.
pub(super) fn outcome_of(error: &io::Error) -> Outcome {
    /// `ENFILE` and `EMFILE`, the same on every Unix; `ENOBUFS` of Linux and of the BSDs.
    const LACKING: [i32; 4] = [23, 24, 55, 105];
    let lacks = match error.kind() {
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => true,
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
    use std::net::Ipv4Addr;
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

    #[test]
    fn what_this_machine_lacks_is_not_held_against_the_arm() {
        let os = io::Error::from_raw_os_error;
        // ENOMEM, ENFILE, EMFILE, EADDRNOTAVAIL, ENOBUFS
        for code in [12, 23, 24, 99, 105] {
            assert_eq!(outcome_of(&os(code)), Outcome::OverLimit, "{}", os(code));
        }
        // EACCES, ENETUNREACH, ECONNREFUSED, EHOSTUNREACH
        for code in [13, 101, 111, 113] {
            assert_eq!(outcome_of(&os(code)), Outcome::Connect, "{}", os(code));
        }
        let unknown = io::Error::other("no such name");
        assert_eq!(outcome_of(&unknown), Outcome::Connect);
    }

    #[tokio::test]
    async fn one_that_refuses_costs_nothing_and_the_first_in_order_wins() {
        let (refusing, (good, _good), (other, _other)) =
            (refusing().await, listening().await, listening().await);
        assert_eq!(dial(&[refusing, good, other]).await.unwrap().1, 1);
        assert_eq!(dial(&[good, other, refusing]).await.unwrap().1, 0);
        assert_eq!(dial(&[good]).await.unwrap().1, 0);
        let error = dial(&[refusing, refusing]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(dial(&[]).await.is_err());
    }
}
