//! What a process in a slot has from those before it, and which calls are refused to it.
#![expect(unsafe_code, reason = "raw system calls are what is tried out")]

use std::{fs, io};

const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// Nothing of what [`crate::inheritance`] gave to the server.
pub(super) fn inherited(args: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut is = |what: &str, value: i64, expected: i64| {
        if value != expected {
            faults.push(format!("{what}: {value}, and not {expected}"));
        }
    };
    // SAFETY: these calls take numbers, or pointers to what outlives them.
    unsafe {
        is("umask", libc::umask(0o022).into(), 0o022);
        is("securebits", libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0).into(), 0);
        is("timer slack", libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0).into(), 50_000);
        is("keep_caps", libc::prctl(libc::PR_GET_KEEPCAPS, 0, 0, 0, 0).into(), 0);
        is("personality", libc::personality(0xffff_ffff).into(), 0);
        is("policy", libc::syscall(libc::SYS_sched_getscheduler, 0), 0);
        is("groups", libc::getgroups(0, std::ptr::null_mut()).into(), 0);
        let disk = libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
        is("class of the disk", i64::from(disk >> 13 == 1), 0);
        is("nice", i64::from(libc::getpriority(libc::PRIO_PROCESS, 0) < 0), 0);
        let name = std::ffi::CString::new(args[0]).unwrap();
        let (kind, nowhere) = (c"user".as_ptr(), 0);
        let key = libc::syscall(libc::SYS_keyctl, 10, -3, kind, name.as_ptr(), nowhere);
        is("the server's key", key, -1);
        let mut limit: libc::rlimit = std::mem::zeroed();
        for (what, resource, max) in [
            ("real-time priority", libc::RLIMIT_RTPRIO, 0),
            ("nice limit", libc::RLIMIT_NICE, 0),
            ("core", libc::RLIMIT_CORE, 1),
            ("locked memory", libc::RLIMIT_MEMLOCK, 8 << 20),
        ] {
            is(what, libc::getrlimit(resource, &raw mut limit).into(), 0);
            is(what, i64::from(limit.rlim_max > max || limit.rlim_cur > max), 0);
        }
    }
    let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    is("score", i64::from(score.trim().parse::<i64>().unwrap() < 0), 0);
    is("terminal", i64::from(fs::File::open("/dev/tty").is_ok()), 0);
    faults
}

/// A number, up to three arguments, and the error that must come.
type Refusal = (&'static str, libc::c_long, [libc::c_long; 3], i32);

const EPERM: i32 = libc::EPERM;
const ENOSYS: i32 = libc::ENOSYS;

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> [libc::c_long; 3] {
    [family.into(), kind.into(), protocol.into()]
}

fn refusals() -> Vec<Refusal> {
    let zero = [0; 3];
    let packets = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    let mut all = vec![
        ("alg", libc::SYS_socket, socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0), EPERM),
        ("vsock", libc::SYS_socket, socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0), EPERM),
        ("packet", libc::SYS_socket, socket(libc::AF_PACKET, libc::SOCK_RAW, 0), EPERM),
        ("sock_diag", libc::SYS_socket, socket(libc::AF_NETLINK, libc::SOCK_RAW, 4), EPERM),
        ("netfilter", libc::SYS_socket, socket(libc::AF_NETLINK, libc::SOCK_RAW, 12), EPERM),
        ("sctp", libc::SYS_socket, socket(libc::AF_INET, packets, 0), EPERM),
        ("sctp 6", libc::SYS_socket, socket(libc::AF_INET6, libc::SOCK_STREAM, 132), EPERM),
        ("dccp", libc::SYS_socket, socket(libc::AF_INET, 6, 33), EPERM),
        ("udp-lite", libc::SYS_socket, socket(libc::AF_INET, libc::SOCK_DGRAM, 136), EPERM),
        ("open_tree_attr", 467, zero, EPERM),
        ("personality", libc::SYS_personality, [0x0010_0000, 0, 0], EPERM),
        ("TIOCSTI", libc::SYS_ioctl, [-1, 0x5412, 0], EPERM),
        ("TIOCLINUX", libc::SYS_ioctl, [-1, 0x541c, 0], EPERM),
        ("TIOCCONS", libc::SYS_ioctl, [-1, 0x541d, 0], EPERM),
        ("TIOCSETD", libc::SYS_ioctl, [-1, 0x5423, 0], EPERM),
        ("io_uring_enter", libc::SYS_io_uring_enter, zero, ENOSYS),
        ("io_uring_register", libc::SYS_io_uring_register, zero, ENOSYS),
        ("memfd_secret", libc::SYS_memfd_secret, zero, ENOSYS),
    ];
    for (name, number) in [
        ("acct", libc::SYS_acct),
        ("adjtimex", libc::SYS_adjtimex),
        ("clock_settime", libc::SYS_clock_settime),
        ("delete_module", libc::SYS_delete_module),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("finit_module", libc::SYS_finit_module),
        ("fsconfig", libc::SYS_fsconfig),
        ("fsmount", libc::SYS_fsmount),
        ("fspick", libc::SYS_fspick),
        ("kexec_file_load", libc::SYS_kexec_file_load),
        ("lookup_dcookie", libc::SYS_lookup_dcookie),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("name_to_handle_at", libc::SYS_name_to_handle_at),
        ("nfsservctl", libc::SYS_nfsservctl),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("process_madvise", libc::SYS_process_madvise),
        ("process_mrelease", libc::SYS_process_mrelease),
        ("quotactl", libc::SYS_quotactl),
        ("quotactl_fd", libc::SYS_quotactl_fd),
        ("reboot", libc::SYS_reboot),
        ("sethostname", libc::SYS_sethostname),
        ("swapon", libc::SYS_swapon),
        ("swapoff", libc::SYS_swapoff),
        ("vhangup", libc::SYS_vhangup),
    ] {
        all.push((name, number, zero, EPERM));
    }
    #[cfg(target_arch = "x86_64")]
    all.extend([
        ("modify_ldt", libc::SYS_modify_ldt, zero, ENOSYS),
        ("sysfs", libc::SYS_sysfs, zero, ENOSYS),
        ("iopl", libc::SYS_iopl, zero, EPERM),
        ("ioperm", libc::SYS_ioperm, zero, EPERM),
    ]);
    all
}

/// Each with its own error, and by the filter: none of them is right in its arguments.
pub(super) fn refused_by_errno() -> Vec<String> {
    let mut faults = Vec::new();
    // SAFETY: takes numbers; what it makes is this process's for the short time that it lives.
    let has_netlink = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0) } >= 0;
    // Whoever writes to the audit log goes on without where a kernel has none.
    let expected = if has_netlink { libc::EPROTONOSUPPORT } else { EPERM };
    let args = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT);
    let audit = ("audit", libc::SYS_socket, args, expected);
    for (name, number, args, expected) in refusals().into_iter().chain([audit]) {
        // SAFETY: no pointer is passed but null, which the kernel checks.
        let result = unsafe { libc::syscall(number, args[0], args[1], args[2], 0, 0, 0) };
        let error = io::Error::last_os_error();
        if result >= 0 || error.raw_os_error() != Some(expected) {
            faults.push(format!("{name}: {result} {error}"));
        }
    }
    faults
}

/// What programs use must not be refused along with the rest. `network`: the slot has one.
pub(super) fn allowed_calls(args: &[&str]) -> Vec<String> {
    let none = [0; 3];
    let mut calls = vec![
        ("no random addresses", libc::SYS_personality, [0x0004_0000, 0, 0]),
        ("ask for the personality", libc::SYS_personality, [0xffff_ffff, 0, 0]),
        ("back to the usual one", libc::SYS_personality, none),
        ("ask Landlock for its version", libc::SYS_landlock_create_ruleset, [0, 0, 1]),
        ("memfd_create", libc::SYS_memfd_create, [c"m".as_ptr() as libc::c_long, 0, 0]),
        ("pidfd_open", libc::SYS_pidfd_open, [std::process::id().into(), 0, 0]),
        ("be traced", libc::SYS_ptrace, none),
    ];
    if args.contains(&"network") {
        let (stream, datagram) = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::SOCK_DGRAM);
        calls.extend([
            ("tcp", libc::SYS_socket, socket(libc::AF_INET, stream, libc::IPPROTO_TCP)),
            ("udp", libc::SYS_socket, socket(libc::AF_INET, datagram, 0)),
            ("addresses", libc::SYS_socket, socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
        ]);
    }
    let mut faults = Vec::new();
    for (name, number, args) in calls {
        // SAFETY: what is passed lives for as long as the call.
        let result = unsafe { libc::syscall(number, args[0], args[1], args[2], 0, 0, 0) };
        if result < 0 {
            faults.push(format!("{name}: {}", io::Error::last_os_error()));
        }
    }
    faults
}
