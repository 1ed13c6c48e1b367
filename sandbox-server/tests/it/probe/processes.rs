//! Other processes, and calls that would reach them or the kernel.
#![expect(unsafe_code, reason = "raw system calls are what is tried out")]

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, test_kill_process};
use std::{fs, io};

fn ok(result: libc::c_long) -> bool {
    result >= 0
}

/// No process of `args` can be touched. After `same-user`, what the kernel lets a user do to his
/// processes whatever the walls is left out: count their descriptors.
pub(super) fn outsiders(args: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let same_user = args.first() == Some(&"same-user");
    for number in &args[usize::from(same_user)..] {
        let pid = number.parse().unwrap();
        let mut did = |what: &str, done: bool| {
            if done {
                faults.push(format!("{what} of process {number}"));
            }
        };
        let target = Pid::from_raw(pid).unwrap();
        // A namespace has its own process of a small number: this one, perhaps.
        if target == rustix::process::getpid() {
            continue;
        }
        did("test", test_kill_process(target).is_ok());
        for signal in [Signal::CONT, Signal::USR1, Signal::KILL] {
            did("signal", kill_process(target, signal).is_ok());
        }
        for (name, write) in [("mem", true), ("mem", false), ("environ", false), ("maps", false)] {
            let path = format!("/proc/{pid}/{name}");
            let file = fs::OpenOptions::new().read(true).write(write).open(path);
            let read = file.and_then(|mut it| io::copy(&mut it, &mut io::sink()));
            did(name, read.is_ok_and(|bytes| bytes > 0));
        }
        for name in ["fd", "map_files"] {
            let entries = fs::read_dir(format!("/proc/{pid}/{name}"));
            let seen = entries.is_ok_and(|it| it.flatten().count() > 0);
            did(name, seen && !(same_user && name == "fd"));
        }
        for name in ["exe", "cwd", "root", "fd/0", "ns/mnt"] {
            did(name, fs::read_link(format!("/proc/{pid}/{name}")).is_ok());
        }
        did("root directory", fs::read_dir(format!("/proc/{pid}/root/")).is_ok());
        did("score", fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").is_ok());
        traced(pid, &mut did);
        did("priority", becomes_nicer(pid));
        did("affinity", is_placed(pid));
        did("scheduler", is_scheduled(pid));
    }
    faults
}

fn traced(pid: i32, did: &mut impl FnMut(&str, bool)) {
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(0x40_0000), iov_len: 1 };
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the buffers outlive the calls; nothing of this process is changed.
    unsafe {
        did("seize", ok(libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0)));
        did("attach", ok(libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0)));
        let read = libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0);
        // A wrong address is told only to those who may ask.
        did("read", read >= 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT));
        let written = libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0);
        did(
            "write",
            written >= 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT),
        );
        did(
            "limit",
            libc::prlimit(pid, libc::RLIMIT_CPU, &raw const limit, std::ptr::null_mut()) == 0,
        );
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty());
        if let Ok(pidfd) = pidfd {
            use std::os::fd::AsRawFd as _;
            let pidfd = pidfd.as_raw_fd();
            did("descriptor", ok(libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0)));
            let sent = libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, 0, 0);
            did("signal by descriptor", ok(sent));
        }
    }
}

fn becomes_nicer(pid: i32) -> bool {
    // SAFETY: takes numbers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, pid.cast_unsigned(), 19) == 0 }
}

/// Where it is already: what is asked is whether it may be said.
fn is_placed(pid: i32) -> bool {
    // SAFETY: zero is a valid set; it outlives both calls.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) == 0
            && libc::sched_setaffinity(pid, size_of_val(&set), &raw const set) == 0
    }
}

fn is_scheduled(pid: i32) -> bool {
    let usual = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the calls, the others take numbers.
    unsafe {
        libc::sched_setscheduler(pid, libc::SCHED_BATCH, &raw const usual) == 0
            || libc::sched_setparam(pid, &raw const usual) == 0
            || ok(libc::syscall(libc::SYS_ioprio_set, 1, pid, 3 << 13))
    }
}

/// A process may change itself; neither all of its user, which others may share, nor its parent.
pub(super) fn scheduling() -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |what: &str, done: bool, is: bool| {
        if done != is {
            faults.push(format!("{what}: {}", if done { "done" } else { "refused" }));
        }
    };
    must("affinity of itself", is_placed(0), true);
    must("scheduler of itself", is_scheduled(0), true);
    // SAFETY: these calls take numbers.
    unsafe {
        let own = libc::setpriority(libc::PRIO_PROCESS, 0, 5) == 0;
        must("priority of itself", own, true);
        must("priority of its user", libc::setpriority(libc::PRIO_USER, 0, 6) == 0, false);
        let idle = 3 << 13;
        must("disk of its user", ok(libc::syscall(libc::SYS_ioprio_set, 3, 0, idle)), false);
    }
    faults
}

/// Each of these must fail with EPERM or ENOSYS, and not for its arguments.
pub(super) fn refused_calls() -> Vec<String> {
    let new_user = libc::CLONE_NEWUSER;
    let calls: [(&str, libc::c_long, [libc::c_long; 3]); 24] = [
        ("unshare", libc::SYS_unshare, [new_user.into(), 0, 0]),
        ("unshare nothing", libc::SYS_unshare, [0, 0, 0]),
        ("clone into namespaces", libc::SYS_clone, [(new_user | libc::SIGCHLD).into(), 0, 0]),
        ("clone3", libc::SYS_clone3, [0, 0, 0]),
        ("setns", libc::SYS_setns, [0, 0, 0]),
        ("mount", libc::SYS_mount, [0, 0, 0]),
        ("umount2", libc::SYS_umount2, [0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [0, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, 0, 0]),
        ("add_key", libc::SYS_add_key, [0, 0, 0]),
        ("request_key", libc::SYS_request_key, [0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [0, 0, 0]),
        ("syslog", libc::SYS_syslog, [0, 0, 0]),
        ("chroot", libc::SYS_chroot, [0, 0, 0]),
        ("packet socket", libc::SYS_socket, [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0]),
    ];
    let mut faults = Vec::new();
    for (name, number, args) in calls {
        // SAFETY: no pointer is passed but null, which the kernel checks.
        let result = unsafe { libc::syscall(number, args[0], args[1], args[2], 0, 0, 0) };
        let error = io::Error::last_os_error();
        if result == 0 && name.starts_with("clone") {
            // SAFETY: this is the child that must not be.
            unsafe { libc::_exit(0) };
        }
        if result >= 0 || !matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) {
            faults.push(format!("{name}: {result} {error}"));
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        const X32: libc::c_long = 0x4000_0000;
        // SAFETY: as above.
        let result = unsafe { libc::syscall(X32 | libc::SYS_unshare, new_user) };
        if result >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) {
            faults.push(format!("unshare by its x32 number: {result}"));
        }
    }
    faults
}
