//! Processes on terminals, from the init's side. The server has the screen side of each.

use super::{
    command::{Launch, Leads, Walls, environment_of, not_started},
    tree,
};
use crate::{
    isolate::{Birth, pty},
    wire::{End, Spawn},
};
use rustix::fd::{AsFd, OwnedFd};
use slotmux_protocol::Isolation;
use std::ffi::CString;

/// Of one slot. Each holds a descriptor here and two in the server.
const SESSIONS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Sessions(Vec<Session>);

struct Session {
    id: u64,
    /// Of its first process: the number of the session.
    leader: i32,
    /// How it ended is told here. Absent once it was.
    end: Option<OwnedFd>,
}

impl Sessions {
    /// The terminal's master, where it was opened here.
    pub(super) fn spawn(
        &mut self,
        walls: &mut Walls,
        birth: &Birth,
        spawn: &Spawn,
        mut passed: Vec<OwnedFd>,
    ) -> Result<Option<OwnedFd>, End> {
        if self.0.len() >= SESSIONS_MAX {
            self.0.retain(|it| it.end.is_some());
        }
        if self.0.len() >= SESSIONS_MAX {
            return Err(End::NotStarted(libc::EAGAIN));
        }
        if passed.is_empty() {
            return Err(End::NotStarted(libc::EBADF));
        }
        let end = passed.remove(0);
        let (master, slave) = match (passed.pop(), birth.rung) {
            (Some(slave), _) => (None, slave),
            (None, Isolation::Namespaces) => {
                let pair = pty::open(c"/dev/pts/ptmx", None, spawn.rows, spawn.cols)
                    .map_err(|error| not_started(&error))?;
                (Some(pair.master), pair.slave)
            }
            (None, _) => return Err(End::NotStarted(libc::EBADF)),
        };
        let nul = || End::NotStarted(libc::EINVAL);
        let command = spawn.command.as_deref().map(CString::new).transpose().map_err(|_| nul())?;
        let cwd = spawn.cwd.as_deref().map(CString::new).transpose().map_err(|_| nul())?;
        let env = environment_of(&spawn.env).ok_or_else(nul)?;
        let argv = match &command {
            Some(command) => &[c"-c", c"--", command.as_c_str()][..],
            None => &[],
        };
        let leader = walls.start(&Launch {
            argv,
            env: &env,
            cwd: cwd.as_deref(),
            network: spawn.network,
            stdin: Some(slave.as_fd()),
            stdout: slave.as_fd(),
            stderr: slave.as_fd(),
            more: &[],
            leads: Leads::Terminal,
            cpu_ms_max: 0,
        })?;
        self.is_new(leader);
        self.0.push(Session { id: spawn.id, leader, end: Some(end) });
        Ok(master)
    }

    /// A new process leads a session of this number: an older one of that number has nobody left.
    pub(super) fn is_new(&mut self, pid: i32) {
        self.0.retain(|it| it.leader != pid);
    }

    pub(super) fn note_exit(&mut self, pid: i32, status: i32) {
        let Some(session) = self.0.iter_mut().find(|it| it.leader == pid) else { return };
        if let Some(end) = session.end.take() {
            // A few bytes into an empty pipe. The server may have lost its interest.
            let _ = rustix::io::write(&end, &status.to_ne_bytes());
        }
    }

    pub(super) fn end(&mut self, birth: &Birth, id: u64) {
        let Some(at) = self.0.iter().position(|it| it.id == id) else { return };
        tree::kill_session(birth, self.0[at].leader);
        if self.0[at].end.is_none() {
            self.0.swap_remove(at);
        }
    }
}
