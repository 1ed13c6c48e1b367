//! Every fault of the settings at once, each with its place.

use super::{ContainerSettings, Data, DockerSettings, Inject, Reach, User, Walls};

/// Part of every name at the engine.
const OWNER_BYTES_MAX: usize = 64;

/// Engines refuse containers with less.
const MEMORY_BYTES_MIN: u64 = 6 << 20;

/// What is wrong, a line for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct SettingsFaults(pub Vec<String>);

impl DockerSettings {
    pub(crate) fn check(&self) -> Result<(), SettingsFaults> {
        let mut faults = Vec::new();
        let mut unless = |fine: bool, fault: &str| {
            if !fine {
                faults.push(fault.to_owned());
            }
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let owner = (1..=OWNER_BYTES_MAX).contains(&self.owner.len());
        unless(
            owner && self.owner.bytes().all(plain),
            "`owner` is 1 to 64 letters, digits and underscores",
        );
        unless(
            self.program.is_absolute() || self.inject == Inject::Copy,
            "`program` is an absolute path where it is mounted",
        );
        if let Reach::Published(ports) = &self.reach {
            let range = ports.range.as_ref();
            unless(
                range.is_none_or(|range| !range.is_empty() && *range.start() > 0),
                "`reach.range` is a range of ports from 1 up",
            );
            unless(
                ports.host.is_some() || !ports.bind.is_unspecified(),
                "`reach.host` is needed where every address is bound",
            );
        }
        check_container("default", &self.default, &mut faults);
        for (name, container) in &self.profiles {
            check_container(name.as_str(), container, &mut faults);
        }
        if faults.is_empty() { Ok(()) } else { Err(SettingsFaults(faults)) }
    }
}

fn check_container(profile: &str, container: &ContainerSettings, faults: &mut Vec<String>) {
    let mut unless = |fine: bool, fault: &str| {
        if !fine {
            faults.push(format!("profile `{profile}`: {fault}"));
        }
    };
    unless(!container.image.trim().is_empty(), "`image` is not empty");
    // The server has a port of its own in a network of its own.
    let network = container.network.as_str();
    unless(
        !network.is_empty() && !matches!(network, "none" | "host") && !network.contains(':'),
        "`network` is a network in which the container has an address: not `none`, not `host`",
    );
    let memory = container.memory_bytes_max;
    unless(memory == 0 || memory >= MEMORY_BYTES_MIN, "`memory_bytes_max` is 0 or at least 6 MiB");
    let sizes = [memory, container.shm_bytes];
    unless(sizes.iter().all(|size| i64::try_from(*size).is_ok()), "sizes are below 8 EiB");
    unless(!matches!(container.data, Data::Tmpfs { bytes_max: 0 }), "`data` in memory has a limit");
    // What covers /proc is all that keeps root in there from the machine's own switches.
    unless(
        container.walls != Walls::Namespaces
            || container.user.is_none_or(|it| it.uid != User::ROOT.uid),
        "`user` is not root where `walls` permits namespaces",
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
        let words = ["owner", "program", "host", "image", "network", "memory", "data", "user"];
        assert_eq!(faults.len(), words.len(), "{faults:#?}");
        for (fault, word) in faults.iter().zip(words) {
            assert!(fault.contains(word), "{fault}");
        }
    }
}
