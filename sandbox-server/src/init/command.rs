//! Starting one command: what costs time is done beforehand, and the rest without a copy of memory.
#![expect(unsafe_code, reason = "a vfork by hand, so that steps fit between it and the exec")]

use super::Victims;
use crate::{
    egress,
    isolate::{Birth, Identity, PATH, RootKind, Step, WallError, pty, seccomp, sys},
    wire::End,
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd},
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
};
use seccompiler::BpfProgram;
use slotmux_protocol::{Isolation, Network, SlotLimits};
use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_void},
    io,
    os::fd::{OwnedFd, RawFd},
    ptr,
};

const STACK_BYTES: usize = 64 << 10;
const CPU_SPARE_S: u64 = 3;
/// Where a cgroup limits processes, and counts what it refuses, the rlimit stands behind it.
const PROCESSES_SPARE: u32 = 64;

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
    /// In a root that is the whole image the slot can change its shell.
    owns_shell: bool,
}

/// What to start, and with what.
pub(super) struct Launch<'a> {
    /// After the shell's own name.
    pub(super) argv: &'a [&'a CStr],
    /// Instead of or beside what all commands have; each `NAME=value`.
    pub(super) env: &'a [CString],
    /// From the workspace.
    pub(super) cwd: Option<&'a CStr>,
    pub(super) network: Network,
    pub(super) stdin: Option<BorrowedFd<'a>>,
    pub(super) stdout: BorrowedFd<'a>,
    pub(super) stderr: BorrowedFd<'a>,
    /// More descriptors, and the numbers that they get; none of ours may have such a number.
    pub(super) more: &'a [(RawFd, RawFd)],
    pub(super) leads: Leads,
    /// Of the call that it is for, where it is for one only. 0: no limit.
    pub(super) cpu_ms_max: u64,
}

/// What a new process is the leader of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    /// Of processes in the init's session, where that is as enclosed as they are: others of a session
    /// may be told to go on by anybody in it. One of its own would be another group of the
    /// scheduler, which costs more than what it is for, and gives a slot of many commands more than
    /// its share.
    Group,
    Session,
    /// Of a session whose terminal is its standard input.
    Terminal,
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
            owns_shell: birth.root != RootKind::Minimal,
        })
    }

    pub(super) fn with_victims(mut self, victims: Victims) -> Self {
        self.victims = Some(victims);
        self
    }

    /// What the kernel lets there be, of this user.
    pub(super) fn processes_max(&self) -> usize {
        self.limits.processes_max as usize
    }

    pub(super) fn has_shell(&self) -> bool {
        self.shell.is_some()
    }

    /// The shell is a `bash`.
    pub(super) fn has_bash(&self) -> bool {
        self.shell.as_ref().is_some_and(|it| it.to_bytes().ends_with(b"/bash"))
    }

    /// Starts the shell, and returns its process id.
    pub(super) fn start(&mut self, launch: &Launch<'_>) -> Result<i32, End> {
        let shell = self.shell.as_deref().ok_or(End::NoShell)?;
        let argv: Vec<_> = [shell]
            .into_iter()
            .chain(launch.argv.iter().copied())
            .map(CStr::as_ptr)
            .chain([ptr::null()])
            .collect();
        let envp: Vec<_> = self
            .environment
            .iter()
            .filter(|ours| !is_replaced(ours, launch))
            .chain(launch.env)
            .map(|it| it.as_ptr())
            .chain([ptr::null()])
            .collect();
        let mut plan = Plan {
            shell: shell.as_ptr(),
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            workspace: self.workspace.as_ptr(),
            cwd: launch.cwd.map(CStr::as_ptr),
            stdio: [launch.stdin.unwrap_or(self.null.as_fd()), launch.stdout, launch.stderr]
                .map(|it| it.as_raw_fd()),
            more: launch.more,
            leads: launch.leads,
            cpu_ms_max: launch.cpu_ms_max,
            owns_shell: self.owns_shell,
            identity: self.identity,
            limits: &raw const self.limits,
            ruleset: self.ruleset.as_ref(),
            filters: &self.filters,
            no_network: (self.network != Network::Off && launch.network == Network::Off)
                .then_some(&self.no_network),
            refused: None,
        };
        if let Some(victims) = &self.victims {
            victims.mark(true);
        }
        let pid = vfork_into(&mut self.stack, &mut plan);
        if let Some(victims) = &self.victims {
            victims.mark(false);
        }
        match (pid, plan.refused) {
            (Ok(pid), None) => Ok(pid),
            (Ok(_), Some(refused)) => Err(refused),
            (Err(error), _) => Err(not_started(&error)),
        }
    }
}

/// A pipe whose reading end is ours, and never waited for.
pub(super) fn output_pipe() -> Result<(OwnedFd, OwnedFd), End> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|it| not_started(&it.into()))?;
    rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK).map_err(|it| not_started(&it.into()))?;
    Ok((ours, theirs))
}

pub(super) fn not_started(error: &io::Error) -> End {
    End::NotStarted(error.raw_os_error().unwrap_or(libc::EIO))
}

/// As `NAME=value`; `None` if there is a NUL in one.
pub(super) fn environment_of(env: &BTreeMap<String, String>) -> Option<Vec<CString>> {
    env.iter().map(|(name, value)| CString::new(format!("{name}={value}")).ok()).collect()
}

fn is_replaced(ours: &CStr, launch: &Launch<'_>) -> bool {
    let name = name_of(ours);
    // The shell finds out by itself where it is.
    (launch.cwd.is_some() && name == b"PWD") || launch.env.iter().any(|it| name_of(it) == name)
}

fn name_of(variable: &CStr) -> &[u8] {
    variable.to_bytes().split(|it| *it == b'=').next().unwrap_or_default()
}

/// All that the child needs, made by the parent: the child allocates nothing.
struct Plan<'a> {
    shell: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    workspace: *const libc::c_char,
    cwd: Option<*const libc::c_char>,
    stdio: [RawFd; 3],
    more: &'a [(RawFd, RawFd)],
    leads: Leads,
    cpu_ms_max: u64,
    owns_shell: bool,
    identity: Option<Identity>,
    limits: *const SlotLimits,
    ruleset: Option<&'a OwnedFd>,
    filters: &'a [BpfProgram],
    no_network: Option<&'a BpfProgram>,
    /// Set by the child when it could not become the command.
    refused: Option<End>,
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
    plan.refused = Some(become_command(plan));
    sys::exit_now(127)
}

/// Returns only on failure. Calls the kernel and nothing else: its memory is its parent's.
fn become_command(plan: &Plan<'_>) -> End {
    if let Err(error) = prepare(plan) {
        return not_started(&error);
    }
    // The workspace is the slot's, who may have closed it.
    for dir in [Some(plan.workspace), plan.cwd].into_iter().flatten() {
        // SAFETY: a C string that the parent keeps alive.
        if unsafe { libc::chdir(dir) } < 0 {
            return End::NoDirectory(
                io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
            );
        }
    }
    if let Err(error) = confine(plan) {
        return not_started(&error);
    }
    // SAFETY: null-terminated arrays of C strings that the parent keeps alive.
    unsafe { libc::execve(plan.shell, plan.argv, plan.envp) };
    match io::Error::last_os_error().raw_os_error() {
        Some(errno) if plan.owns_shell && is_of_a_file(errno) => End::NoExec(errno),
        errno => End::NotStarted(errno.unwrap_or(libc::EIO)),
    }
}

/// Whether the file that was to be run is the reason that it was not.
fn is_of_a_file(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENOENT
            | libc::EACCES
            | libc::ENOEXEC
            | libc::ELOOP
            | libc::ENOTDIR
            | libc::ETXTBSY
            | libc::ELIBBAD
    )
}

/// Descriptors, the user, limits, signals.
fn prepare(plan: &Plan<'_>) -> io::Result<()> {
    let stdio = (0..).zip(plan.stdio).map(|(to, from)| (from, to));
    // SAFETY: plain system calls on values that the parent keeps alive; signal dispositions and
    // the mask are the child's own.
    unsafe {
        match plan.leads {
            Leads::Group => libc::setpgid(0, 0),
            Leads::Session | Leads::Terminal => libc::setsid(),
        };
        for (from, to) in stdio.chain(plan.more.iter().copied()) {
            if libc::dup2(from, to) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if plan.leads == Leads::Terminal {
            pty::take(0)?;
        }
        if let Some(identity) = plan.identity {
            sys::set_ids(identity.uid, identity.uid, identity.uid, identity.uid)?;
        }
        set_limits(&*plan.limits, plan.cpu_ms_max);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
    Ok(())
}

/// After the change of user: a fork limit that is counted for the new one.
unsafe fn set_limits(limits: &SlotLimits, cpu_ms_max: u64) {
    // A backstop, of each process for itself: the watch comes before it.
    let cpu_s = if cpu_ms_max > 0 { cpu_ms_max / 1_000 + CPU_SPARE_S } else { 0 };
    let wanted = [
        (libc::RLIMIT_CPU, cpu_s),
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
    if birth.pids_cgroup && limits.processes_max > 0 {
        // Of a shared user the kernel counts everybody's.
        let spare = limits.processes_max.saturating_add(PROCESSES_SPARE);
        limits.processes_max = if shared { 0 } else { spare };
    } else if shared && limits.processes_max > 0 {
        let others = super::tree::tasks_of(birth.server_uid);
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
    let proxy = egress::variables().filter(|_| birth.network == Network::AllowList);
    pairs
        .into_iter()
        .chain(proxy)
        .filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok())
        .collect()
}
