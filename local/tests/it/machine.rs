//! A fresh state directory, and what can be seen of it from outside.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};
use slotmux_local::{LocalBackend, LocalSettings};
use slotmux_protocol::ContainerId;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const LIMIT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

pub(crate) struct Machine {
    state: TempDir,
    pub(crate) program: PathBuf,
}

impl Machine {
    pub(crate) fn new(program: impl Into<PathBuf>) -> Self {
        let state = tempfile::tempdir().unwrap();
        // Slots of a server that runs as root have other users, who have to get through.
        fs::set_permissions(state.path(), Permissions::from_mode(0o711)).unwrap();
        Self { state, program: program.into() }
    }

    /// With a script in the place of the sandbox-server.
    pub(crate) fn with_script() -> Self {
        Self::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server.sh"))
    }

    pub(crate) fn backend(&self) -> LocalBackend {
        LocalBackend::new(LocalSettings {
            program: self.program.clone(),
            args_before: vec!["sandbox-server".into()],
            state_dir: self.state_dir(),
        })
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state.path().join("state")
    }

    pub(crate) fn container_dirs(&self) -> Vec<PathBuf> {
        let Ok(pools) = fs::read_dir(self.state_dir()) else { return Vec::new() };
        pools
            .map(|pool| pool.unwrap().path().join("containers"))
            .flat_map(|containers| fs::read_dir(containers).unwrap())
            .map(|container| container.unwrap().path())
            .collect()
    }

    /// Processes with our directory on their command line.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let ours = self.state.path().to_str().unwrap().to_owned();
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| {
                let path = entry.unwrap().path();
                let pid = path.file_name()?.to_str()?.parse().ok()?;
                let command = fs::read(path.join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&command).contains(&ours).then_some(pid)
            })
            .collect()
    }

    /// Returns when it is dead.
    pub(crate) fn kill(&self, container: &ContainerId) {
        let record = self
            .container_dirs()
            .into_iter()
            .map(|dir| fs::read(dir.join("container.json")).unwrap())
            .map(|text| serde_json::from_slice::<serde_json::Value>(&text).unwrap())
            .find(|record| record["container"] == container.as_str())
            .unwrap();
        let pid = i32::try_from(record["process"]["pid"].as_i64().unwrap()).unwrap();
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
        // Readable when it is dead.
        let dead = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&LIMIT)).unwrap();
        assert_eq!(dead, 1, "still alive");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for pid in self.processes() {
            // It may end by itself at this moment.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}
