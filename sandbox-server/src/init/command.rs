//! Starting one command: what costs time is done beforehand, and the rest without a copy of memory.
#![expect(unsafe_code, reason = "a vfork by hand, so that steps fit between it and the exec")]

use super::Victims;
use crate::isolate::{Birth, Identity, PATH, Step, WallError, seccomp, sys};
use rustix::{
    fd::{AsFd, AsRawFd},
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
};
use seccompiler::BpfProgram;
use slotmux_protocol::{Isolation, Network, SlotLimits};
use std::{
    ffi::{CStr, CString, c_void},
    io,
    os::fd::{OwnedFd, RawFd},
    ptr,
};

const STACK_BYTES: usize = 64 << 10;

/// What every command of the slot is started with.
pub(super) struct Walls {
    shell: Option<CString>,
    environment: Vec<CString>,
    workspace: CString,
    null: OwnedFd,
    identity: Option<Identity>,
    limits: SlotLimits,
    ruleset: Option<OwnedFd>,
    filters: Vec<BpfProgram>,
    no_network: BpfProgram,
    /// Of the slot. Where it is off, the slot's own walls see to it, and keep loopback if they can.
    network: Network,
    stack: Vec<u128>,
    victims: Option<Victims>,
}

/// A command that runs.
pub(super) struct Started {
    pub(super) pid: i32,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Walls {
    /// `ruleset` and `filters` are for rungs whose init stays outside of them.
    pub(super) fn new(
        birth: &Birth,
        ruleset: Option<OwnedFd>,
        filters: Vec<BpfProgram>,
    ) -> Result<Self, WallError> {
        let shell = super::find_shell();
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .step("open /dev/null")?;
        Ok(Self {
            shell: shell.clone().and_then(|it| CString::new(it).ok()),
            environment: environment(birth, shell.as_deref().unwrap_or("/bin/sh")),
            workspace: sys::c_path(&birth.workspace_inside()).step("name the workspace")?,
            null,
            // In a namespace the init has become the slot's user itself.
            identity: birth.identity.filter(|_| birth.rung == Isolation::Uid),
            limits: own_limits(birth),
            ruleset,
            filters,
            network: birth.network,
            no_network: seccomp::no_network().step("compile a seccomp filter")?,
            stack: vec![0; STACK_BYTES / size_of::<u128>()],
            victims: None,
        })
    }

    pub(super) fn with_victims(mut self, victims: Victims) -> Self {
        self.victims = Some(victims);
        self
    }

    pub(super) fn has_shell(&self) -> bool {
        self.shell.is_some()
    }

    pub(super) fn start(&mut self, command: &CStr, network: Network) -> io::Result<Started> {
        let (stdout, stdout_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_end) = pipe_with(PipeFlags::CLOEXEC)?;
        for ours in [&stdout, &stderr] {
            rustix::fs::fcntl_setfl(ours, OFlags::NONBLOCK)?;
        }
        let shell = self.shell.as_deref().ok_or(io::ErrorKind::NotFound)?;
        // `--`: a command may begin with a dash.
        let argv = [shell.as_ptr(), c"-c".as_ptr(), c"--".as_ptr(), command.as_ptr(), ptr::null()];
        let envp: Vec<_> =
            self.environment.iter().map(|it| it.as_ptr()).chain([ptr::null()]).collect();
        let mut plan = Plan {
            shell: shell.as_ptr(),
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            workspace: self.workspace.as_ptr(),
            stdio: [self.null.as_raw_fd(), stdout_end.as_raw_fd(), stderr_end.as_raw_fd()],
            identity: self.identity,
            limits: &raw const self.limits,
            ruleset: self.ruleset.as_ref(),
            filters: &self.filters,
            no_network: (self.network == Network::On && network == Network::Off)
                .then_some(&self.no_network),
            errno: 0,
        };
        if let Some(victims) = &self.victims {
            victims.mark(true);
        }
        let pid = vfork_into(&mut self.stack, &mut plan);
        if let Some(victims) = &self.victims {
            victims.mark(false);
        }
        let pid = pid?;
        match plan.errno {
            0 => Ok(Started { pid, stdout, stderr }),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// All that the child needs, made by the parent: the child allocates nothing.
struct Plan<'a> {
    shell: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    workspace: *const libc::c_char,
    stdio: [RawFd; 3],
    identity: Option<Identity>,
    limits: *const SlotLimits,
    ruleset: Option<&'a OwnedFd>,
    filters: &'a [BpfProgram],
    no_network: Option<&'a BpfProgram>,
    /// Set by the child when it could not become the command.
    errno: i32,
}

/// Runs `child` on `stack`, in this process's memory, until it execs or ends; we wait that long.
fn vfork_into(stack: &mut [u128], plan: &mut Plan<'_>) -> io::Result<i32> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is aligned, large, and used by nobody while the child has it; the kernel
    // holds this (only) thread until the child has left our memory, so `plan` is not raced on.
    let pid =
        unsafe { libc::clone(child, top.cast(), flags, ptr::from_mut(plan).cast::<c_void>()) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

extern "C" fn child(plan: *mut c_void) -> libc::c_int {
    // SAFETY: `vfork_into` passes a live `Plan` that nobody else touches meanwhile.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    let error = become_command(plan);
    plan.errno = error.raw_os_error().unwrap_or(libc::EIO);
    sys::exit_now(127)
}

/// Returns only on failure. Calls the kernel and nothing else: its memory is its parent's.
fn become_command(plan: &Plan<'_>) -> io::Error {
    // SAFETY: plain system calls on values that the parent keeps alive; signal dispositions and
    // the mask are the child's own.
    unsafe {
        libc::setsid();
        for (to, from) in (0..).zip(plan.stdio) {
            if libc::dup2(from, to) < 0 {
                return io::Error::last_os_error();
            }
        }
        if let Some(identity) = plan.identity
            && let Err(error) = sys::set_ids(identity.uid, identity.uid, identity.uid, identity.uid)
        {
            return error;
        }
        set_limits(&*plan.limits);
        if libc::chdir(plan.workspace) < 0 {
            return io::Error::last_os_error();
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
    if let Err(error) = confine(plan) {
        return error;
    }
    // SAFETY: null-terminated arrays of C strings that the parent keeps alive.
    unsafe { libc::execve(plan.shell, plan.argv, plan.envp) };
    io::Error::last_os_error()
}

/// After the change of user: a fork limit that is counted for the new one.
unsafe fn set_limits(limits: &SlotLimits) {
    let wanted = [
        (libc::RLIMIT_NOFILE, u64::from(limits.open_files_max)),
        (libc::RLIMIT_FSIZE, limits.file_bytes_max),
        (libc::RLIMIT_NPROC, u64::from(limits.processes_max)),
    ];
    for (resource, max) in wanted {
        if max > 0 {
            let limit = libc::rlimit { rlim_cur: max, rlim_max: max };
            // SAFETY: `limit` outlives the call. A lower hard limit of the server stays in force.
            unsafe { libc::setrlimit(resource, &raw const limit) };
        }
    }
}

fn confine(plan: &Plan<'_>) -> io::Result<()> {
    if let Some(ruleset) = plan.ruleset {
        sys::landlock_restrict(ruleset.as_fd())?;
    }
    for filter in plan.filters {
        sys::seccomp_filter(filter)?;
    }
    match plan.no_network {
        Some(filter) => sys::seccomp_filter(filter),
        None => Ok(()),
    }
}

/// Where slots share a user with one another and with people, the kernel counts the processes of
/// all of them: those that are there now are not this slot's.
fn own_limits(birth: &Birth) -> SlotLimits {
    let mut limits = birth.limits;
    let shared = birth.rung <= Isolation::Landlock;
    if shared && limits.processes_max > 0 {
        let others = super::tree::processes_of(birth.server_uid).len();
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        limits.processes_max = limits.processes_max.saturating_add(others);
    }
    limits
}

fn environment(birth: &Birth, shell: &str) -> Vec<CString> {
    let workspace = birth.workspace_inside();
    let pairs = [
        ("PATH", PATH.to_owned()),
        ("HOME", workspace.display().to_string()),
        ("PWD", workspace.display().to_string()),
        ("TMPDIR", birth.tmp_inside().display().to_string()),
        ("USER", "slot".to_owned()),
        ("LOGNAME", "slot".to_owned()),
        ("SHELL", shell.to_owned()),
        // Text is UTF-8. Not LANG: its dozen other categories are the same as C's, and loading
        // their files costs a fifth of a `bash -c true`.
        ("LC_CTYPE", "C.UTF-8".to_owned()),
        ("TERM", "dumb".to_owned()),
    ];
    pairs
        .into_iter()
        .filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok())
        .collect()
}
