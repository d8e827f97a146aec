//! What a service manager and cutover tell each other: sockets that it hands down, and readiness.
//!
//! The protocol is systemd's: `LISTEN_FDS` and `LISTEN_FDNAMES` name open sockets, `NOTIFY_SOCKET` takes
//! news. Without these variables nothing here does anything. Talks to no peer and never stops the daemon:
//! a manager that does not listen is no reason to end.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

use listenfd::ListenFd;

/// The ports that can be handed down, as `FileDescriptorName=` calls them.
const NAMES: [&str; 2] = ["proxy", "admin"];

/// Sockets that were open before this process began; they stay open after it.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For clients.
    pub proxy: Option<TcpListener>,
    /// For operators.
    pub admin: Option<TcpListener>,
}

/// Why sockets that were handed down cannot be used.
#[derive(Debug)]
pub enum SocketError {
    /// There are more than cutover has ports, or two of one name.
    TooMany {
        /// Their names, in order; empty where one has none.
        names: Vec<String>,
    },
    /// One of them is no listening TCP socket.
    Unfit {
        /// Its place, from 1.
        place: usize,
        /// What the system said.
        error: io::Error,
    },
    /// It can be reached from further away than the configuration says, which other rules rest on.
    WiderThanConfigured {
        /// The configuration key.
        key: &'static str,
        /// Where the socket listens.
        found: SocketAddr,
        /// What the configuration says.
        configured: SocketAddr,
    },
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { names } => write!(
                f,
                "{} sockets were handed down ({}); pass one called `proxy` and at most one called `admin`",
                names.len(),
                names.join(", ")
            ),
            Self::Unfit { place, error } => write!(
                f,
                "socket {place} of those handed down cannot be used: {error}; pass listening TCP sockets"
            ),
            Self::WiderThanConfigured {
                key,
                found,
                configured,
            } => write!(
                f,
                "the socket that was handed down listens on {found}, which other machines can reach, \
                 but {key} is {configured}; make them agree"
            ),
        }
    }
}

impl std::error::Error for SocketError {}

impl Sockets {
    /// Takes what the service manager hands down. Call it once, before any thread is started: it
    /// removes the variables from the environment.
    ///
    /// # Errors
    /// [`SocketError::TooMany`] and [`SocketError::Unfit`].
    pub fn from_environment() -> Result<Self, SocketError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut given = ListenFd::from_env();
        let ports = ports_of(&names, given.len())?;
        let mut sockets = Self::default();
        for (index, port) in ports.into_iter().enumerate() {
            let place = index + 1;
            let unfit = |error| SocketError::Unfit { place, error };
            let listener = given.take_tcp_listener(index).map_err(unfit)?;
            match port {
                0 => sockets.proxy = listener,
                _ => sockets.admin = listener,
            }
        }
        Ok(sockets)
    }
}

/// Which of [`NAMES`] each socket is for: by its name if that is one of ours, else the first free one.
fn ports_of(names: &str, count: usize) -> Result<Vec<usize>, SocketError> {
    let names: Vec<&str> = names
        .split(':')
        .chain(std::iter::repeat(""))
        .take(count)
        .collect();
    let named = |name: &str| NAMES.iter().position(|known| *known == name);
    let mut free: Vec<usize> = (0..NAMES.len())
        .filter(|port| !names.iter().any(|name| named(name) == Some(*port)))
        .rev()
        .collect();
    let mut ports = Vec::with_capacity(count);
    for name in &names {
        match named(name).or_else(|| free.pop()) {
            Some(port) if !ports.contains(&port) => ports.push(port),
            _ => {
                let names = names.iter().map(|&name| name.to_owned()).collect();
                return Err(SocketError::TooMany { names });
            }
        }
    }
    Ok(ports)
}

/// Compares a socket that was handed down with the configuration.
///
/// # Errors
/// If other machines can reach it and the configuration says that they cannot: what is refused for an
/// open port was not looked at then. Other differences are logged.
pub fn check(
    key: &'static str,
    found: SocketAddr,
    configured: SocketAddr,
) -> Result<(), SocketError> {
    if configured.ip().is_loopback() && !found.ip().is_loopback() {
        return Err(SocketError::WiderThanConfigured {
            key,
            found,
            configured,
        });
    }
    if found != configured {
        tracing::warn!(
            key,
            %configured,
            %found,
            "the service manager's socket listens elsewhere than the configuration says; the socket counts"
        );
    }
    Ok(())
}

/// Tells the service manager, if there is one: lines like `READY=1` and `STATUS=...`.
pub fn tell(news: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = UnixDatagram::unbound().and_then(|socket| {
        // The kernel's abstract names begin with a zero byte, written as `@`.
        let address = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => UnixAddr::from_abstract_name(name)?,
            None => UnixAddr::from_pathname(&address)?,
        };
        socket.send_to_addr(news.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_by_their_names_and_else_by_their_order() {
        let check = |names: &str, count, expected: &[usize]| {
            assert_eq!(ports_of(names, count).unwrap(), expected, "{names} {count}");
        };
        check("", 0, &[]);
        check("proxy", 0, &[]);
        check("", 1, &[0]);
        check("", 2, &[0, 1]);
        check("admin", 1, &[1]);
        check("admin:proxy", 2, &[1, 0]);
        check("admin:cutover.socket", 2, &[1, 0]);
        check("cutover.socket:cutover-admin.socket", 2, &[0, 1]);
        check("unknown:proxy", 2, &[1, 0]);
    }

    #[test]
    fn more_sockets_than_ports_are_refused_by_their_names() {
        for (names, count) in [("", 3), ("proxy:proxy", 2), ("proxy:admin:x", 3)] {
            let error = ports_of(names, count).unwrap_err().to_string();
            assert!(error.contains(&format!("{count} sockets")), "{error}");
        }
    }

    #[test]
    fn a_socket_that_is_open_to_others_needs_a_configuration_that_says_so() {
        for (found, configured, is_fine) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:2", "127.0.0.1:1", true),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("0.0.0.0:1", "0.0.0.0:1", true),
            ("[::1]:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", false),
            ("[::]:1", "[::1]:1", false),
        ] {
            let checked = check(
                "admin.listen",
                found.parse().unwrap(),
                configured.parse().unwrap(),
            );
            assert_eq!(
                checked.is_ok(),
                is_fine,
                "{found} for {configured}: {checked:?}"
            );
        }
    }
}
