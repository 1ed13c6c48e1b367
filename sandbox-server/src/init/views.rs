//! Directories of a slot that the server sees by way of the slot's own mounts: opened by the init
//! before any command runs, and sent along with its first message.

use crate::wire::{FRAME_BYTES_MAX, FromInit};
use bytes::BytesMut;
use rustix::{
    fd::{AsFd, OwnedFd},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use slotmux_protocol::encode;
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::unix::net::UnixStream,
};
use tokio::io::Interest;

/// The workspace, the root, and the way out of the slot.
const VIEWS_MAX: usize = 3;
/// Of the first message; a longer one comes in parts.
const PART_BYTES: usize = 4_096;

pub(super) fn tell_ready(server: &UnixStream, views: Vec<OwnedFd>) -> io::Result<()> {
    let mut frame = BytesMut::new();
    encode(&FromInit::Ready, FRAME_BYTES_MAX, &mut frame).map_err(io::Error::other)?;
    let fds: Vec<_> = views.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(VIEWS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("too many views"));
    }
    // A few bytes into an empty buffer: they go at once.
    let sent = sendmsg(server, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The first part of what an init says, into `buffer`; and the views that came with it.
pub(crate) async fn receive(
    socket: &tokio::net::UnixStream,
    buffer: &mut BytesMut,
) -> io::Result<Vec<OwnedFd>> {
    let mut bytes = [0; PART_BYTES];
    loop {
        socket.readable().await?;
        let mut views = Vec::new();
        let read = socket.try_io(Interest::READABLE, || read_with(socket, &mut bytes, &mut views));
        match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                buffer.extend_from_slice(&bytes[..length]);
                return Ok(views);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_with(
    socket: &tokio::net::UnixStream,
    bytes: &mut [u8],
    views: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(VIEWS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            views.extend(fds);
        }
    }
    Ok(received.bytes)
}
