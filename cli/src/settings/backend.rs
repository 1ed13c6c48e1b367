//! What runs containers, put together from options.
//!
//! Invariant: a key that would have no effect is a fault.

use super::{
    BackendOptions, ContainerOptions, FileFault,
    file::FileOptions,
    options::Keys,
    set,
    value::{BackendKind, List, Reached, UserIds},
};
use slotmux_docker::{
    Build, ContainerSettings, Data, DockerSettings, Ports, Reach, SettingsFault, SettingsFaults,
};
use slotmux_protocol::ProfileName;
use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

/// It has bash, which the tools of slots want, and is known to everybody.
const DEFAULT_IMAGE: &str = "debian:12";

#[derive(Debug, Clone)]
pub(crate) enum BackendSettings {
    Local,
    Docker(Box<DockerChoice>),
}

#[derive(Debug, Clone)]
pub(crate) struct DockerChoice {
    /// `None`: one that is found.
    pub(crate) sandbox_server: Option<PathBuf>,
    /// `None`: one that is drawn.
    pub(crate) owner: Option<String>,
    /// Without these two.
    pub(crate) settings: DockerSettings,
}

/// A profile's options, and where they stand in the file.
pub(super) struct Written {
    pub(super) name: ProfileName,
    pub(super) at: usize,
    pub(super) options: ContainerOptions,
}

impl BackendSettings {
    pub(super) fn new(
        options: &BackendOptions,
        profiles: &[Written],
        file: &FileOptions,
        faults: &mut Vec<FileFault>,
    ) -> Self {
        match options.backend.unwrap_or_default() {
            BackendKind::Local => {
                refuse(options, profiles, file, faults);
                Self::Local
            }
            BackendKind::Docker => Self::Docker(Box::new(docker(options, profiles, file, faults))),
        }
    }
}

/// Whoever names an image wants a container of it.
fn refuse(
    options: &BackendOptions,
    profiles: &[Written],
    file: &FileOptions,
    faults: &mut Vec<FileFault>,
) {
    let of_pool = options.set().into_iter().filter(|key| *key != "backend");
    let mut keys: Vec<_> = of_pool.map(|key| (key, key.to_owned())).collect();
    for profile in profiles {
        let place = |key| format!("profile[{}].{key}", profile.at);
        keys.extend(profile.options.set().into_iter().map(|key| (key, place(key))));
    }
    faults.extend(keys.into_iter().map(|(key, place)| FileFault {
        place: file.place(&place),
        what: format!("`{key}` is of containers of an engine: set `backend` to docker"),
    }));
}

fn docker(
    options: &BackendOptions,
    profiles: &[Written],
    file: &FileOptions,
    faults: &mut Vec<FileFault>,
) -> DockerChoice {
    // These two are found out later.
    let program = options.sandbox_server.as_deref().unwrap_or(Path::new("/"));
    let mut settings = DockerSettings::new(program.to_owned(), "none");
    set(&mut settings.owner, options.docker_owner.clone());
    settings.host.clone_from(&options.docker_host);
    settings.certificates.clone_from(&options.docker_certificates);
    settings.config_dir.clone_from(&options.docker_config_dir);
    set(&mut settings.inject, options.docker_inject.map(|it| it.0));
    settings.reach = reach(options, file, faults);
    for profile in profiles {
        let container = container(&profile.options);
        settings.profiles.insert(profile.name.clone(), container);
        faults.extend(builds_nothing(profile, file));
    }
    if let Err(SettingsFaults(wrong)) = settings.check() {
        faults.extend(wrong.into_iter().map(|fault| placed(&fault, profiles, file)));
    }
    DockerChoice {
        sandbox_server: options.sandbox_server.clone(),
        owner: options.docker_owner.clone(),
        settings,
    }
}

fn reach(options: &BackendOptions, file: &FileOptions, faults: &mut Vec<FileFault>) -> Reach {
    if options.docker_reach.unwrap_or_default() == Reached::Published {
        return Reach::Published(Ports {
            bind: options.docker_bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            range: options.docker_ports.as_ref().map(|it| it.0.clone()),
            host: options.docker_machine.clone(),
        });
    }
    let of_ports = options.set().into_iter();
    let of_ports =
        of_ports.filter(|it| matches!(*it, "docker_bind" | "docker_ports" | "docker_machine"));
    faults.extend(of_ports.map(|key| FileFault {
        place: file.place(key),
        what: format!("`{key}` is of published ports: set `docker_reach` to published"),
    }));
    Reach::Address
}

fn container(options: &ContainerOptions) -> ContainerSettings {
    let image = options.image.as_deref().unwrap_or(DEFAULT_IMAGE);
    let mut container = ContainerSettings::new(image);
    container.build = build(options);
    set(&mut container.pull, options.pull.map(|it| it.0));
    set(&mut container.walls, options.walls.map(|it| it.0));
    container.user = options.user.map(|UserIds(user)| user);
    set(&mut container.memory_bytes_max, options.container_memory_bytes_max);
    set(&mut container.cpu_millis_max, options.container_cpu_millis_max);
    set(&mut container.processes_max, options.container_processes_max);
    set(&mut container.shm_bytes, options.container_shm_bytes);
    if let Some(bytes_max @ 1..) = options.data_tmpfs_bytes {
        container.data = Data::Tmpfs { bytes_max };
    }
    set(&mut container.network, options.container_network.clone());
    container.runtime.clone_from(&options.runtime);
    set(&mut container.read_only, options.read_only);
    container.tmpfs = options.tmpfs.iter().flat_map(|it| &it.0).map(|it| mount(it)).collect();
    let words = |list: &Option<List>| list.clone().unwrap_or_default().0;
    container.security_opt = words(&options.security_opt);
    container.cap_add = words(&options.cap_add);
    container.cap_drop = words(&options.cap_drop);
    container
}

fn build(options: &ContainerOptions) -> Option<Build> {
    Some(Build {
        context: options.build.clone()?,
        dockerfile: options.dockerfile.clone().unwrap_or("Dockerfile".into()),
        args: options.build_args.iter().flat_map(|it| &it.0).map(|it| argument(it)).collect(),
    })
}

/// As for `docker build --build-arg`.
fn argument(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

fn builds_nothing(profile: &Written, file: &FileOptions) -> Vec<FileFault> {
    if profile.options.build.is_some() {
        return Vec::new();
    }
    let keys = profile.options.set().into_iter();
    keys.filter(|key| matches!(*key, "dockerfile" | "build_args"))
        .map(|key| FileFault {
            place: file.place(&format!("profile[{}].{key}", profile.at)),
            what: format!("`{key}` is of an image that is built: set `build` to its directory"),
        })
        .collect()
}

/// As for `docker run --tmpfs`: a path, and maybe a colon and its options.
fn mount(text: &str) -> (String, String) {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    (path.to_owned(), options.to_owned())
}

/// The backend's own faults, at the places where people wrote what is wrong.
fn placed(fault: &SettingsFault, profiles: &[Written], file: &FileOptions) -> FileFault {
    let key = match (&fault.profile, fault.field) {
        (None, "owner") => "docker_owner",
        (None, "program") => "sandbox_server",
        (None, "ports.range") => "docker_ports",
        (None, "ports.host") => "docker_machine",
        (Some(_), "memory_bytes_max") => "container_memory_bytes_max",
        (Some(_), "shm_bytes") => "container_shm_bytes",
        (Some(_), "network") => "container_network",
        (Some(_), "data") => "data_tmpfs_bytes",
        (_, field) => field,
    };
    let at = profiles.iter().find(|it| Some(&it.name) == fault.profile.as_ref()).map(|it| it.at);
    let place = at.map_or_else(|| key.to_owned(), |at| format!("profile[{at}].{key}"));
    FileFault { place: file.place(&place), what: format!("`{key}` {}", fault.message) }
}
