//! The ports: handed down by a service manager, or opened here.

use std::net::{SocketAddr, TcpListener as StdListener};

use super::{StartError, other};
use crate::service;

/// The socket that was handed down, else one of our own.
///
/// # Errors
/// If the port cannot be had, or the socket does not fit the configuration.
pub(super) fn listen(
    key: &'static str,
    addr: SocketAddr,
    given: Option<StdListener>,
) -> Result<StdListener, StartError> {
    let Some(given) = given else {
        return bind(key, addr);
    };
    let found = given.local_addr().map_err(other)?;
    service::check(key, found, addr).map_err(other)?;
    given.set_nonblocking(true).map_err(other)?;
    Ok(given)
}

fn bind(key: &'static str, addr: SocketAddr) -> Result<StdListener, StartError> {
    let bind = || {
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        // A restart must not wait for connections of the process before it.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(4_096)?;
        Ok(StdListener::from(socket))
    };
    bind().map_err(|error| StartError::Listen { key, addr, error })
}
