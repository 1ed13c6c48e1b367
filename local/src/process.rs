//! A process that is ours for sure: seen through a pidfd, never through a number alone.

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open,
        pidfd_send_signal, waitid,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Names a process across restarts of the pool and of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// In clock ticks since the machine started.
    start_time: u64,
    boot_id: String,
}

/// A process, alive or not yet reaped.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: OwnedFd,
    identity: Identity,
}

impl Process {
    /// `pid` must be a child that was not reaped.
    pub(crate) fn child(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        Ok(Self { pidfd: open(pid)?, identity: Identity::of(pid)? })
    }

    /// The process that has this identity, unless it ended.
    pub(crate) fn find(identity: &Identity) -> io::Result<Option<Self>> {
        let pidfd = match open(identity.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // After the pidfd is open: the number cannot go to another process unnoticed.
        let same = Identity::of(identity.pid).is_ok_and(|now| now == *identity);
        let process = Self { pidfd, identity: identity.clone() };
        Ok((same && !process.ended()?).then_some(process))
    }

    /// The process that has `argument` on its command line.
    pub(crate) fn find_by_argument(argument: &Path) -> io::Result<Option<Self>> {
        let wanted = argument.as_os_str().as_encoded_bytes();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
                continue;
            };
            // Any process may end while we look.
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if command.split(|byte| *byte == 0).any(|argument| argument == wanted)
                && let Ok(identity) = Identity::of(pid)
                && let Some(process) = Self::find(&identity)?
            {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    fn ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&rustix::event::Timespec::default()))? > 0)
    }

    /// A process that ended already has what it was to get.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the exit status. `None`: it is not our child, so nobody tells us.
    pub(crate) fn reap(&self) -> io::Result<Option<WaitIdStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(status) => Ok(status),
            Err(Errno::CHILD) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Becomes readable when the process ends.
    pub(crate) fn watch(&self) -> io::Result<Exited> {
        Ok(Exited { pidfd: register(self.pidfd.try_clone()?)? })
    }
}

/// Tells that a process ended.
#[derive(Debug)]
pub(crate) struct Exited {
    pidfd: AsyncFd<OwnedFd>,
}

impl Exited {
    pub(crate) async fn wait(&self) -> io::Result<()> {
        self.pidfd.readable().await.map(drop)
    }
}

impl Identity {
    fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = start_time(&stat)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { pid, start_time, boot_id })
    }
}

/// Field 22. The second one, the name, may hold anything, so we count from its end.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no process has this id"))?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

#[expect(unsafe_code, reason = "tokio asks us to vouch for the descriptor")]
fn register(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` is open, and `AsyncFd` owns it until both are dropped.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) b (c)) S {}", fields.join(" "));
        assert_eq!(start_time(&stat), Some(22));
        assert_eq!(start_time("7 (a) S 4"), None);
    }

    #[tokio::test]
    async fn a_process_is_found_until_it_ends_and_never_another_of_its_number() {
        let mut child = Command::new("sleep").arg("300").spawn().unwrap();
        let process = Process::child(child.id()).unwrap();
        let identity = process.identity().clone();
        assert!(Process::find(&identity).unwrap().is_some());
        let other = Identity { start_time: identity.start_time + 1, ..identity.clone() };
        assert!(Process::find(&other).unwrap().is_none());

        process.signal(Signal::KILL).unwrap();
        process.watch().unwrap().wait().await.unwrap();
        assert!(Process::find(&identity).unwrap().is_none(), "a zombie is no process");
        let status = process.reap().unwrap().unwrap();
        assert_eq!(status.terminating_signal(), Some(9));
        assert!(process.reap().unwrap().is_none());
        process.signal(Signal::KILL).unwrap();
        child.wait().unwrap_err();
    }
}
