//! Says to the service manager that we can be asked (`sd_notify(3)`), so that it starts what wants our
//! credentials no sooner.
//!
//! Invariant: without a service manager, or with one that does not listen, nothing is different.

use std::{
    ffi::OsStr,
    io,
    os::unix::{ffi::OsStrExt as _, net::UnixDatagram},
    path::Path,
};

use crate::ambient::Ambient;

const READY: &[u8] = b"READY=1";

/// Says so to the socket that the environment names.
pub(super) fn tell(ambient: &Ambient) {
    if let Some(address) = ambient.value("NOTIFY_SOCKET") {
        // Who started us that way finds out that nothing came.
        let _ = send(address);
    }
}

fn send(address: &OsStr) -> io::Result<usize> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => send_abstract(&socket, name),
        None => socket.send_to(READY, Path::new(address)),
    }
}

#[cfg(target_os = "linux")]
fn send_abstract(socket: &UnixDatagram, name: &[u8]) -> io::Result<usize> {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
    socket.send_to_addr(READY, &SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn send_abstract(_: &UnixDatagram, _: &[u8]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_is_told() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        tell(&Ambient::from([("NOTIFY_SOCKET", path.to_str().unwrap())]));
        let mut told = [0; 16];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], READY);
        // Neither of these has anybody who listens.
        tell(&Ambient::from([("NOTIFY_SOCKET", "@nobody-listens-here")]));
        tell(&Ambient::default());
    }
}
