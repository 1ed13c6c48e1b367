//! Which sockets a slot may open: of families, kinds and protocols that programs use, so that the
//! rest of the kernel's network code is out of reach.

use super::{condition, masked, not, rule};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompRule};
use std::io;

/// Pairs of connected Unix sockets are not asked about.
pub(super) const ON: &[libc::c_int] = &[libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// A Unix socket is reached by its path, past Landlock: only with a root of its own.
pub(super) const OWN_ROOT: &[libc::c_int] =
    &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
pub(super) const OWN_ROOT_OFF: &[libc::c_int] = &[libc::AF_UNIX];
pub(super) const OFF: &[libc::c_int] = &[];

/// Addresses and interfaces, and devices that come and go. The others configure the machine, or
/// tell of everybody's connections.
const NETLINK: [libc::c_int; 2] = [libc::NETLINK_ROUTE, libc::NETLINK_KOBJECT_UEVENT];

/// DCCP, L2TP, SCTP, UDP-Lite: whoever asks for one has the kernel load it.
const RARE_PROTOCOLS: [libc::c_int; 4] = [33, 115, 132, 136];
/// `SOCK_RDM`, `SOCK_DCCP`, `SOCK_PACKET`.
const RARE_KINDS: [libc::c_int; 3] = [4, 6, 10];
/// The kind of a socket, without its flags.
const KIND: u64 = 0xf;

/// What `socket` is refused. Without any rule a call is refused whatever its arguments.
pub(super) fn refused(families: &[libc::c_int]) -> io::Result<Vec<SeccompRule>> {
    if families.is_empty() {
        return Ok(Vec::new());
    }
    let others = families.iter().map(|family| not(0, number(*family)));
    let mut rules = vec![rule(others.collect::<io::Result<_>>()?)?];
    for protocol in RARE_PROTOCOLS {
        rules.push(rule(vec![is(2, protocol)?])?);
    }
    for kind in RARE_KINDS {
        rules.push(rule(vec![masked(1, KIND, number(kind))?])?);
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        let packets = masked(1, KIND, number(libc::SOCK_SEQPACKET))?;
        rules.push(rule(vec![is(0, family)?, packets])?);
    }
    let mut netlink = vec![is(0, libc::AF_NETLINK)?];
    for protocol in NETLINK {
        netlink.push(not(2, number(protocol))?);
    }
    rules.push(rule(netlink)?);
    Ok(rules)
}

/// The audit log, which is the machine's. Told that a kernel has none, `su` and `useradd` go on
/// without; told that it is refused, they give up.
pub(super) fn unknown() -> io::Result<Vec<SeccompRule>> {
    Ok(vec![rule(vec![is(0, libc::AF_NETLINK)?, is(2, libc::NETLINK_AUDIT)?])?])
}

/// One end of such a pair can send to any path; the other kinds are connected for good.
pub(super) fn datagram_pairs() -> io::Result<SeccompRule> {
    rule(vec![masked(1, KIND, number(libc::SOCK_DGRAM))?])
}

fn is(arg: u8, value: libc::c_int) -> io::Result<seccompiler::SeccompCondition> {
    condition(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number(value))
}

fn number(value: libc::c_int) -> u64 {
    value.cast_unsigned().into()
}
