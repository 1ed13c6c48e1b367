//! `NETLINK_SOCK_DIAG`: one request for one socket, by its addresses.

use super::{Ends, Found, words};
use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
        socket_with, sockopt,
    },
};
use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
const ANSWER_BYTES: usize = HEADER_BYTES + 72;
/// `struct inet_diag_sockid` in both.
const ID_BYTES: usize = 48;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const TCP_LISTEN: u8 = 10;
/// The kernel answers while it is asked; without an answer something is wrong.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct SockDiag {
    socket: OwnedFd,
    /// An answer to an earlier question is told by its number.
    asked: AtomicU32,
}

impl SockDiag {
    pub(super) fn open() -> io::Result<Self> {
        let kind = SocketType::DGRAM;
        let protocol = Some(netlink::SOCK_DIAG);
        let socket = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, asked: AtomicU32::new(0) })
    }

    pub(super) fn find(&self, ends: Ends) -> io::Result<Option<Found>> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        send(&self.socket, &request(ends, number), SendFlags::empty())?;
        let mut buffer = [0_u8; 512];
        loop {
            let (bytes, _) = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            if let Some(answer) = read(&buffer[..bytes], ends, number) {
                return answer;
            }
        }
    }
}

/// The client's end is what is asked for: its source is our peer.
fn request(ends: Ends, number: u32) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    let length = u32::try_from(REQUEST_BYTES).unwrap_or(0);
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes[8..12].copy_from_slice(&number.to_ne_bytes());
    let body = &mut bytes[HEADER_BYTES..];
    body[0] = family(ends.peer);
    body[1] = u8::try_from(libc::IPPROTO_TCP).unwrap_or(0);
    // States: all.
    body[4..8].fill(0xff);
    body[8..56].copy_from_slice(&id(ends));
    bytes
}

fn family(address: SocketAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or(0)
}

fn id(ends: Ends) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    id[0..2].copy_from_slice(&ends.peer.port().to_be_bytes());
    id[2..4].copy_from_slice(&ends.local.port().to_be_bytes());
    id[4..20].copy_from_slice(words(ends.peer.ip()).as_flattened());
    id[20..36].copy_from_slice(words(ends.local.ip()).as_flattened());
    if let SocketAddr::V6(peer) = ends.peer {
        id[36..40].copy_from_slice(&peer.scope_id().to_ne_bytes());
    }
    // No cookie: any socket of these addresses.
    id[40..48].fill(0xff);
    id
}

/// `None`: not an answer to this question.
fn read(bytes: &[u8], ends: Ends, number: u32) -> Option<io::Result<Option<Found>>> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    if word(8)? != number {
        return None;
    }
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    if kind == NLMSG_ERROR {
        let errno = word(HEADER_BYTES)?.cast_signed().saturating_neg();
        return Some(match errno {
            libc::ENOENT => Ok(None),
            other => Err(io::Error::from_raw_os_error(other)),
        });
    }
    if kind != SOCK_DIAG_BY_FAMILY || bytes.len() < ANSWER_BYTES {
        return Some(Err(io::ErrorKind::InvalidData.into()));
    }
    let body = &bytes[HEADER_BYTES..];
    // A listener is what the kernel comes to when there is no connection.
    if body[1] == TCP_LISTEN || !is_of(&body[4..4 + ID_BYTES], body[0], ends) {
        return Some(Ok(None));
    }
    let uid = word(HEADER_BYTES + 64)?;
    let inode = word(HEADER_BYTES + 68)?.into();
    Some(Ok(Some(Found { uid, inode })))
}

/// An IPv4 connection may be that of an IPv6 socket.
fn is_of(answered: &[u8], answered_family: u8, ends: Ends) -> bool {
    let asked = id(ends);
    if answered[..4] != asked[..4] {
        return false;
    }
    let mapped = ends.peer.is_ipv4() && answered_family != family(ends.peer);
    let is = |at: usize| {
        if mapped {
            let ip = [[0; 4], [0; 4], [0, 0, 0xff, 0xff]];
            answered[at..at + 12] == *ip.as_flattened()
                && answered[at + 12..at + 16] == asked[at..at + 4]
        } else {
            let length = if ends.peer.is_ipv4() { 4 } else { 16 };
            answered[at..at + length] == asked[at..at + length]
        }
    };
    is(4) && is(20)
}
