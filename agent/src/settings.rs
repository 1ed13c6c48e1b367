//! How an agent is to work.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZero,
    ops::RangeInclusive,
    path::PathBuf,
};

#[derive(Debug, Clone)]
pub struct Settings {
    /// `None`: what `DOCKER_HOST` says, else the usual socket.
    pub engine: Option<String>,
    /// What this agent calls its own at the engine: another one with this name takes over.
    pub owner: String,
    /// Jobs at a time.
    pub concurrency: u16,
    /// With a folder for each course, and in it one for each task. `None`: no job has a task.
    pub tasks: Option<PathBuf>,
    /// Folders of jobs, and what a later agent needs to know of them. Containers see its files, so
    /// the engine has to be on this machine.
    pub dir: PathBuf,
    /// Where people reach the ports of containers.
    pub public_host: String,
    /// Where they are bound.
    pub bind: IpAddr,
    pub ports: RangeInclusive<u16>,
    /// Whether people may look into containers by ssh.
    pub ssh: bool,
    /// Empty: what the engine has.
    pub runtimes: Vec<Runtime>,
    /// Containers started ahead for each environment that was asked for.
    pub warm: u16,
    /// Of one container, its student containers not counted.
    pub processes: u32,
    /// Of one job at the same time.
    pub students: u16,
}

impl Settings {
    /// One job at a time for each processor, at the usual engine, and nothing published beyond this
    /// machine.
    pub fn new(owner: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            engine: None,
            owner: owner.into(),
            concurrency: u16::try_from(cpus).unwrap_or(u16::MAX),
            tasks: None,
            dir: dir.into(),
            public_host: "127.0.0.1".to_owned(),
            bind: Ipv4Addr::LOCALHOST.into(),
            ports: 64_120..=64_130,
            ssh: false,
            runtimes: Vec::new(),
            warm: 0,
            processes: 1_024,
            students: 32,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// As the engine calls it.
    pub name: String,
    pub environment_type: String,
    pub run_as_root: bool,
    pub gpu: bool,
}
