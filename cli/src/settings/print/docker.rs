//! The settings of a Docker engine and its containers, in the words of the file.

use super::quoted;
use crate::settings::{
    DockerChoice,
    value::{Injection, PullWhen, WallsOf},
};
use slotmux_docker::{ContainerSettings, Data, Reach};
use std::fmt;

pub(super) fn print_engine(f: &mut fmt::Formatter<'_>, choice: &DockerChoice) -> fmt::Result {
    match &choice.sandbox_server {
        Some(path) => writeln!(f, "sandbox_server = {}", quoted(&path.display().to_string()))?,
        None => writeln!(f, "# sandbox_server: the one that is found")?,
    }
    match &choice.settings.host {
        Some(host) => writeln!(f, "docker_host = {}", quoted(host))?,
        None => writeln!(f, "# docker_host: DOCKER_HOST, or the usual socket")?,
    }
    let places = [
        ("docker_certificates", &choice.settings.certificates),
        ("docker_config_dir", &choice.settings.config_dir),
    ];
    for (key, path) in places {
        if let Some(path) = path {
            writeln!(f, "{key} = {}", quoted(&path.display().to_string()))?;
        }
    }
    match &choice.owner {
        Some(owner) => writeln!(f, "docker_owner = {}", quoted(owner))?,
        None => writeln!(f, "# docker_owner: the one in the state directory")?,
    }
    writeln!(f, "docker_inject = \"{}\"", Injection::word(choice.settings.inject))?;
    let Reach::Published(ports) = &choice.settings.reach else {
        return writeln!(f, "docker_reach = \"address\"");
    };
    writeln!(f, "docker_reach = \"published\"")?;
    writeln!(f, "docker_bind = \"{}\"", ports.bind)?;
    if let Some(range) = &ports.range {
        writeln!(f, "docker_ports = \"{}-{}\"", range.start(), range.end())?;
    }
    if let Some(host) = &ports.host {
        writeln!(f, "docker_machine = {}", quoted(host))?;
    }
    Ok(())
}

pub(super) fn print_container(
    f: &mut fmt::Formatter<'_>,
    container: &ContainerSettings,
) -> fmt::Result {
    writeln!(f, "image = {}", quoted(&container.image))?;
    if let Some(build) = &container.build {
        writeln!(f, "build = {}", quoted(&build.context.display().to_string()))?;
        writeln!(f, "dockerfile = {}", quoted(&build.dockerfile.display().to_string()))?;
        let args: Vec<_> =
            build.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        writeln!(f, "build_args = {}", array(&args))?;
    }
    writeln!(f, "pull = \"{}\"", PullWhen::word(container.pull))?;
    writeln!(f, "walls = \"{}\"", WallsOf::word(container.walls))?;
    if let Some(user) = container.user {
        writeln!(f, "user = \"{}:{}\"", user.uid, user.gid)?;
    }
    writeln!(f, "container_memory_bytes_max = {}", container.memory_bytes_max)?;
    writeln!(f, "container_cpu_millis_max = {}", container.cpu_millis_max)?;
    writeln!(f, "container_processes_max = {}", container.processes_max)?;
    writeln!(f, "container_shm_bytes = {}", container.shm_bytes)?;
    let data = match container.data {
        Data::Volume => 0,
        Data::Tmpfs { bytes_max } => bytes_max,
    };
    writeln!(f, "data_tmpfs_bytes = {data}")?;
    writeln!(f, "container_network = {}", quoted(&container.network))?;
    if let Some(runtime) = &container.runtime {
        writeln!(f, "runtime = {}", quoted(runtime))?;
    }
    writeln!(f, "read_only = {}", container.read_only)?;
    let tmpfs: Vec<String> = container
        .tmpfs
        .iter()
        .map(
            |(path, options)| {
                if options.is_empty() { path.clone() } else { format!("{path}:{options}") }
            },
        )
        .collect();
    writeln!(f, "tmpfs = {}", array(&tmpfs))?;
    writeln!(f, "security_opt = {}", array(&container.security_opt))?;
    writeln!(f, "cap_add = {}", array(&container.cap_add))?;
    writeln!(f, "cap_drop = {}", array(&container.cap_drop))
}

fn array(strings: &[String]) -> String {
    let quoted: Vec<_> = strings.iter().map(|it| quoted(it)).collect();
    format!("[{}]", quoted.join(", "))
}
