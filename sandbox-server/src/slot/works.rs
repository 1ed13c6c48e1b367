//! What is behind a slot: its init, its workspace, its cgroup; made, used and made anew.

use super::commands::Terms;
use super::process::{Chunks, InitError, InitProcess, KillSwitch, Order};
use super::room::{Room, added_by};
use crate::{
    cgroup::{Counters, SlotCgroup},
    egress::{self, Egress},
    files::{FileError, Until, Workspace, tools},
    isolate::{Birth, Identity, ImageUpper, RootKind, root::image, zygote::Zygote},
    layers::Base,
    outcome::Outcome,
    stop::Stop,
    terminal::Terminals,
    trash::Trash,
    wire::{Done, End, Shell},
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
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
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
    #[error("serve its way out")]
    WayOut(#[source] io::Error),
    #[error("seal the workspace")]
    Seal(#[source] io::Error),
    #[error("fill the workspace")]
    Fill(#[source] io::Error),
    #[error("the image was forked too many times over: reset the slot")]
    TooDeep,
}

/// One slot's. Whoever has it has the slot's turn.
#[derive(Debug)]
pub(crate) struct Works {
    zygote: Arc<Zygote>,
    pub(super) trash: Trash,
    pub(super) birth: Birth,
    pub(super) cgroup: SlotCgroup,
    pub(super) init: Option<InitProcess>,
    /// The init went away, and nobody knows what it has left.
    pub(super) lost: bool,
    pub(super) workspace: Option<Arc<Workspace>>,
    /// Nothing runs in the slot that could hold up who works with its files.
    pub(super) quiet: bool,
    /// By its cgroup, at the end of the last call, if that has left nothing running.
    pub(super) counted: Option<Counters>,
    /// What its files lie on.
    pub(super) base: Base,
    /// Where its network is an allow-list.
    egress: Option<Egress>,
    /// As long as it serves.
    way_out: Option<egress::Serving>,
    pub(super) terminals: Terminals,
    pub(super) room: Room,
}

impl Works {
    /// Not yet usable: [`Works::renew`] makes it so.
    pub(crate) fn new(zygote: Arc<Zygote>, trash: Trash, birth: Birth, cgroup: SlotCgroup) -> Self {
        Self {
            room: Room::new(&birth),
            zygote,
            trash,
            birth,
            cgroup,
            init: None,
            lost: false,
            workspace: None,
            quiet: true,
            counted: None,
            base: Base::default(),
            egress: None,
            way_out: None,
            terminals: Terminals::default(),
        }
    }

    pub(crate) fn with_egress(mut self, egress: Option<Egress>) -> Self {
        self.egress = egress;
        self
    }

    /// Ends all processes of the slot, throws all of its files away, starts it anew, empty.
    pub(crate) async fn renew(&mut self) -> Result<KillSwitch, RenewError> {
        self.clear(Base::default()).await?;
        self.begin().await
    }

    /// Ends all processes of the slot, throws all of its files away. What comes next in it will
    /// lie on `base`.
    pub(super) async fn clear(&mut self, base: Base) -> Result<(), RenewError> {
        self.end().await?;
        self.workspace = None;
        self.birth.layers = base.workspace.lowers();
        self.birth.image_layers = base.image.lowers();
        let before = std::mem::replace(&mut self.base, base);
        if let Err(error) = self.empty() {
            self.empty_when_settled(error).await.map_err(RenewError::Empty)?;
        }
        drop(before);
        Ok(())
    }

    /// Starts the slot on the files that there are.
    pub(crate) async fn begin(&mut self) -> Result<KillSwitch, RenewError> {
        self.room.renew();
        let switch = self.start().await?;
        let workspace = self.open_workspace().map_err(|errno| RenewError::Empty(errno.into()))?;
        self.workspace = Some(Arc::new(workspace));
        self.quiet = true;
        self.counted = None;
        Ok(switch)
    }

    fn open_workspace(&mut self) -> rustix::io::Result<Workspace> {
        let max = self.birth.limits.file_bytes_max;
        let views = self.init.as_mut().map(|it| std::mem::take(&mut it.views));
        let mut views = views.unwrap_or_default().into_iter();
        let workspace = match views.next() {
            Some(dir) => Workspace::of_views(dir, views.next(), self.birth.identity, max),
            None => Workspace::open(&self.birth.workspace(), self.birth.identity, max)?,
        };
        Ok(match self.birth.rung {
            // There ids are what they are outside.
            Isolation::Namespaces if self.birth.root.is_in_parts() => workspace,
            Isolation::Namespaces => workspace.seen_as(self.birth.inside_id()),
            _ => workspace,
        })
    }

    async fn start(&mut self) -> Result<KillSwitch, RenewError> {
        let placing = self.cgroup.placing();
        let mut init = InitProcess::start(&self.zygote, self.birth.clone(), placing)
            .await
            .map_err(RenewError::Start)?;
        let switch = init.kill_switch();
        let way_out = init.way_out.take();
        self.init = Some(init);
        if let (Some(egress), Some(listener)) = (&self.egress, way_out) {
            let serving = egress.serve(&self.birth.slot_dir, listener);
            self.way_out = Some(serving.map_err(RenewError::WayOut)?);
        }
        Ok(switch)
    }

    /// Returns when every process of the slot is gone.
    pub(crate) async fn end(&mut self) -> Result<(), RenewError> {
        let namespaces = self.birth.rung == Isolation::Namespaces;
        self.terminals = Terminals::default();
        self.way_out = None;
        if let Some(init) = self.init.take() {
            // Until its end is known: we may fail here, or be dropped.
            let lost_before = std::mem::replace(&mut self.lost, true);
            if namespaces {
                // The kernel reaps a pid namespace before its init: gone is gone.
                init.end().await.map_err(RenewError::End)?;
                self.lost = lost_before;
            } else {
                let in_order = init.end_by_itself().await.map_err(RenewError::End)?;
                self.lost = lost_before || !in_order;
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
        self.trash.take(&self.birth.work())?;
        if !self.base.workspace.is_empty() {
            make_dir(&self.birth.work(), 0o700, None)?;
        }
        if self.birth.root.upper() == Some(ImageUpper::Disk) {
            let image = self.birth.image();
            self.trash.take(&image)?;
            make_dir(&image, 0o700, None)?;
            image::make_upper(&image, &self.birth)?;
        }
        make_dir_if_absent(&dir.join("root"), 0o755)
    }

    pub(crate) async fn call(
        &mut self,
        tool: &ToolCall,
        limits: CallLimits,
        network: Network,
        output: Option<Chunks>,
        stop: &Stop,
    ) -> Result<Outcome, Problem> {
        let terms = Terms { limits, network, output };
        let begun = Instant::now();
        let mut outcome = match tool {
            ToolCall::Bash(args) => self.bash(args.clone(), terms, stop).await,
            ToolCall::BashStateful(args) => self.bash_stateful(args.clone(), terms, stop).await,
            ToolCall::Terminal(args) => self.terminal(args, limits, network, stop).await,
            other => self.file(other, limits, network, stop).await,
        }?;
        if outcome.usage.wall_us == 0 {
            // Nobody nearer to it has measured.
            outcome.usage.wall_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        }
        Ok(outcome)
    }

    /// In page caches and quiet slots a file takes microseconds, which is less than to hand it to
    /// another thread. But a slot's own processes can keep a file locked for seconds, and must not
    /// keep the runtime with it; nor must a layer's file that is copied to be changed.
    async fn file(
        &mut self,
        tool: &ToolCall,
        limits: CallLimits,
        network: Network,
        stop: &Stop,
    ) -> Result<Outcome, Problem> {
        let Some(workspace) = &self.workspace else {
            return Err(Problem::new(Code::SlotBroken, "the slot has no workspace"));
        };
        if let Some(bytes) = added_by(tool)
            && let Err(why) = self.room.check(bytes).await
        {
            return Ok(why.outcome(network));
        }
        let until = Until::new(limits, stop.token());
        let plain = self.base.workspace.is_empty() && self.birth.root == RootKind::Minimal;
        let result = if self.quiet && plain && tools::is_brief(tool) {
            tools::run(workspace, tool, &until)
        } else {
            let (workspace, tool) = (Arc::clone(workspace), tool.clone());
            spawn_blocking(move || tools::run(&workspace, &tool, &until))
                .await
                .map_err(|_panic| Problem::new(Code::Internal, "the tool failed; see the log"))?
        };
        if matches!(result, Err(FileError::Full(_))) {
            return Ok(self.room.who_filled_it().await.outcome(network));
        }
        Ok(Outcome::of_file(result, limits.timeout_ms, stop.by(), network))
    }

    /// Whether a command that should exit with 7 runs behind the walls as it should.
    pub(crate) async fn try_out(&mut self, command: &str) -> Result<(), String> {
        const CODE: i32 = 7;
        let done = self.run_for_us(command).await.map_err(|error| crate::chain(&error))?;
        match done.map(|it| it.end) {
            None => Err("there is no slot-init".to_owned()),
            // No shell is no fault of the walls.
            Some(End::Exited(CODE) | End::NoShell) => Ok(()),
            Some(End::NotStarted(errno)) => {
                let error = io::Error::from_raw_os_error(errno);
                Err(format!("start a command in {}: {error}", self.birth.workspace().display()))
            }
            Some(other) => {
                Err(format!("a command that should exit with {CODE} ended as {other:?}"))
            }
        }
    }

    /// Whether nothing runs in the slot: asked anew when something did.
    pub(super) async fn is_idle(&mut self) -> bool {
        if !self.quiet {
            self.quiet = match self.run_for_us(":").await {
                Ok(done) => done.is_none_or(|it| it.quiet),
                Err(_lost) => {
                    self.lost = true;
                    false
                }
            };
        }
        self.quiet
    }

    async fn run_for_us(&mut self, command: &str) -> Result<Option<Done>, InitError> {
        let Some(init) = &mut self.init else { return Ok(None) };
        let args = BashArgs::new(command);
        let limits = CallLimits { timeout_ms: 10_000, ..CallLimits::default() };
        let order = Order { args, shell: Shell::Fresh, limits, network: Network::On };
        let over = std::future::pending();
        init.run(order, None, &CancellationToken::new(), over).await.map(Some)
    }

    /// Whether a lost init left the slot without one.
    pub(crate) fn is_broken(&self) -> bool {
        self.lost || self.init.is_none()
    }
}

pub(super) fn make_dir(path: &Path, mode: u32, owner: Option<Identity>) -> io::Result<()> {
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
