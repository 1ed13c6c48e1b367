//! The zygote: this executable started anew, with one thread and no secrets, to fork slot-inits.
//!
//! It gives one answer to each request, in order, and ends when the server's socket closes. The
//! slot-inits that it forks are children of the *server*, which waits for them.

use super::{Birth, Step, WallError, container_ids::Told, inherited, sys};
use crate::init;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    io::{FdFlags, fcntl_setfd},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    process::Pid,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::unix::{net::UnixStream, process::CommandExt},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// The hidden first argument that turns the executable into a zygote.
pub(crate) const ARGUMENT: &str = "__slot-zygote";
/// The descriptor that a zygote finds its socket at.
const SOCKET: i32 = 3;
const MESSAGE_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
enum Born {
    Yes { pid: i32 },
    No { errno: i32 },
}

/// The server's end.
#[derive(Debug)]
pub(crate) struct Zygote {
    /// One request at a time: answers carry no number. Absent: to be started (again).
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    socket: OwnedFd,
}

/// A slot-init that lives; not yet `Ready`.
#[derive(Debug)]
pub(crate) struct Newborn {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) socket: UnixStream,
}

impl Zygote {
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self { process: Mutex::new(Some(Process::start()?)) })
    }

    /// Has a slot-init forked. Blocks for as long as a fork takes.
    pub(crate) fn bear(&self, birth: &Birth) -> Result<Newborn, WallError> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alive) = process.take() {
            match alive.ask(birth) {
                Ok(newborn) => {
                    *process = Some(alive);
                    return newborn.step("fork a slot-init");
                }
                // It was killed, then; a new one does as well.
                Err(_lost) => alive.end(),
            }
        }
        let fresh = Process::start().step("start the zygote")?;
        let newborn = fresh.ask(birth).step("ask the zygote")?;
        *process = Some(fresh);
        newborn.step("fork a slot-init")
    }

    /// Ends and reaps it. The slot-inits that it forked are not its children, and live on.
    pub(crate) fn end(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = process.take() {
            process.end();
        }
    }
}

impl Process {
    fn start() -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("slotmux-slot-zygote")
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        hand_over(&mut command, theirs);
        Ok(Self { child: command.spawn()?, socket: ours })
    }

    /// Outer error: the zygote is of no use any more.
    fn ask(&self, birth: &Birth) -> io::Result<io::Result<Newborn>> {
        let (ours, theirs) = UnixStream::pair()?;
        send_with_fd(self.socket.as_fd(), &to_bytes(birth)?, Some(theirs.as_fd()))?;
        match recv_with_fd::<Born>(self.socket.as_fd())? {
            Some((Born::Yes { pid }, Some(pidfd))) => {
                let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no process id"))?;
                Ok(Ok(Newborn { pid, pidfd, socket: ours }))
            }
            Some((Born::Yes { .. }, None)) => Err(io::Error::other("the pidfd did not come")),
            Some((Born::No { errno }, _)) => Ok(Err(io::Error::from_raw_os_error(errno))),
            None => Err(io::Error::other("the zygote has ended")),
        }
    }

    fn end(mut self) {
        // It may be gone already; either way it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(unsafe_code, reason = "a descriptor has to be placed between fork and exec")]
fn hand_over(command: &mut Command, socket: OwnedFd) {
    // SAFETY: the closure makes only async-signal-safe calls on a descriptor that it owns.
    unsafe {
        command.pre_exec(move || {
            if socket.as_raw_fd() == SOCKET {
                fcntl_setfd(&socket, FdFlags::empty())?;
            } else if libc::dup2(socket.as_raw_fd(), SOCKET) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// The life of the zygote; and, after a fork, of a slot-init. Returns the process's exit code.
pub(crate) fn live() -> i32 {
    if sys::default_signals().is_err() || sys::close_from(SOCKET + 1).is_err() {
        return 1;
    }
    inherited::let_go();
    #[expect(unsafe_code, reason = "the descriptor was placed by our parent")]
    // SAFETY: `hand_over` put it there and nothing else in this process knows of it.
    let socket = unsafe { OwnedFd::from_raw_fd(SOCKET) };
    if fcntl_setfd(&socket, FdFlags::CLOEXEC).is_err() {
        return 1;
    }
    loop {
        match recv_with_fd::<Birth>(socket.as_fd()) {
            Ok(Some((birth, Some(init_socket)))) => {
                let answer = match fork(&birth) {
                    Ok(Fork::Init(mapped)) => {
                        drop(socket);
                        return init::live(&birth, init_socket, mapped);
                    }
                    Ok(Fork::Of { pid, pidfd }) => (Born::Yes { pid }, Some(pidfd)),
                    // As somebody else it is of no use for the next.
                    Err(_) if !rustix::process::geteuid().is_root() && birth.mounts_as_slot => {
                        return 1;
                    }
                    Err(error) => {
                        (Born::No { errno: error.raw_os_error().unwrap_or(libc::EIO) }, None)
                    }
                };
                drop(init_socket);
                let (born, pidfd) = answer;
                let Ok(bytes) = to_bytes(&born) else { return 1 };
                if send_with_fd(socket.as_fd(), &bytes, pidfd.as_ref().map(AsFd::as_fd)).is_err() {
                    return 0;
                }
            }
            Ok(None) => return 0,
            Ok(Some((_, None))) | Err(_) => return 1,
        }
    }
}

/// What this process is after a fork.
enum Fork {
    /// Whether its ids were mapped, where somebody else has to do that.
    Init(io::Result<()>),
    Of {
        pid: i32,
        pidfd: OwnedFd,
    },
}

/// A user namespace belongs to whoever makes it, and only its maker may map itself.
fn fork(birth: &Birth) -> io::Result<Fork> {
    let flags = init::namespaces(birth);
    if birth.root.is_in_parts() {
        return fork_with_ids(flags);
    }
    let forked = match birth.identity.filter(|_| flags & libc::CLONE_NEWUSER != 0) {
        None => sys::fork_for_parent(flags)?,
        Some(identity) => {
            let forked = sys::lend_ids(identity.uid, identity.uid)
                .and_then(|()| sys::fork_for_parent(flags));
            if !matches!(forked, Ok(sys::Forked::Child)) {
                sys::settle_ids(0)?;
            }
            forked?
        }
    };
    Ok(match forked {
        sys::Forked::Child => Fork::Init(Ok(())),
        sys::Forked::Parent { pid, pidfd } => Fork::Of { pid, pidfd },
    })
}

fn fork_with_ids(flags: libc::c_int) -> io::Result<Fork> {
    let told = Told::new()?;
    Ok(match sys::fork_for_parent(flags)? {
        sys::Forked::Child => Fork::Init(told.wait()),
        sys::Forked::Parent { pid, pidfd } => {
            // Where not even that can be told the child hears of its end, and says so.
            let _ = told.map(pid);
            Fork::Of { pid, pidfd }
        }
    })
}

fn to_bytes<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(io::Error::other)
}

fn send_with_fd(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// `None`: the other end is closed.
fn recv_with_fd<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let message = serde_json::from_slice(&bytes[..received.bytes]).map_err(io::Error::other)?;
    Ok(Some((message, fd)))
}
