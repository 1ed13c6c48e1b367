//! What is asked of the engine for one container.
//!
//! The token goes by the environment: a command line is for everybody on the machine to read.

mod command;

use crate::{
    filter::NAMESPACES_FILTER,
    names,
    settings::{ContainerSettings, Data, DockerSettings, Inject, Reach, User},
};
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, PortBinding, PortMap,
};
use slotmux_backend::LaunchSpec;
use std::{collections::HashMap, time::SystemTime};

/// Read by the sandbox-server, which removes it from its environment at once.
pub(crate) const TOKEN_VARIABLE: &str = "SLOTMUX_CONTAINER_TOKEN";

/// Of the server, in the container's own network.
pub(crate) const PORT: u16 = 8080;
pub(crate) const PORT_KEY: &str = "8080/tcp";

/// A volume of the container's own: it is there also where the image cannot be written to.
pub(crate) const DIR: &str = "/slotmux";
pub(crate) const SERVER_NAME: &str = "server";
pub(crate) const DATA_NAME: &str = "data";

/// The engine keeps this many files of a container's output, each of this size.
const LOG_FILES: &str = "2";
const LOG_FILE_SIZE: &str = "4m";

/// What was decided for one container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// Of the server.
    pub(crate) user: User,
    /// Whether the engine is to permit namespaces.
    pub(crate) opens: bool,
    /// Not [`Inject::Best`].
    pub(crate) inject: Inject,
}

pub(crate) struct Plan<'a> {
    pub(crate) settings: &'a DockerSettings,
    pub(crate) spec: &'a LaunchSpec,
    pub(crate) token: &'a str,
    pub(crate) choice: Choice,
    pub(crate) now: SystemTime,
}

impl Plan<'_> {
    pub(crate) fn body(&self) -> ContainerCreateBody {
        let container = self.container();
        ContainerCreateBody {
            image: Some(container.image.clone()),
            labels: Some(names::labels(&self.settings.owner, self.spec, self.now)),
            user: Some(self.first_user(container).to_string()),
            env: Some(vec![format!("{TOKEN_VARIABLE}={}", self.token)]),
            // Whatever the image wants to run, look at or be stopped by: it is the server's now.
            entrypoint: Some(vec![format!("{DIR}/{SERVER_NAME}")]),
            cmd: Some(self.arguments(container)),
            working_dir: Some("/".to_owned()),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..Default::default()
            }),
            stop_signal: Some("SIGTERM".to_owned()),
            exposed_ports: Some(vec![PORT_KEY.to_owned()]),
            host_config: Some(self.host(container)),
            ..Default::default()
        }
    }

    fn container(&self) -> &ContainerSettings {
        self.settings.of_profile(&self.spec.labels.profile)
    }

    fn first_user(&self, container: &ContainerSettings) -> User {
        if container.becomes(self.choice.user) { User::ROOT } else { self.choice.user }
    }

    fn arguments(&self, container: &ContainerSettings) -> Vec<String> {
        let mut arguments = command::arguments(self.settings, self.spec);
        if container.becomes(self.choice.user) {
            arguments.push(format!("--become={}", self.choice.user));
        }
        arguments
    }

    fn host(&self, container: &ContainerSettings) -> HostConfig {
        let opens = self.choice.opens;
        let memory = limit(container.memory_bytes_max);
        HostConfig {
            memory,
            // Swap on top would be a limit that nobody has set.
            memory_swap: memory,
            nano_cpus: limit(u64::from(container.cpu_millis_max) * 1_000_000),
            pids_limit: limit(container.processes_max.into()),
            shm_size: limit(container.shm_bytes),
            mounts: Some(self.mounts()),
            tmpfs: Some(self.tmpfs(container)),
            network_mode: Some(container.network.clone()),
            port_bindings: self.ports(),
            runtime: container.runtime.clone(),
            readonly_rootfs: Some(container.read_only),
            security_opt: Some(self.security_opt(container)),
            cap_add: Some(container.cap_add.clone()),
            cap_drop: Some(container.cap_drop.clone()),
            // The kernel mounts a new /proc only where the old one is not covered.
            masked_paths: opens.then(Vec::new),
            readonly_paths: opens.then(Vec::new),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), LOG_FILE_SIZE.to_owned()),
                    ("max-file".to_owned(), LOG_FILES.to_owned()),
                ])),
            }),
            ..Default::default()
        }
    }

    fn mounts(&self) -> Vec<Mount> {
        let labels = [(names::OWNER.to_owned(), self.settings.owner.clone())];
        let mut mounts = vec![Mount {
            typ: Some(MountType::VOLUME),
            target: Some(DIR.to_owned()),
            // Without a name it goes with its container.
            volume_options: Some(MountVolumeOptions {
                labels: Some(labels.into()),
                no_copy: Some(true),
                ..Default::default()
            }),
            ..Default::default()
        }];
        if self.choice.inject == Inject::Bind {
            mounts.push(Mount {
                typ: Some(MountType::BIND),
                source: Some(self.settings.program.display().to_string()),
                target: Some(format!("{DIR}/{SERVER_NAME}")),
                read_only: Some(true),
                ..Default::default()
            });
        }
        mounts
    }

    fn tmpfs(&self, container: &ContainerSettings) -> HashMap<String, String> {
        let more = container.tmpfs.iter().map(|(path, options)| (path.clone(), options.clone()));
        let mut tmpfs: HashMap<_, _> = more.collect();
        if let Data::Tmpfs { bytes_max } = container.data {
            let User { uid, gid } = self.choice.user;
            // Slots run what they have built.
            let options = format!("exec,mode=711,uid={uid},gid={gid},size={bytes_max}");
            tmpfs.insert(format!("{DIR}/{DATA_NAME}"), options);
        }
        tmpfs
    }

    fn security_opt(&self, container: &ContainerSettings) -> Vec<String> {
        let mut options = Vec::new();
        if self.choice.opens {
            options.push(format!("seccomp={NAMESPACES_FILTER}"));
            // The usual profile refuses every mount; without AppArmor this says nothing.
            options.push("apparmor=unconfined".to_owned());
        }
        options.extend(container.security_opt.iter().cloned());
        options
    }

    fn ports(&self) -> Option<PortMap> {
        let Reach::Published(ports) = &self.settings.reach else { return None };
        let range = ports.range.as_ref().map(|range| match (range.start(), range.end()) {
            // Podman knows no ranges.
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start}-{end}"),
        });
        let binding =
            // None is any free one.
            PortBinding {
                host_ip: Some(ports.bind.to_string()),
                host_port: Some(range.unwrap_or_default()),
            };
        Some(PortMap::from([(PORT_KEY.to_owned(), Some(vec![binding]))]))
    }
}

/// For engines 0 is no limit too, but for some it is an odd one.
fn limit(value: u64) -> Option<i64> {
    (value > 0).then(|| i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
