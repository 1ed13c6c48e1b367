//! Giving up power: ids, capabilities, the right to gain either again.

use super::{Step, WallError, sys};
use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{CapabilitySet, CapabilitySets, set_capabilities},
};
use std::fs;

/// Uid and gid inside a slot's user namespace, but for slots that are root in an image.
pub(crate) const INSIDE_ID: u32 = 1_000;

/// Maps the one id of this process to `inside` in its new user namespace.
pub(crate) fn map_ids(inside: u32, uid: u32, gid: u32) -> Result<(), WallError> {
    // A process whose ids were changed does not own its /proc files until it says that it does.
    set_dumpable_behavior(DumpableBehavior::Dumpable).step("become dumpable")?;
    fs::write("/proc/self/setgroups", "deny").step("deny setgroups")?;
    fs::write("/proc/self/gid_map", format!("{inside} {gid} 1")).step("map the group")?;
    fs::write("/proc/self/uid_map", format!("{inside} {uid} 1")).step("map the user")
}

/// Drops every capability for good, and hides this process from those it will start.
pub(crate) fn all_capabilities() -> Result<(), WallError> {
    all_but(CapabilitySet::empty(), CapabilitySet::empty())
}

/// For a slot that is the container's root: what root does to the files of an image, and to become
/// one of its users. They count in the slot's user namespace only, over the ids that it has.
pub(crate) fn all_but_powers_over_files() -> Result<(), WallError> {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID;
    // To count what is held by users that the slot has become.
    all_but(kept, CapabilitySet::SYS_PTRACE)
}

/// For the init of the `uid` rung, which changes its children's ids and kills across them.
pub(crate) fn all_but_identity_changes() -> Result<(), WallError> {
    all_but(
        CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL,
        CapabilitySet::empty(),
    )
}

/// `own` is this process's alone: what it starts has no more than is in its bounding set.
fn all_but(kept: CapabilitySet, own: CapabilitySet) -> Result<(), WallError> {
    bounding_set_except(kept);
    keep_only(kept | own)?;
    // Commands may run as the same user; they must not look into this process or trace it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("become undumpable")?;
    sys::no_new_privileges().step("set no_new_privs")
}

fn bounding_set_except(kept: CapabilitySet) {
    for capability in CapabilitySet::all().iter().filter(|it| !kept.contains(*it)) {
        // Refused without CAP_SETPCAP, or where the kernel has no such capability: then there is
        // nothing to take away, and no_new_privs forbids what the set would allow.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
}

fn keep_only(kept: CapabilitySet) -> Result<(), WallError> {
    // Kernels without ambient capabilities have none to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).step("drop capabilities")
}
