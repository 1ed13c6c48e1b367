//! File walls without namespaces: what the `uid` and `landlock` rungs stand on.

use super::{Birth, Step, WallError};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use std::{io, os::fd::OwnedFd, path::Path};

/// Readable and executable, where they exist.
const SYSTEM: [&str; 11] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/proc",
];
const DEVICES: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx"];

/// The oldest version that is of use: without file rules there is no wall.
const NEEDED: ABI = ABI::V1;
/// The newest whose rights are taken where the kernel has them.
const WANTED: ABI = ABI::V6;

/// A ruleset that each command of the slot is put under.
pub(crate) fn ruleset(birth: &Birth) -> Result<OwnedFd, WallError> {
    let created = create(birth).map_err(io::Error::other).step("make a Landlock ruleset")?;
    Option::<OwnedFd>::from(created)
        .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
        .step("make a Landlock ruleset")
}

/// Abstract sockets belong to the network, which slots share where it is on. Theirs are kept apart
/// by this ruleset; `None` where the kernel cannot (before 6.12).
pub(crate) fn own_abstract_sockets() -> Result<Option<OwnedFd>, WallError> {
    let created = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::AbstractUnixSocket)
        .and_then(Ruleset::create);
    let created = created.map_err(io::Error::other).step("make a Landlock ruleset for sockets")?;
    Ok(created.into())
}

fn create(birth: &Birth) -> Result<RulesetCreated, Box<dyn std::error::Error + Send + Sync>> {
    let created = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        // A file rule takes no rights of directories; those are left out, not an error.
        .set_compatibility(CompatLevel::BestEffort);
    let read = AccessFs::from_read(WANTED);
    let all = AccessFs::from_all(WANTED);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut created = created;
    for path in SYSTEM.iter().map(Path::new).chain(birth.exposed.iter().map(AsRef::as_ref)) {
        created = allow(created, path, read)?;
    }
    for path in DEVICES {
        created = allow(created, Path::new(path), device)?;
    }
    for path in [birth.workspace(), birth.tmp()] {
        created = created.add_rule(PathBeneath::new(PathFd::new(path)?, all))?;
    }
    Ok(created)
}

fn allow(
    created: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    match PathFd::new(path) {
        Ok(fd) => created.add_rule(PathBeneath::new(fd, access)),
        Err(_absent) => Ok(created),
    }
}
