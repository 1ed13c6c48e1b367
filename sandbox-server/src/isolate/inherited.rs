//! What a zygote lets go of, so that no slot has it from whoever started the server.
//!
//! What is a limit stays (a positive nice value, fewer processors, lower rlimits); what is a power,
//! a secret, or a way for one slot's state to be another's, goes. Descriptors, signals and the
//! environment are seen to where the zygote is started.
#![expect(unsafe_code, reason = "raw system calls")]

use rustix::{
    fs::Mode,
    process::{
        Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit, umask,
    },
};

/// What a kernel gives a process that asked for nothing.
const TIMER_SLACK_NS: libc::c_ulong = 50_000;
const LOCKED_BYTES_MAX: u64 = 8 << 20;
const QUEUE_BYTES_MAX: u64 = 819_200;
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_CLASS_RT: libc::c_long = 1;
const IOPRIO_CLASS_SHIFT: u32 = 13;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Each is done as far as the kernel lets us: what it refuses, it refuses the slots as well.
pub(crate) fn let_go() {
    umask(Mode::from_raw_mode(0o022));
    session_keyring();
    personality();
    timer_slack();
    schedule();
    for (resource, max) in [
        (Resource::Rtprio, 0),
        (Resource::Nice, 0),
        (Resource::Memlock, LOCKED_BYTES_MAX),
        (Resource::Msgqueue, QUEUE_BYTES_MAX),
    ] {
        lower(resource, max);
    }
}

/// A new one, of nobody's: the server's may hold the keys of its user.
fn session_keyring() {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: takes a number and no name.
    let _ = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) };
}

/// Of a server under `setarch`, whose programs would have no random addresses.
fn personality() {
    // SAFETY: takes a number.
    let _ = unsafe { libc::syscall(libc::SYS_personality, 0) };
}

fn timer_slack() {
    // SAFETY: takes numbers.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0) };
}

/// Before others of the machine nobody comes.
fn schedule() {
    if getpriority_process(None).is_ok_and(|nice| nice < 0) {
        let _ = setpriority_process(None, 0);
    }
    let usual = libc::sched_param { sched_priority: 0 };
    // SAFETY: takes numbers, and parameters that outlive the calls.
    unsafe {
        let policy = libc::syscall(libc::SYS_sched_getscheduler, 0);
        if ![libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE]
            .map(Into::into)
            .contains(&policy)
        {
            let _ =
                libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const usual);
        }
        let disk = libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
        if disk >> IOPRIO_CLASS_SHIFT == IOPRIO_CLASS_RT {
            let _ = libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0);
        }
    }
}

fn lower(resource: Resource, max: u64) {
    let now = getrlimit(resource);
    let least = |limit: Option<u64>| Some(limit.map_or(max, |limit| limit.min(max)));
    let lowered = Rlimit { current: least(now.current), maximum: least(now.maximum) };
    let _ = setrlimit(resource, lowered);
}
