//! The system calls that a slot may not make.
//!
//! A list of refusals, not of permissions: a slot runs any program of any image. Refused is what
//! reaches past the slot (mounts, namespaces, modules, clocks, keys), and what has been the way
//! into kernels (`bpf`, `io_uring`, `userfaultfd`). Refused calls fail with EPERM, or with ENOSYS where
//! programs then take another way.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use slotmux_protocol::Network;
use std::{collections::BTreeMap, io};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

const EPERM: u32 = libc::EPERM.cast_unsigned();
const ENOSYS: u32 = libc::ENOSYS.cast_unsigned();

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
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
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

/// Families that a slot may open sockets of; pairs of connected Unix sockets are not asked about.
const FAMILIES_ON: &[libc::c_int] = &[libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// A Unix socket is reached by its path, past Landlock: only with a root of its own.
const FAMILIES_OWN_ROOT: &[libc::c_int] =
    &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const FAMILIES_OWN_ROOT_OFF: &[libc::c_int] = &[libc::AF_UNIX];
const FAMILIES_OFF: &[libc::c_int] = &[];

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

/// The walls of a slot: two programs, each installed after the other.
pub(crate) fn slot_filters(namespaced: Namespaced) -> io::Result<Vec<BpfProgram>> {
    let (families, lasting, scheduling) = match namespaced {
        Namespaced::Yes => (FAMILIES_OWN_ROOT, &[][..], &[][..]),
        Namespaced::No(Network::On) => (FAMILIES_ON, LASTING, SCHEDULING),
        Namespaced::No(Network::Off) => (FAMILIES_OFF, LASTING, SCHEDULING),
    };
    let numbers = REFUSED.iter().chain(REFUSED_HERE).chain(lasting);
    let mut refused: Rules = numbers.map(|nr| (*nr, vec![])).collect();
    for (number, argument, own) in scheduling {
        refused.entry(*number).or_default().push(rule(vec![not(*argument, *own)?])?);
    }
    if namespaced != Namespaced::Yes {
        refused.insert(libc::SYS_socketpair, vec![datagram_pairs()?]);
    }
    refused.insert(libc::SYS_clone, namespaces_of_clone()?);
    refused.insert(libc::SYS_ioctl, terminal_injection()?);
    refused.insert(libc::SYS_prlimit64, vec![rule(vec![not(0, 0)?])?]);
    refused.insert(libc::SYS_socket, other_families(families)?);
    let absent: Rules = ABSENT.iter().map(|nr| (*nr, vec![])).collect();
    Ok(vec![compile(refused, EPERM)?, compile(absent, ENOSYS)?])
}

/// For one call without network in a slot that has one. What else is refused stays so.
pub(crate) fn no_network() -> io::Result<BpfProgram> {
    let sockets = other_families(FAMILIES_OWN_ROOT_OFF)?;
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

/// Typing into a terminal for its owner.
fn terminal_injection() -> io::Result<Vec<SeccompRule>> {
    [libc::TIOCSTI, libc::TIOCLINUX]
        .into_iter()
        .map(|request| {
            rule(vec![condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?])
        })
        .collect()
}

/// Without any rule a call is refused whatever its arguments.
fn other_families(allowed: &[libc::c_int]) -> io::Result<Vec<SeccompRule>> {
    if allowed.is_empty() {
        return Ok(Vec::new());
    }
    let conditions = allowed
        .iter()
        .map(|family| {
            condition(
                0,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Ne,
                u64::from(family.cast_unsigned()),
            )
        })
        .collect::<io::Result<_>>()?;
    Ok(vec![rule(conditions)?])
}

/// One end of such a pair can send to any path; the other kinds are connected for good.
fn datagram_pairs() -> io::Result<SeccompRule> {
    const KIND: u64 = 0xf;
    let datagram = u64::from(libc::SOCK_DGRAM.cast_unsigned());
    rule(vec![condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(KIND), datagram)?])
}

fn not(arg: u8, value: u64) -> io::Result<SeccompCondition> {
    condition(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
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
