//! Whose socket is at the other end of a connection, if it is on this machine.
//!
//! The kernel is asked for the socket with the reverse addresses, by `NETLINK_SOCK_DIAG`, or where
//! that cannot be had, by `/proc/net/tcp`. Which of the two works is found out by looking for a
//! socket that is known to be there.

mod proc_net;
mod sock_diag;

use sock_diag::SockDiag;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

/// Both ends of a connection, as the server sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

impl Ends {
    /// IPv4 by its own name, also where it came to an IPv6 socket.
    pub(super) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer: canonical(peer), local: canonical(local) }
    }
}

fn canonical(mut address: SocketAddr) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address
}

/// The client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Who made it. Not told once it is closed.
    pub(super) uid: u32,
    /// 0: no process has it open any more.
    pub(super) inode: u64,
}

#[derive(Debug)]
pub(super) enum Finder {
    SockDiag(SockDiag),
    ProcNet,
}

impl Finder {
    /// The error is that of the second way.
    pub(super) fn detect() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let known = Ends::new(client.local_addr()?, client.peer_addr()?);
        let uid = rustix::process::geteuid().as_raw();
        let sees = |it: &Self| match it.find(known) {
            Ok(Some(found)) if found.uid == uid && found.inode != 0 => Ok(()),
            Ok(other) => Err(io::Error::other(format!("a socket was seen as {other:?}"))),
            Err(error) => Err(error),
        };
        if let Ok(diag) = SockDiag::open() {
            let finder = Self::SockDiag(diag);
            if sees(&finder).is_ok() {
                return Ok(finder);
            }
        }
        sees(&Self::ProcNet)?;
        Ok(Self::ProcNet)
    }

    /// `None`: there is no such socket in this network namespace.
    pub(super) fn find(&self, ends: Ends) -> io::Result<Option<Found>> {
        match self {
            // A netlink socket may be short of memory for a moment.
            Self::SockDiag(diag) => diag.find(ends).or_else(|_| proc_net::find(ends)),
            Self::ProcNet => proc_net::find(ends),
        }
    }
}

/// Whether an address is one of this machine's own: then something can be bound to it.
pub(crate) fn is_own(address: SocketAddr) -> bool {
    let mut address = canonical(address);
    if address.ip().is_loopback() {
        return true;
    }
    address.set_port(0);
    match UdpSocket::bind(address) {
        Ok(_) => true,
        // Of an address family that there is not.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => false,
        // Nobody knows; it is for the caller's safety that it is.
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

/// As the kernel writes an address: network order, IPv4 in the first word.
fn words(ip: IpAddr) -> [[u8; 4]; 4] {
    let mut words = [[0; 4]; 4];
    match ip {
        IpAddr::V4(ip) => words[0] = ip.octets(),
        IpAddr::V6(ip) => {
            for (word, octets) in words.iter_mut().zip(ip.octets().chunks_exact(4)) {
                word.copy_from_slice(octets);
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections by each kind of address that can be had here.
    fn connections() -> Vec<(TcpListener, TcpStream)> {
        let mut all = Vec::new();
        for (listen, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.5"),
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "[::ffff:127.0.0.1]"),
            ("[::1]:0", "[::1]"),
        ] {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let port = listener.local_addr().unwrap().port();
            let Ok(client) = TcpStream::connect(format!("{connect}:{port}")) else { continue };
            all.push((listener, client));
        }
        assert!(!all.is_empty());
        all
    }

    fn finders() -> Vec<Finder> {
        let mut all = vec![Finder::ProcNet];
        all.extend(SockDiag::open().map(Finder::SockDiag));
        all
    }

    #[test]
    fn a_socket_is_found_until_it_is_closed_and_then_has_no_holder() {
        let uid = rustix::process::geteuid().as_raw();
        for finder in finders() {
            for (listener, client) in connections() {
                let (server, peer) = listener.accept().unwrap();
                let ends = Ends::new(peer, server.local_addr().unwrap());
                let found = finder.find(ends).unwrap().unwrap();
                assert_eq!(found.uid, uid, "{finder:?} {ends:?}");
                assert_ne!(found.inode, 0, "{finder:?} {ends:?}");
                let other = Ends { peer: ends.local, local: ends.peer };
                let ours = finder.find(other).unwrap().unwrap();
                assert_ne!(ours.inode, found.inode);
                drop(client);
                let left = finder.find(ends).unwrap();
                assert!(left.is_none_or(|it| it.inode == 0), "{finder:?} {left:?}");
            }
        }
    }

    #[test]
    fn a_listener_on_the_same_port_is_not_taken_for_a_client() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ends = Ends::new(peer, SocketAddr::from(([192, 0, 2, 1], 9)));
        for finder in finders() {
            assert_eq!(finder.find(ends).unwrap(), None, "{finder:?}");
        }
    }

    #[test]
    fn one_way_of_finding_works_here() {
        Finder::detect().unwrap();
    }

    #[test]
    fn own_addresses_are_told_from_others() {
        for own in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["192.0.2.1:1", "198.51.100.7:80", "[2001:db8::1]:1"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }
}
