//! slot-init: PID 1 of a slot.
//!
//! One thread that waits for four things at once: the server's orders, ended children, the
//! command's output, and the time. It answers each order once, and reaps whatever is left to it.
//! When the server is gone it ends everything that the slot ever started, then itself.

mod capture;
mod command;
mod kept;
mod looper;
mod outbox;
mod running;
mod sessions;
mod start;
mod tree;
pub(crate) mod views;
mod watch;

use crate::{
    egress,
    isolate::{
        Birth, PATH, Step, WallError, container_ids, drop, landlock, root,
        seccomp::{self, Namespaced},
        sys,
    },
    wire::{FRAME_BYTES_MAX, FromInit},
};
pub(crate) use tree::processes_of;

use command::Walls;
use rustix::process::{Resource, Rlimit, setrlimit};
use slotmux_protocol::{Isolation, Network, encode};
use std::{
    error::Error as _,
    fs,
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::FileExt as _, net::UnixStream},
    },
    path::Path,
    time::Duration,
};
use watch::Watch;

/// Namespaces that a slot-init is born into.
pub(crate) fn namespaces(birth: &Birth) -> libc::c_int {
    if birth.rung != Isolation::Namespaces {
        return 0;
    }
    let mut flags =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if birth.network != Network::On {
        flags |= libc::CLONE_NEWNET;
    }
    // Root mounts with its own powers and enters a user namespace last; others need one to mount.
    if birth.is_born_a_user() {
        flags |= libc::CLONE_NEWUSER;
    }
    flags
}

/// The whole life of a slot-init. Returns the exit code of the process.
pub(crate) fn live(birth: &Birth, socket: OwnedFd, mapped: io::Result<()>) -> i32 {
    let mut server = UnixStream::from(socket);
    let mapped = mapped.step("map the container's users");
    let made = mapped.and_then(|()| watch::open_trees(birth)).and_then(|trees| {
        let way_out = way_out(birth)?;
        let walls = put_up_walls(birth)?;
        let mut handed = root::views(birth)?;
        handed.extend(way_out);
        Ok((walls, handed, trees))
    });
    let (walls, handed, trees) = match made {
        Ok(made) => made,
        Err(error) => {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            let _ = tell(&mut server, &FromInit::Failed { step: error.step, error: cause });
            return 1;
        }
    };
    if views::tell_ready(&server, handed).is_err() {
        return 0;
    }
    match looper::serve(server, birth, walls, Watch::new(birth, trees)) {
        Ok(()) => 0,
        Err(_) => 2,
    }
}

fn tell(server: &mut UnixStream, message: &FromInit) -> std::io::Result<()> {
    let mut frame = bytes::BytesMut::new();
    encode(message, FRAME_BYTES_MAX, &mut frame).map_err(std::io::Error::other)?;
    server.write_all(&frame)
}

/// What the server serves the slot's way out by, last of what it is handed.
fn way_out(birth: &Birth) -> Result<Option<OwnedFd>, WallError> {
    if birth.network != Network::AllowList {
        return Ok(None);
    }
    if birth.rung != Isolation::Namespaces {
        // It is not started so. An init that was would have the whole network.
        return Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
            .step("keep the network to a list");
    }
    sys::loopback_up().step("turn loopback on")?;
    egress::open_inside().map(Some).step("open the way out")
}

fn put_up_walls(birth: &Birth) -> Result<Walls, WallError> {
    no_core_dumps()?;
    let victims = Victims::open();
    rustix::process::setsid().map(|_| ()).or_else(ignore_leader).step("start a session")?;
    match birth.rung {
        Isolation::Namespaces => namespace_walls(birth),
        Isolation::Uid => uid_walls(birth),
        Isolation::Landlock => landlock_walls(birth),
        Isolation::None => no_walls(birth),
    }
    .map(|walls| walls.with_victims(victims))
}

fn namespace_walls(birth: &Birth) -> Result<Walls, WallError> {
    if birth.root.is_in_parts() {
        container_ids::settle()?;
    } else if birth.is_born_a_user() {
        let server = (birth.server_uid, birth.server_gid);
        let (uid, gid) = birth.identity.map_or(server, |it| (it.uid, it.uid));
        drop::map_ids(birth.inside_id(), uid, gid)?;
        if birth.identity.is_some() {
            sys::settle_ids(birth.inside_id()).step("change the user")?;
        }
    }
    if birth.network != Network::On {
        sys::loopback_up().step("turn loopback on")?;
    }
    root::enter(birth)?;
    rustix::system::sethostname(b"slot").step("set the host name")?;
    if let Some(identity) = birth.identity.filter(|_| !birth.is_born_a_user()) {
        sys::set_ids(identity.uid, identity.uid, identity.uid, identity.uid)
            .step("change the user")?;
        sys::unshare_user().step("enter a user namespace")?;
        drop::map_ids(birth.inside_id(), identity.uid, identity.uid)?;
    }
    if birth.root.is_in_parts() {
        drop::all_but_powers_over_files()?;
    } else {
        drop::all_capabilities()?;
    }
    if let Some(ruleset) = landlock::own_abstract_sockets()? {
        sys::landlock_restrict(ruleset.as_fd()).step("keep abstract sockets apart")?;
    }
    for filter in seccomp::slot_filters(Namespaced::Yes).step("compile a seccomp filter")? {
        sys::seccomp_filter(&filter).step("install a seccomp filter")?;
    }
    Walls::new(birth, None, Vec::new())
}

/// The init stays root with little power, so that commands cannot signal or trace it. It goes
/// behind the file rules itself: so all commands are in one Landlock domain, and a later one may
/// signal what an earlier one has started.
fn uid_walls(birth: &Birth) -> Result<Walls, WallError> {
    let ruleset = landlock::ruleset(birth)?;
    drop::all_but_identity_changes()?;
    become_subreaper()?;
    let filters =
        seccomp::slot_filters(Namespaced::No(birth.network)).step("compile a seccomp filter")?;
    let walls = Walls::new(birth, None, filters)?;
    sys::landlock_restrict(ruleset.as_fd()).step("go behind file rules")?;
    Ok(walls)
}

fn landlock_walls(birth: &Birth) -> Result<Walls, WallError> {
    let ruleset = landlock::ruleset(birth)?;
    drop::all_capabilities()?;
    become_subreaper()?;
    let filters =
        seccomp::slot_filters(Namespaced::No(birth.network)).step("compile a seccomp filter")?;
    Walls::new(birth, Some(ruleset), filters)
}

fn no_walls(birth: &Birth) -> Result<Walls, WallError> {
    become_subreaper()?;
    Walls::new(birth, None, Vec::new())
}

/// Orphans of the slot come to the init, as they do to a PID 1.
fn become_subreaper() -> Result<(), WallError> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .step("become the reaper of orphans")
}

/// One byte: 0 would let a `core_pattern` that pipes to a program have them all the same.
fn no_core_dumps() -> Result<(), WallError> {
    setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) })
        .step("forbid core dumps")
}

/// Sees to it that the kernel, out of memory, kills commands and not their init: to raise one's
/// own score needs no privilege, nor does lowering it to where it was.
pub(crate) struct Victims(Option<fs::File>);

impl Victims {
    /// To be opened before the walls: afterwards /proc is another one, or read-only.
    fn open() -> Self {
        Self(fs::OpenOptions::new().write(true).open("/proc/self/oom_score_adj").ok())
    }

    /// What is forked until this is called with `false` is a likely victim.
    pub(crate) fn mark(&self, marked: bool) {
        if let Some(file) = &self.0 {
            // Where it cannot be done the init is as likely a victim as its size makes it.
            let _ = file.write_at(if marked { b"500" } else { b"0" }, 0);
        }
    }
}

fn ignore_leader(error: rustix::io::Errno) -> rustix::io::Result<()> {
    // PID 1 of a new namespace leads its session already on some kernels.
    if error == rustix::io::Errno::PERM { Ok(()) } else { Err(error) }
}

/// `bash`, or else `sh`, as commands will find it.
pub(crate) fn find_shell() -> Option<String> {
    ["bash", "sh"].into_iter().find_map(|name| {
        PATH.split(':').map(|dir| format!("{dir}/{name}")).find(|path| Path::new(path).is_file())
    })
}

fn no_children_left() -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, options), Err(rustix::io::Errno::CHILD))
}

/// The monotonic clock. An init has no runtime whose clock it could take.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
