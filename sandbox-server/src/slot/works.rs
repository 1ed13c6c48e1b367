//! What is behind a slot: its init, its workspace, its cgroup; made, used and made anew.

use super::process::{InitError, InitProcess, KillSwitch};
use crate::{
    cgroup::SlotCgroup,
    files::{Until, Workspace, tools},
    isolate::{Birth, Identity, zygote::Zygote},
    outcome::{Outcome, Pressure},
    stop::Stop,
    trash::Trash,
    wire::End,
};
use rustix::process::{Pid, Signal, kill_process};
use slotmux_protocol::{BashArgs, CallLimits, Code, Isolation, Network, Problem, ToolCall};
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, chown},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

/// How long ended processes may stay in their cgroup: until they have left the processor for the
/// last time, which takes seconds when a thousand others want it.
const GONE_TICKS: u32 = 15_000;
const GONE_TICK: Duration = Duration::from_millis(2);

#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error("end what runs in the slot")]
    End(#[source] InitError),
    #[error("processes of the slot are left, or may be")]
    Survivors,
    #[error("empty the slot's directory")]
    Empty(#[source] io::Error),
    #[error("start a slot-init")]
    Start(#[source] InitError),
}

/// One slot's. Whoever has it has the slot's turn.
#[derive(Debug)]
pub(crate) struct Works {
    zygote: Arc<Zygote>,
    trash: Trash,
    birth: Birth,
    cgroup: SlotCgroup,
    init: Option<InitProcess>,
    /// The init went away, and nobody knows what it has left.
    lost: bool,
    workspace: Option<Arc<Workspace>>,
    /// Nothing runs in the slot that could hold up who works with its files.
    quiet: bool,
}

impl Works {
    /// Not yet usable: [`Works::renew`] makes it so.
    pub(crate) fn new(zygote: Arc<Zygote>, trash: Trash, birth: Birth, cgroup: SlotCgroup) -> Self {
        Self { zygote, trash, birth, cgroup, init: None, lost: false, workspace: None, quiet: true }
    }

    /// Ends all processes of the slot, throws all of its files away, starts it anew, empty.
    pub(crate) async fn renew(&mut self) -> Result<KillSwitch, RenewError> {
        self.end().await?;
        self.workspace = None;
        if let Err(error) = self.empty() {
            self.empty_when_settled(error).await.map_err(RenewError::Empty)?;
        }
        let max = self.birth.limits.file_bytes_max;
        let workspace = Workspace::open(&self.birth.workspace(), self.birth.identity, max)
            .map_err(|errno| RenewError::Empty(errno.into()))?;
        let switch = self.start().await?;
        self.workspace = Some(Arc::new(workspace));
        self.quiet = true;
        Ok(switch)
    }

    async fn start(&mut self) -> Result<KillSwitch, RenewError> {
        let cgroup = &self.cgroup;
        let init = InitProcess::start(&self.zygote, self.birth.clone(), |pid| cgroup.add(pid))
            .await
            .map_err(RenewError::Start)?;
        let switch = init.kill_switch();
        self.init = Some(init);
        Ok(switch)
    }

    /// Returns when every process of the slot is gone.
    pub(crate) async fn end(&mut self) -> Result<(), RenewError> {
        let namespaces = self.birth.rung == Isolation::Namespaces;
        if let Some(init) = self.init.take() {
            if namespaces {
                // The kernel reaps a pid namespace before its init: gone is gone.
                init.end().await.map_err(RenewError::End)?;
            } else {
                self.lost |= !init.end_by_itself().await.map_err(RenewError::End)?;
            }
        }
        let hunted = self.lost && !namespaces;
        if hunted && !self.cgroup.can_tell() && self.birth.rung != Isolation::Uid {
            return Err(RenewError::Survivors);
        }
        self.until_gone(hunted).await?;
        self.lost = false;
        Ok(())
    }

    /// An ended process leaves its cgroup a moment after its end is told.
    async fn until_gone(&self, hunted: bool) -> Result<(), RenewError> {
        for _ in 0..GONE_TICKS {
            let mut left = self.cgroup.processes();
            if hunted && let Some(identity) = self.birth.identity {
                left.extend(crate::init::processes_of(identity.uid));
            }
            if left.is_empty() {
                return Ok(());
            }
            if hunted {
                for pid in left.into_iter().filter_map(Pid::from_raw) {
                    // Gone already is what we want.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            sleep(GONE_TICK).await;
        }
        Err(RenewError::Survivors)
    }

    /// A full disk may be full of what is being thrown away.
    async fn empty_when_settled(&self, error: io::Error) -> io::Result<()> {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        if !matches!(error.kind(), StorageFull | QuotaExceeded) {
            return Err(error);
        }
        let trash = self.trash.clone();
        spawn_blocking(move || trash.settle()).await.map_err(io::Error::other)??;
        self.empty()
    }

    fn empty(&self) -> io::Result<()> {
        let dir = &self.birth.slot_dir;
        for path in [self.birth.workspace(), self.birth.tmp()] {
            self.trash.take(&path)?;
            make_dir(&path, 0o700, self.birth.identity)?;
        }
        make_dir_if_absent(&dir.join("root"), 0o755)
    }

    pub(crate) async fn call(
        &mut self,
        tool: &ToolCall,
        limits: CallLimits,
        network: Network,
        stop: &Stop,
    ) -> Result<Outcome, Problem> {
        match tool {
            ToolCall::Bash(args) => self.bash(args.clone(), limits, network, stop).await,
            other => self.file(other, limits, network, stop).await,
        }
    }

    /// In page caches and quiet slots a file takes microseconds, which is less than to hand it to
    /// another thread. But a slot's own processes can keep a file locked for seconds, and must not
    /// keep the runtime with it.
    async fn file(
        &self,
        tool: &ToolCall,
        limits: CallLimits,
        network: Network,
        stop: &Stop,
    ) -> Result<Outcome, Problem> {
        let Some(workspace) = &self.workspace else {
            return Err(Problem::new(Code::SlotBroken, "the slot has no workspace"));
        };
        let until = Until::new(limits, stop.token());
        let result = if self.quiet && tools::is_brief(tool) {
            tools::run(workspace, tool, &until)
        } else {
            let (workspace, tool) = (Arc::clone(workspace), tool.clone());
            spawn_blocking(move || tools::run(&workspace, &tool, &until))
                .await
                .map_err(|_panic| Problem::new(Code::Internal, "the tool failed; see the log"))?
        };
        Ok(Outcome::of_file(result, limits.timeout_ms, stop.by(), network))
    }

    async fn bash(
        &mut self,
        args: BashArgs,
        limits: CallLimits,
        network: Network,
        stop: &Stop,
    ) -> Result<Outcome, Problem> {
        let Some(init) = self.init.as_mut().filter(|_| !self.lost) else {
            return Err(Problem::new(Code::SlotBroken, "the slot has no processes"));
        };
        self.quiet = false;
        let oom_kills = self.cgroup.oom_kills();
        self.cgroup.reset_peak();
        let done = init.run(args, limits, network, stop.token()).await;
        let pressure = Pressure {
            oom_kills: self.cgroup.oom_kills().saturating_sub(oom_kills),
            memory_peak_bytes: self.cgroup.peak_bytes(),
        };
        match done {
            Ok(done) if done.end == End::NoShell => Err(Problem::new(
                Code::NoShell,
                "there is neither bash nor sh in the container; install bash in its image",
            )),
            Ok(done) => {
                self.quiet = done.quiet;
                Ok(Outcome::of_command(done, pressure, limits.timeout_ms, stop.by(), network))
            }
            Err(error) => {
                // Its memory of the call is gone with it; nobody knows how far the command came. It
                // is kept: who ends the slot has to wait until all that it held is gone.
                self.lost = true;
                if pressure.oom_kills > 0 && !stop.is_stopped() {
                    return Ok(Outcome::out_of_memory(network));
                }
                Ok(stop.outcome_of_lost(&error, network))
            }
        }
    }

    /// Whether a command runs behind the walls as it should.
    pub(crate) async fn try_out(&mut self) -> Result<(), String> {
        const CODE: i32 = 7;
        let Some(init) = &mut self.init else { return Err("there is no slot-init".to_owned()) };
        let args = BashArgs::new(format!("exit {CODE}"));
        let limits = CallLimits { timeout_ms: 10_000, ..CallLimits::default() };
        let done = init.run(args, limits, Network::On, &CancellationToken::new()).await;
        match done.map_err(|error| crate::chain(&error))?.end {
            // No shell is no fault of the walls.
            End::Exited(CODE) | End::NoShell => Ok(()),
            End::NotStarted(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                Err(format!("start a command in {}: {error}", self.birth.workspace().display()))
            }
            other => Err(format!("a command that should exit with {CODE} ended as {other:?}")),
        }
    }

    /// Whether a lost init left the slot without one.
    pub(crate) fn is_broken(&self) -> bool {
        self.lost || self.init.is_none()
    }
}

fn make_dir(path: &Path, mode: u32, owner: Option<Identity>) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    match owner {
        Some(identity) => chown(path, Some(identity.uid), Some(identity.uid)),
        None => Ok(()),
    }
}

fn make_dir_if_absent(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::metadata(path).map(|_| ()),
    }
}
