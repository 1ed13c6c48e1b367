//! Every fault of the settings at once, each with its place.

use super::{ContainerSettings, Data, DockerSettings, Inject, Reach, User, Walls};
use slotmux_protocol::ProfileName;
use std::{collections::BTreeMap, fmt};

/// Part of every name at the engine.
const OWNER_BYTES_MAX: usize = 64;

/// Engines refuse containers with less.
const MEMORY_BYTES_MIN: u64 = 6 << 20;

/// What is wrong, each with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsFaults(pub Vec<SettingsFault>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsFault {
    /// `None`: of all profiles.
    pub profile: Option<ProfileName>,
    /// Of [`DockerSettings`], or of the profile's [`ContainerSettings`].
    pub field: &'static str,
    pub message: &'static str,
}

impl std::error::Error for SettingsFaults {}

impl fmt::Display for SettingsFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, SettingsFault { profile, field, message }) in self.0.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { "; " })?;
            if let Some(profile) = profile {
                write!(f, "profile `{profile}`: ")?;
            }
            write!(f, "`{field}` {message}")?;
        }
        Ok(())
    }
}

impl DockerSettings {
    /// Every fault, not only the first. Asks the engine nothing.
    pub fn check(&self) -> Result<(), SettingsFaults> {
        let mut faults = Faults { profile: None, found: Vec::new() };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let owner = (1..=OWNER_BYTES_MAX).contains(&self.owner.len());
        faults.unless(
            owner && self.owner.bytes().all(plain),
            "owner",
            "is 1 to 64 letters, digits and underscores",
        );
        faults.unless(
            self.program.is_absolute() || self.inject != Inject::Bind,
            "program",
            "is an absolute path where it is mounted",
        );
        if let Reach::Published(ports) = &self.reach {
            let range = ports.range.as_ref();
            faults.unless(
                range.is_none_or(|range| !range.is_empty() && *range.start() > 0),
                "ports.range",
                "is a range of ports from 1 up",
            );
            faults.unless(
                ports.host.is_some() || !ports.bind.is_unspecified(),
                "ports.host",
                "is needed where every address is bound",
            );
        }
        check_container(&self.default, &mut faults);
        for (name, container) in &self.profiles {
            faults.profile = Some(name.clone());
            check_container(container, &mut faults);
        }
        faults.profile = None;
        let mut builds = BTreeMap::new();
        for container in std::iter::once(&self.default).chain(self.profiles.values()) {
            let of_image = builds.entry(&container.image).or_insert(&container.build);
            faults.unless(
                *of_image == &container.build,
                "build",
                "is the same in all profiles of one image",
            );
        }
        if faults.found.is_empty() { Ok(()) } else { Err(SettingsFaults(faults.found)) }
    }
}

struct Faults {
    /// Which is being looked at.
    profile: Option<ProfileName>,
    found: Vec<SettingsFault>,
}

impl Faults {
    fn unless(&mut self, fine: bool, field: &'static str, message: &'static str) {
        if !fine {
            let profile = self.profile.clone();
            self.found.push(SettingsFault { profile, field, message });
        }
    }
}

fn check_container(container: &ContainerSettings, faults: &mut Faults) {
    faults.unless(!container.image.trim().is_empty(), "image", "is not empty");
    let is_name = !container.image.contains('@');
    faults.unless(is_name || container.build.is_none(), "image", "is a name where it is built");
    // The server has a port of its own in a network of its own.
    let network = container.network.as_str();
    faults.unless(
        !network.is_empty() && !matches!(network, "none" | "host") && !network.contains(':'),
        "network",
        "is a network in which the container has an address: not `none`, not `host`",
    );
    let fits = |size: u64| i64::try_from(size).is_ok();
    let memory = container.memory_bytes_max;
    faults.unless(
        memory == 0 || (memory >= MEMORY_BYTES_MIN && fits(memory)),
        "memory_bytes_max",
        "is 0 or between 6 MiB and 8 EiB",
    );
    faults.unless(fits(container.shm_bytes), "shm_bytes", "is below 8 EiB");
    let in_memory = !matches!(container.data, Data::Tmpfs { bytes_max: 0 });
    faults.unless(in_memory, "data", "in memory has a limit");
    // What covers /proc is all that keeps root in there from the machine's own switches, but where
    // every slot gets a /proc of its own, or there is none: with the image as root, without a user.
    faults.unless(
        container.walls != Walls::Namespaces
            || container.user.is_none_or(|it| it.uid != User::ROOT.uid),
        "user",
        "is not root where `walls` permits namespaces",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Ports;

    #[test]
    fn every_fault_is_listed_with_its_place() {
        let mut settings = DockerSettings::new("server".into(), "debian:12");
        assert_eq!(settings.check(), Ok(()));
        settings.owner = "a/b".to_owned();
        settings.inject = Inject::Bind;
        settings.reach =
            Reach::Published(Ports { bind: [0, 0, 0, 0].into(), range: None, host: None });
        settings.default.image = String::new();
        settings.default.network = "host".to_owned();
        settings.default.memory_bytes_max = MEMORY_BYTES_MIN - 1;
        settings.default.data = Data::Tmpfs { bytes_max: 0 };
        settings.default.walls = Walls::Namespaces;
        settings.default.user = Some(User::ROOT);
        let SettingsFaults(faults) = settings.check().unwrap_err();
        let fields = faults.iter().map(|fault| fault.field).collect::<Vec<_>>().join(" ");
        let all = "owner program ports.host image network memory_bytes_max data user";
        assert_eq!(fields, all);
    }
}
