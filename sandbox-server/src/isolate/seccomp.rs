//! The system calls that a slot may not make.
//!
//! A list of refusals, not of permissions: a slot runs any program of any image. Refused is what
//! reaches past the slot (mounts, namespaces, modules, clocks, keys), and what has been the way
//! into kernels (`bpf`, `io_uring`, `userfaultfd`). Refused calls fail with EPERM, or with ENOSYS where
//! programs then take another way.
//!
//! Left to slots, because programs use it and the kernel itself keeps it within the slot: `ptrace`
//! and `process_vm_*` (debuggers), `personality` (but for a page at address 0), `seccomp` and
//! `landlock_*` (sandboxes of their own), `vmsplice`, memory policies, AIO.

mod sockets;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use slotmux_protocol::Network;
use std::{collections::BTreeMap, io};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

const EPERM: u32 = libc::EPERM.cast_unsigned();
const ENOSYS: u32 = libc::ENOSYS.cast_unsigned();
const EPROTONOSUPPORT: u32 = libc::EPROTONOSUPPORT.cast_unsigned();

/// Of Linux 6.15; the number is the same on every architecture.
const OPEN_TREE_ATTR: libc::c_long = 467;

/// Refused whatever the arguments.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] =
    &[libc::SYS__sysctl, libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_uselib, libc::SYS_ustat];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// Segments for 16-bit programs, and a list of file systems: kernels are built without them.
#[cfg(target_arch = "x86_64")]
const ABSENT_HERE: &[libc::c_long] = &[libc::SYS_modify_ldt, libc::SYS_sysfs];
#[cfg(not(target_arch = "x86_64"))]
const ABSENT_HERE: &[libc::c_long] = &[];

/// Objects of System V and POSIX queues outlive their makers; without an IPC namespace nobody
/// could tell whose they are.
const LASTING: &[libc::c_long] =
    &[libc::SYS_mq_open, libc::SYS_msgget, libc::SYS_semget, libc::SYS_shmget];

/// "No such call": programs fall back to older ones, which are looked at here.
const ABSENT: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_memfd_secret,
];

/// Calls that change how others are scheduled: an argument, and its value where the caller alone is
/// meant. Any other value is refused.
const SCHEDULING: &[(libc::c_long, u8, u64)] = &[
    (libc::SYS_ioprio_set, 0, IOPRIO_WHO_PROCESS),
    (libc::SYS_ioprio_set, 1, 0),
    (libc::SYS_sched_setaffinity, 0, 0),
    (libc::SYS_sched_setattr, 0, 0),
    (libc::SYS_sched_setparam, 0, 0),
    (libc::SYS_sched_setscheduler, 0, 0),
    (libc::SYS_setpriority, 0, libc::PRIO_PROCESS as u64),
    (libc::SYS_setpriority, 1, 0),
];
const IOPRIO_WHO_PROCESS: u64 = 1;

/// What namespaces do for a slot, and filters have to where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespaced {
    Yes,
    No(Network),
}

/// The walls of a slot, each installed after the other. Of two that refuse a call the later says how.
pub(crate) fn slot_filters(namespaced: Namespaced) -> io::Result<Vec<BpfProgram>> {
    let (families, lasting, scheduling) = match namespaced {
        Namespaced::Yes => (sockets::OWN_ROOT, &[][..], &[][..]),
        Namespaced::No(Network::On) => (sockets::ON, LASTING, SCHEDULING),
        // A list is held by namespaces alone: without them there is nothing.
        Namespaced::No(Network::Off | Network::AllowList) => (sockets::OFF, LASTING, SCHEDULING),
    };
    let numbers = REFUSED.iter().chain(REFUSED_HERE).chain(lasting);
    let mut refused: Rules = numbers.map(|nr| (*nr, vec![])).collect();
    for (number, argument, own) in scheduling {
        refused.entry(*number).or_default().push(rule(vec![not(*argument, *own)?])?);
    }
    if namespaced != Namespaced::Yes {
        refused.insert(libc::SYS_socketpair, vec![sockets::datagram_pairs()?]);
    }
    refused.insert(libc::SYS_clone, namespaces_of_clone()?);
    refused.insert(libc::SYS_ioctl, terminal_takeover()?);
    refused.insert(libc::SYS_personality, vec![page_at_zero()?]);
    refused.insert(libc::SYS_prlimit64, vec![rule(vec![not(0, 0)?])?]);
    refused.insert(libc::SYS_socket, sockets::refused(families)?);
    let absent: Rules = ABSENT.iter().chain(ABSENT_HERE).map(|nr| (*nr, vec![])).collect();
    let unknown = Rules::from([(libc::SYS_socket, sockets::unknown()?)]);
    let mut filters = vec![compile(refused, EPERM)?, compile(absent, ENOSYS)?];
    if families.contains(&libc::AF_NETLINK) {
        filters.push(compile(unknown, EPROTONOSUPPORT)?);
    }
    Ok(filters)
}

/// For one call without network in a slot that has one. What else is refused stays so.
pub(crate) fn no_network() -> io::Result<BpfProgram> {
    let sockets = sockets::refused(sockets::OWN_ROOT_OFF)?;
    compile(Rules::from([(libc::SYS_socket, sockets)]), EPERM)
}

/// `clone` with any namespace flag.
fn namespaces_of_clone() -> io::Result<Vec<SeccompRule>> {
    const NAMESPACES: [libc::c_int; 7] = [
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ];
    NAMESPACES
        .into_iter()
        .map(|flag| {
            let flag = u64::from(flag.cast_unsigned());
            rule(vec![condition(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?])
        })
        .collect()
}

/// Typing into a terminal for its owner, taking over its messages, or having the kernel load
/// another line discipline for it.
fn terminal_takeover() -> io::Result<Vec<SeccompRule>> {
    const TIOCCONS: u64 = 0x541d;
    const TIOCSETD: u64 = 0x5423;
    [libc::TIOCSTI, libc::TIOCLINUX, TIOCCONS, TIOCSETD]
        .into_iter()
        .map(|request| {
            rule(vec![condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?])
        })
        .collect()
}

/// Of old systems; where a null pointer then leads is the dream of who attacks a kernel. To ask
/// for the personality sets every bit.
fn page_at_zero() -> io::Result<SeccompRule> {
    const MMAP_PAGE_ZERO: u64 = 0x0010_0000;
    const ASK: u64 = 0xffff_ffff;
    rule(vec![masked(0, MMAP_PAGE_ZERO, MMAP_PAGE_ZERO)?, not(0, ASK)?])
}

fn not(arg: u8, value: u64) -> io::Result<SeccompCondition> {
    condition(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

fn masked(arg: u8, mask: u64, value: u64) -> io::Result<SeccompCondition> {
    condition(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn condition(
    arg: u8,
    length: SeccompCmpArgLen,
    op: SeccompCmpOp,
    value: u64,
) -> io::Result<SeccompCondition> {
    SeccompCondition::new(arg, length, op, value).map_err(io::Error::other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

fn compile(rules: Rules, errno: u32) -> io::Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch)
        .map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    Ok(without_x32(program))
}

/// On x86-64 the same calls have second numbers (x32), which the compiled program does not know:
/// they are absent.
fn without_x32(program: BpfProgram) -> BpfProgram {
    if !cfg!(target_arch = "x86_64") {
        return program;
    }
    const X32: u32 = 0x4000_0000;
    let load_number = sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let below_x32 = sock_filter { code: 0x35, jt: 0, jf: 1, k: X32 };
    let absent = sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | ENOSYS };
    [load_number, below_x32, absent].into_iter().chain(program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_compiles_within_the_kernels_limit() {
        for program in slot_filters(Namespaced::No(Network::Off))
            .unwrap()
            .iter()
            .chain([&no_network().unwrap()])
        {
            assert!(program.len() < 4_096, "{}", program.len());
        }
    }
}
