//! System calls and kinds of sockets that a slot is not to have, by what they are for.
#![expect(unsafe_code, reason = "raw system calls are what is tried out")]

use std::io;

type Call = (&'static str, libc::c_long, [libc::c_long; 4]);

/// Harmless where they succeed: with arguments that change nothing, or name nothing.
fn of(purpose: &str) -> Vec<Call> {
    let disabled = 0; // LINUX_REBOOT_CMD_CAD_OFF
    let magic = [0xfee1_dead, 672_274_793];
    match purpose {
        "clocks" => vec![
            ("settimeofday", libc::SYS_settimeofday, [0; 4]),
            ("clock_settime", libc::SYS_clock_settime, [0; 4]),
            ("adjtimex", libc::SYS_adjtimex, [0; 4]),
            ("clock_adjtime", libc::SYS_clock_adjtime, [0; 4]),
        ],
        "power" => vec![("reboot", libc::SYS_reboot, [magic[0], magic[1], disabled, 0])],
        "storage" => vec![
            ("swapon", libc::SYS_swapon, [0; 4]),
            ("swapoff", libc::SYS_swapoff, [0; 4]),
            ("acct", libc::SYS_acct, [1, 0, 0, 0]),
            ("quotactl", libc::SYS_quotactl, [0; 4]),
            ("quotactl_fd", libc::SYS_quotactl_fd, [-1, 0, 0, 0]),
            ("vhangup", libc::SYS_vhangup, [0; 4]),
        ],
        "modules" => vec![
            ("init_module", libc::SYS_init_module, [0; 4]),
            ("finit_module", libc::SYS_finit_module, [-1, 0, 0, 0]),
            ("delete_module", libc::SYS_delete_module, [0; 4]),
            ("kexec_load", libc::SYS_kexec_load, [0; 4]),
            ("kexec_file_load", libc::SYS_kexec_file_load, [-1, -1, 0, 0]),
        ],
        #[cfg(target_arch = "x86_64")]
        "hardware" => vec![
            ("ioperm", libc::SYS_ioperm, [0x80, 1, 1, 0]),
            ("iopl", libc::SYS_iopl, [3, 0, 0, 0]),
        ],
        "mounts" => vec![
            ("mount", libc::SYS_mount, [0; 4]),
            ("umount2", libc::SYS_umount2, [0; 4]),
            ("fsopen", libc::SYS_fsopen, [0; 4]),
            ("fsconfig", libc::SYS_fsconfig, [-1, 0, 0, 0]),
            ("fsmount", libc::SYS_fsmount, [-1, 0, 0, 0]),
            ("fspick", libc::SYS_fspick, [-1, 0, 0, 0]),
            ("open_tree", libc::SYS_open_tree, [-1, 0, 0, 0]),
            ("move_mount", libc::SYS_move_mount, [-1, 0, -1, 0]),
            ("mount_setattr", libc::SYS_mount_setattr, [-1, 0, 0, 0]),
            ("pivot_root", libc::SYS_pivot_root, [0; 4]),
            ("chroot", libc::SYS_chroot, [0; 4]),
            ("setns", libc::SYS_setns, [-1, 0, 0, 0]),
            ("unshare", libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0]),
        ],
        "watching" => vec![
            ("fanotify_init", libc::SYS_fanotify_init, [0; 4]),
            ("name_to_handle_at", libc::SYS_name_to_handle_at, [-1, 0, 0, 0]),
            ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0]),
            ("lookup_dcookie", libc::SYS_lookup_dcookie, [0; 4]),
            ("syslog", libc::SYS_syslog, [2, 0, 0, 0]),
        ],
        "engines" => vec![
            ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0]),
            ("io_uring_enter", libc::SYS_io_uring_enter, [-1, 0, 0, 0]),
            ("io_uring_register", libc::SYS_io_uring_register, [-1, 0, 0, 0]),
            ("bpf", libc::SYS_bpf, [0; 4]),
            ("perf_event_open", libc::SYS_perf_event_open, [0; 4]),
            ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0]),
        ],
        "keys" => vec![
            ("add_key", libc::SYS_add_key, [0; 4]),
            ("request_key", libc::SYS_request_key, [0; 4]),
            ("keyctl", libc::SYS_keyctl, [0, -4, 0, 0]),
        ],
        "memory" => vec![
            ("process_madvise", libc::SYS_process_madvise, [-1, 0, 0, 0]),
            ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0]),
            ("memfd_secret", libc::SYS_memfd_secret, [0; 4]),
            ("clone3", libc::SYS_clone3, [0; 4]),
        ],
        _ => Vec::new(),
    }
}

/// Each fails with EPERM or ENOSYS, which is the walls' word, and not for its arguments.
pub(super) fn refused(purpose: &str) -> Vec<String> {
    let calls = of(purpose);
    let mut faults = Vec::new();
    for (name, number, args) in calls {
        // SAFETY: no pointer is passed but null, which the kernel checks.
        let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], 0, 0) };
        let error = io::Error::last_os_error();
        if result >= 0 || !matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) {
            faults.push(format!("{name}: {result} {error}"));
        }
    }
    faults
}

pub(super) fn families(which: &str) -> Vec<String> {
    let raw = libc::SOCK_RAW;
    let stream = libc::SOCK_STREAM;
    let datagram = libc::SOCK_DGRAM;
    let packets = libc::SOCK_SEQPACKET;
    let kinds: Vec<(&str, [libc::c_int; 3])> = match which {
        "raw" => vec![
            ("icmp", [libc::AF_INET, raw, libc::IPPROTO_ICMP]),
            ("raw ip", [libc::AF_INET, raw, libc::IPPROTO_RAW]),
            ("raw ip 6", [libc::AF_INET6, raw, libc::IPPROTO_RAW]),
        ],
        "packet" => vec![
            ("packets", [libc::AF_PACKET, raw, 0x300]),
            ("datagrams", [libc::AF_PACKET, datagram, 0x300]),
            ("express data path", [libc::AF_XDP, raw, 0]),
        ],
        "vsock" => vec![
            ("stream", [libc::AF_VSOCK, stream, 0]),
            ("datagram", [libc::AF_VSOCK, datagram, 0]),
        ],
        "kernel" => vec![
            ("ciphers", [libc::AF_ALG, packets, 0]),
            ("keys", [libc::AF_KEY, raw, 2]),
            ("multiplexer", [41, datagram, 0]),
        ],
        "rare" => vec![
            ("bluetooth", [libc::AF_BLUETOOTH, raw, 1]),
            ("bus", [libc::AF_CAN, raw, 1]),
            ("cluster", [libc::AF_TIPC, packets, 0]),
            ("x25", [libc::AF_X25, packets, 0]),
            ("nfc", [libc::AF_NFC, packets, 0]),
            ("rds", [libc::AF_RDS, packets, 0]),
            ("qipcrtr", [42, datagram, 0]),
            ("smc", [43, stream, 0]),
        ],
        _ => Vec::new(),
    };
    let made = |kind: &[libc::c_int; 3]| {
        // SAFETY: takes numbers.
        let socket = unsafe { libc::socket(kind[0], kind[1] | libc::SOCK_CLOEXEC, kind[2]) };
        socket >= 0
    };
    kinds
        .iter()
        .filter(|(_, kind)| made(kind))
        .map(|(name, _)| format!("{name} was made"))
        .collect()
}
