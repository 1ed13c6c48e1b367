//! A slot's init, from the server's side: orders to it, answers from it, its end.

use crate::{
    init::views,
    isolate::{
        Birth,
        zygote::{Newborn, Zygote},
    },
    passing,
    wire::{Done, End, FRAME_BYTES_MAX, FromInit, Output, Run, Shell, Spawn, Stream, ToInit},
};
use bytes::Bytes;
use rustix::{
    fd::{AsFd, OwnedFd},
    process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};
use slotmux_protocol::{BashArgs, CallLimits, Decoder, FrameError, Isolation, Network, encode};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
    net::UnixStream,
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Putting up all walls takes a few milliseconds; this long means that it hangs.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// Beyond a call's own time: the init kills for 2 s at most, and may have to look for what fills
/// the disk before and after.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
const EXIT_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error("{step}")]
    Wall { step: String, source: io::Error },
    #[error("slot-init {doing}")]
    Lost { doing: &'static str, source: io::Error },
    #[error("slot-init sent nonsense")]
    Nonsense(#[from] FrameError),
    #[error("slot-init did not {doing} in time")]
    Silent { doing: &'static str },
}

/// What a slot-init is to run.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) args: BashArgs,
    pub(crate) shell: Shell,
    pub(crate) limits: CallLimits,
    pub(crate) network: Network,
}

/// A piece of what a command prints, told while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) stream: Stream,
    pub(crate) data: Bytes,
}

/// Where chunks go. Who does not take them holds up the command, whose time goes on. Who hangs up
/// is told no more, and the command runs on. The time over, or the call cancelled, nobody is
/// waited for: the rest is in the result, as far as that keeps it.
pub(crate) type Chunks = mpsc::Sender<Chunk>;

struct Outlet {
    output: Option<Chunks>,
    /// From then on nobody is waited for.
    until: Instant,
}

impl Outlet {
    async fn pass(&mut self, output: Output) {
        let Some(chunks) = &self.output else { return };
        let chunk = Chunk { stream: output.stream, data: output.data.into() };
        // What is dropped here is in the result all the same, as far as that is kept.
        if !matches!(timeout_at(self.until, chunks.send(chunk)).await, Ok(Ok(()))) {
            self.output = None;
        }
    }
}

/// Ends everything in the slot at once, from anywhere.
#[derive(Debug, Clone)]
pub(crate) struct KillSwitch {
    pidfd: Arc<OwnedFd>,
    rung: Isolation,
}

impl KillSwitch {
    fn kill(&self) {
        // ESRCH: it is gone already.
        let _ = pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL);
    }

    /// In a pid namespace everything ends with the init; elsewhere the init has to end it first.
    pub(crate) fn kill_where_that_is_enough(&self) {
        if self.rung == Isolation::Namespaces {
            self.kill();
        }
    }

    pub(crate) async fn ended(&self) -> io::Result<()> {
        exited(&self.pidfd).await
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pidfd, &other.pidfd)
    }
}

/// A slot-init whose walls stand. Dropped, it is killed, and with it all that it started.
#[derive(Debug)]
pub(crate) struct InitProcess {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    rung: Isolation,
    /// Whose the slot's processes are, where they are not the server's own user's.
    owner: Option<u32>,
    socket: UnixStream,
    decoder: Decoder,
    seq: u64,
    reaped: bool,
    /// The slot's workspace and root, where only the slot's own mounts lead to them.
    pub(super) views: Vec<OwnedFd>,
    /// A listening socket inside, where the slot's network is an allow-list.
    pub(super) way_out: Option<OwnedFd>,
    /// It is put into its cgroups meanwhile. Nothing is started before it is there, and it is not
    /// reaped either: its number must not come to mean somebody else.
    placing: Option<JoinHandle<io::Result<()>>>,
}

impl InitProcess {
    /// `place` is called with the init's process id, on a thread that may block. If it fails the
    /// init is killed.
    pub(crate) async fn start(
        zygote: &Arc<Zygote>,
        birth: Birth,
        place: impl FnOnce(i32) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, InitError> {
        let zygote = Arc::clone(zygote);
        let (rung, network) = (birth.rung, birth.network);
        let owner = birth.identity.map(|it| it.uid);
        let born = spawn_blocking(move || zygote.bear(&birth)).await;
        let born = born.map_err(|panic| lost("was not born", io::Error::other(panic)))?;
        let Newborn { pid, pidfd, socket } =
            born.map_err(|it| InitError::Wall { step: it.step, source: it.source })?;
        socket.set_nonblocking(true).map_err(|error| lost("has no socket", error))?;
        let mut init = Self {
            pid,
            pidfd: Arc::new(pidfd),
            rung,
            owner,
            socket: UnixStream::from_std(socket).map_err(|error| lost("has no socket", error))?,
            decoder: Decoder::new(FRAME_BYTES_MAX),
            seq: 0,
            reaped: false,
            views: Vec::new(),
            way_out: None,
            placing: None,
        };
        let switch = init.kill_switch();
        init.placing = Some(spawn_blocking(move || {
            place(pid.as_raw_nonzero().get()).inspect_err(|_| switch.kill())
        }));
        let first = timeout(READY_PATIENCE, init.receive_first()).await;
        match first.map_err(|_| InitError::Silent { doing: "put up its walls" })?? {
            FromInit::Ready => {}
            FromInit::Failed { step, error } => {
                return Err(InitError::Wall { step, source: io::Error::other(error) });
            }
            _ => return Err(lost("answered what nobody asked", broken())),
        }
        if network == Network::AllowList {
            init.way_out = init.views.pop();
        }
        Ok(init)
    }

    pub(crate) fn kill_switch(&self) -> KillSwitch {
        KillSwitch { pidfd: Arc::clone(&self.pidfd), rung: self.rung }
    }

    pub(super) fn rung(&self) -> Isolation {
        self.rung
    }

    pub(super) fn owner(&self) -> Option<u32> {
        self.owner
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    async fn placed(&mut self) -> Result<(), InitError> {
        let Some(placing) = &mut self.placing else { return Ok(()) };
        let placed = placing.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        self.placing = None;
        placed.map_err(|error| lost("fits no cgroup", error))
    }

    /// Runs a command to its end; `stop` ends it early, and so does what is `over` a limit.
    pub(crate) async fn run(
        &mut self,
        order: Order,
        output: Option<Chunks>,
        stop: &CancellationToken,
        over: impl Future<Output = End>,
    ) -> Result<Done, InitError> {
        let Order { args, shell, limits, network } = order;
        let seq = self.next_seq();
        let streamed = output.is_some();
        let run = Run { seq, args, shell, limits, network, streamed };
        self.placed().await?;
        let began = Instant::now();
        self.send(&ToInit::Run(Box::new(run))).await?;
        let until = began + Duration::from_millis(limits.timeout_ms);
        let mut output = Outlet { output, until };
        let end = tokio::select! {
            biased;
            done = self.receive_done(seq, &mut output) => return done,
            () = stop.cancelled() => ToInit::Cancel,
            end = over => ToInit::Over(end),
            () = tokio::time::sleep_until(until + ANSWER_PATIENCE) => {
                return Err(InitError::Silent { doing: "answer" });
            }
        };
        // A piece may have been on its way, and what comes after a gap is of no use.
        output.output = None;
        self.send(&end).await?;
        let done = timeout(ANSWER_PATIENCE, self.receive_done(seq, &mut output)).await;
        done.map_err(|_| InitError::Silent { doing: "cancel" })?
    }

    /// Cancel-safe: what was read stays in the decoder.
    async fn receive_done(&mut self, seq: u64, output: &mut Outlet) -> Result<Done, InitError> {
        loop {
            match self.receive().await? {
                FromInit::Done(done) if done.seq == seq => return Ok(*done),
                FromInit::Output(chunk) if chunk.seq == seq => output.pass(chunk).await,
                FromInit::Done(_) | FromInit::Output(_) | FromInit::Spawned { .. } => {}
                _ => return Err(lost("said that it is new", broken())),
            }
        }
    }

    /// Why it was not started, if it was not; and what came along with the answer.
    pub(super) async fn spawn(
        &mut self,
        spawn: Spawn,
        handed: Vec<OwnedFd>,
    ) -> Result<(Option<End>, Option<OwnedFd>), InitError> {
        let wanted = spawn.id;
        self.placed().await?;
        self.send_with(&ToInit::Spawn(Box::new(spawn)), handed).await?;
        let answer = async {
            let mut passed = Vec::new();
            loop {
                while let Some(message) = self.decoder.next_message()? {
                    match message {
                        FromInit::Spawned { id, refused } if id == wanted => {
                            return Ok((refused, passed.pop()));
                        }
                        FromInit::Ready | FromInit::Failed { .. } => {
                            return Err(lost("said that it is new", broken()));
                        }
                        _late => {}
                    }
                }
                let views = views::receive(&self.socket, self.decoder.buffer_mut()).await;
                passed.extend(views.map_err(|error| lost("cannot be heard", error))?);
                // Of a late answer, then.
                passed.drain(..passed.len().saturating_sub(1));
            }
        };
        let answered = timeout(ANSWER_PATIENCE, answer).await;
        answered.map_err(|_| InitError::Silent { doing: "answer" })?
    }

    pub(super) async fn end_spawned(&mut self, id: u64) -> Result<(), InitError> {
        self.send(&ToInit::EndSession { id }).await
    }

    /// No command has been run yet: what comes along was opened by our own code.
    async fn receive_first(&mut self) -> Result<FromInit, InitError> {
        let views = views::receive(&self.socket, self.decoder.buffer_mut()).await;
        self.views = views.map_err(|error| lost("cannot be heard", error))?;
        self.receive().await
    }

    async fn receive(&mut self) -> Result<FromInit, InitError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            let read = self.socket.read_buf(self.decoder.buffer_mut()).await;
            match read {
                Ok(0) => return Err(lost("has ended", io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(lost("cannot be heard", error)),
            }
        }
    }

    async fn send_with(&mut self, message: &ToInit, fds: Vec<OwnedFd>) -> Result<(), InitError> {
        let mut frame = bytes::BytesMut::new();
        encode(message, FRAME_BYTES_MAX, &mut frame)?;
        let pass = || passing::send_with(self.socket.as_fd(), &frame, &fds);
        let begun = self.socket.async_io(Interest::WRITABLE, pass).await;
        let begun = begun.map_err(|error| lost("cannot be told", error))?;
        drop(fds);
        let rest = self.socket.write_all(&frame[begun..]).await;
        rest.map_err(|error| lost("cannot be told", error))
    }

    async fn send(&mut self, message: &ToInit) -> Result<(), InitError> {
        let mut frame = bytes::BytesMut::new();
        encode(message, FRAME_BYTES_MAX, &mut frame)?;
        self.socket.write_all(&frame).await.map_err(|error| lost("cannot be told", error))
    }

    /// Kills it and waits until it is gone, and with it everything in its pid namespace.
    pub(crate) async fn end(mut self) -> Result<(), InitError> {
        self.kill_switch().kill();
        let exited = timeout(EXIT_PATIENCE, exited(&self.pidfd)).await;
        exited
            .map_err(|_| InitError::Silent { doing: "die" })?
            .map_err(|error| lost("cannot be waited for", error))?;
        // Where to it was put is of no matter any more.
        let _ = self.placed().await;
        let _ = self.reap();
        Ok(())
    }

    /// Without a namespace the kill of the init leaves its children: it has to end them itself.
    /// `false`: it did not live to do so.
    pub(crate) async fn end_by_itself(mut self) -> Result<bool, InitError> {
        // Its end may be closed already; whether it was in order shows below.
        let _ = self.socket.shutdown().await;
        let exited = timeout(EXIT_PATIENCE, exited(&self.pidfd)).await;
        exited
            .map_err(|_| InitError::Silent { doing: "end" })?
            .map_err(|error| lost("cannot be waited for", error))?;
        let _ = self.placed().await;
        Ok(self.reap() == Some(0))
    }

    /// Its exit code, if it had one.
    fn reap(&mut self) -> Option<i32> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if let Ok(Some(status)) = waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            self.reaped = true;
            return status.exit_status();
        }
        tracing::warn!(pid = %self.pid.as_raw_nonzero(), "slot-init not reaped yet");
        None
    }
}

impl Drop for InitProcess {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.kill_switch().kill();
        let pidfd = Arc::clone(&self.pidfd);
        let placing = self.placing.take();
        // A zombie until somebody waits for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Some(placing) = placing {
                    let _ = placing.await;
                }
                if exited(&pidfd).await.is_ok() {
                    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), options);
                }
            });
        }
    }
}

async fn exited(pidfd: &Arc<OwnedFd>) -> io::Result<()> {
    let watched = watch(pidfd.as_fd().try_clone_to_owned()?)?;
    watched.readable().await.map(|_| ())
}

#[expect(unsafe_code, reason = "tokio asks us to vouch for the descriptor")]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` is open, and `AsyncFd` owns it until both are dropped.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

fn lost(doing: &'static str, source: io::Error) -> InitError {
    InitError::Lost { doing, source }
}

fn broken() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
