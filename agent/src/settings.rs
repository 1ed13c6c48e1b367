//! How an agent is to work.

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf};

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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// As the engine calls it.
    pub name: String,
    pub environment_type: String,
    pub run_as_root: bool,
    pub gpu: bool,
}
