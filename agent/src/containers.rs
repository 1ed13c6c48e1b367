//! What is asked of the engine for the containers of jobs.
//!
//! Invariant: a container has no more powers than its first process needs, which is root, gives
//! files away and becomes somebody else; and nothing in it gets more than it began with.

use crate::{
    Environment, Plain, PlainNetwork, Settings,
    folder::Folder,
    job::core::student::StudentSpec,
    names::{self, Run},
};
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, PortBinding, PortMap,
    ResourcesUlimits,
};
use std::{collections::HashMap, net::IpAddr, path::Path, time::SystemTime};

/// Of the grading image, in a student's container.
const STUDENT_COMMAND: &str = "_run_student_intern";

/// Of containers, on cgroup version 1, the agent ends those that are out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupVersion {
    V1,
    V2,
}

/// What all containers of an agent have in common.
#[derive(Debug, Clone)]
pub(crate) struct House {
    pub(crate) owner: String,
    pub(crate) bind: IpAddr,
    pub(crate) processes: u32,
    pub(crate) open_files: i64,
    pub(crate) cgroup: CgroupVersion,
}

/// Of a container, and of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortPair {
    pub(crate) inner: u16,
    pub(crate) outer: u16,
}

/// One container.
#[derive(Debug, Clone)]
pub(crate) struct Ticket<'a> {
    pub(crate) run: &'a Run,
    pub(crate) role: &'a str,
    pub(crate) deadline: SystemTime,
    pub(crate) ports: &'a [PortPair],
}

impl House {
    pub(crate) fn new(settings: &Settings, cgroup: CgroupVersion, open_files: i64) -> Self {
        Self {
            owner: settings.owner.clone(),
            bind: settings.bind,
            processes: settings.processes,
            open_files,
            cgroup,
        }
    }

    pub(crate) fn grading(
        &self,
        ticket: &Ticket,
        environment: &Environment,
        folder: &Folder,
        memory_mb: u64,
        network: bool,
    ) -> ContainerCreateBody {
        let mut host = self.host(ticket, memory_mb << 20);
        let online = network || !ticket.ports.is_empty();
        host.network_mode = Some(if online { "bridge" } else { "none" }.to_owned());
        host.extra_hosts = online.then(|| vec!["host.docker.internal:host-gateway".to_owned()]);
        host.runtime = runtime(environment);
        host.oom_kill_disable = (self.cgroup == CgroupVersion::V1).then_some(true);
        host.binds = Some(vec![
            bind(&folder.task(), "/task", "Z"),
            bind(&folder.student(), "/task/student", "Z"),
            bind(&folder.scripts(), "/task/student/scripts", "Z"),
            bind(&folder.systemfiles(), "/task/systemfiles", "Z"),
            bind(&folder.sockets(), "/sockets", "Z"),
            bind(&folder.common(), "/course/common", "ro,Z"),
            bind(&folder.common_student(), "/course/common/student", "ro,Z"),
        ]);
        host.security_opt = Some(security(folder));
        let mut body = self.body(ticket, &environment.id, host);
        body.env = Some(vec!["DEBUGGER=False".to_owned()]);
        body.open_stdin = Some(true);
        body.attach_stdin = Some(true);
        // Whoever is cut off can speak on.
        body.stdin_once = Some(false);
        body
    }

    pub(crate) fn student(
        &self,
        ticket: &Ticket,
        spec: &StudentSpec,
        folder: &Folder,
        socket: &Path,
        parent: &str,
    ) -> ContainerCreateBody {
        let mut host = self.host(ticket, spec.memory_mb << 20);
        host.network_mode = Some(match (spec.ssh, spec.share_network) {
            (true, _) => "bridge".to_owned(),
            (false, true) => format!("container:{parent}"),
            (false, false) => "none".to_owned(),
        });
        host.runtime = runtime(&spec.environment);
        host.oom_kill_disable = (self.cgroup == CgroupVersion::V1).then_some(true);
        host.binds = Some(vec![
            bind(&folder.student(), "/task/student", "Z"),
            bind(&folder.scripts(), "/task/student/scripts", "Z"),
            bind(socket, "/__parent.sock", "Z"),
            bind(&folder.systemfiles(), "/task/systemfiles", "ro,Z"),
            bind(&folder.common_student(), "/course/common/student", "ro,Z"),
        ]);
        host.security_opt = Some(security(folder));
        let mut body = self.body(ticket, &spec.environment.id, host);
        body.cmd = Some(vec![STUDENT_COMMAND.to_owned()]);
        if let Some(labels) = &mut body.labels {
            labels.insert(names::SOCKET.to_owned(), spec.socket_id.clone());
        }
        body.env = Some(vec!["DEBUGGER=False".to_owned()]);
        body
    }

    pub(crate) fn plain(&self, ticket: &Ticket, order: &Plain) -> ContainerCreateBody {
        let mut host = self.host(ticket, order.limits.memory_bytes);
        host.pids_limit = Some(order.limits.processes.into());
        host.network_mode = Some(
            match order.network {
                PlainNetwork::None => "none",
                PlainNetwork::Bridge => "bridge",
            }
            .to_owned(),
        );
        host.security_opt = Some(vec!["no-new-privileges".to_owned()]);
        // It stands still then, and the engine says so: of one that the kernel has ended at once it
        // may never hear why.
        let stands_still = self.cgroup == CgroupVersion::V1 && order.limits.memory_bytes > 0;
        host.oom_kill_disable = stands_still.then_some(true);
        let mut body = self.body(ticket, &order.image, host);
        body.cmd = (!order.command.is_empty()).then(|| order.command.clone());
        // The command is all that runs, whatever the image would have run before it.
        body.entrypoint = (!order.command.is_empty()).then(|| vec![String::new()]);
        body.env = Some(order.env.iter().map(|(name, value)| format!("{name}={value}")).collect());
        body.working_dir.clone_from(&order.working_dir);
        body.user.clone_from(&order.user);
        body.open_stdin = Some(true);
        body.attach_stdin = Some(true);
        // Its end is the end of what it reads.
        body.stdin_once = Some(true);
        body
    }

    fn body(&self, ticket: &Ticket, image: &str, host: HostConfig) -> ContainerCreateBody {
        let exposed = ticket.ports.iter().map(|it| format!("{}/tcp", it.inner));
        ContainerCreateBody {
            image: Some(image.to_owned()),
            labels: Some(names::labels(&self.owner, ticket.run, ticket.role, ticket.deadline)),
            exposed_ports: Some(exposed.collect()),
            attach_stdout: Some(true),
            tty: Some(false),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..Default::default()
            }),
            host_config: Some(host),
            ..Default::default()
        }
    }

    fn host(&self, ticket: &Ticket, memory_bytes: u64) -> HostConfig {
        let memory = Some(i64::try_from(memory_bytes).unwrap_or(i64::MAX));
        let bindings = ticket.ports.iter().map(|port| {
            let binding = PortBinding {
                host_ip: Some(self.bind.to_string()),
                host_port: Some(port.outer.to_string()),
            };
            (format!("{}/tcp", port.inner), Some(vec![binding]))
        });
        HostConfig {
            memory,
            memory_swap: memory,
            memory_swappiness: (self.cgroup == CgroupVersion::V1).then_some(0),
            pids_limit: Some(self.processes.into()),
            ulimits: Some(vec![ResourcesUlimits {
                name: Some("nofile".to_owned()),
                soft: Some(self.open_files),
                hard: Some(self.open_files),
            }]),
            port_bindings: Some(bindings.collect::<PortMap>()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(powers(ticket)),
            // What it says is read once, by us.
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: Some(HashMap::new()),
            }),
            ..Default::default()
        }
    }
}

/// To hand out files, to become somebody else, and to end what that one has started.
fn powers(ticket: &Ticket) -> Vec<String> {
    let always = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"];
    // Of a server for ssh.
    let served = ["NET_BIND_SERVICE", "SYS_CHROOT", "AUDIT_WRITE"];
    let served = served.iter().filter(|_| !ticket.ports.is_empty());
    always.iter().chain(served).map(|it| (*it).to_owned()).collect()
}

fn runtime(environment: &Environment) -> Option<String> {
    (!environment.runtime.is_empty()).then(|| environment.runtime.clone())
}

fn bind(from: &Path, to: &str, options: &str) -> String {
    format!("{}:{to}:{options}", from.display())
}

/// The containers of a job, and only they, may read its files where `SELinux` watches.
fn security(folder: &Folder) -> Vec<String> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    folder.root().hash(&mut hasher);
    let number = hasher.finish();
    let (low, high) = (number % 1_023, 1 + (number >> 32) % 1_023);
    let (low, high) = if low == high { (low, high + 1) } else { (low.min(high), low.max(high)) };
    vec!["no-new-privileges".to_owned(), format!("label=level:s0:c{low},c{high}")]
}

/// Of `nofile`: the agent's own, shared out.
pub(crate) fn open_files(own: Option<u64>, concurrency: u16) -> i64 {
    const MIN: u64 = 1_024;
    const MAX: u64 = 1 << 20;
    let shared = own.unwrap_or(MAX) / u64::from(concurrency.max(1));
    i64::try_from(shared.clamp(MIN, MAX)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
