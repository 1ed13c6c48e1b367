//! Takes what a session's program prints, for as long as it prints.
//!
//! The program may print without end. What is a lot is worked on outside the runtime, for one
//! session of a slot at a time and for half of the time at most: until then the kernel holds the
//! program up.

use super::state::State;
use crate::slot::{SessionEnd, SessionEnded, Terminal};
use futures_util::FutureExt;
use std::{
    future::pending,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Taken from the terminal at once.
const TURN_BYTES_MAX: usize = 8 << 10;
/// Cells that are worked on where we are: at most a millisecond, for the worst of sequences.
const BRIEF_CELLS_MAX: usize = 20_000;
/// Worked on before others get at the session: a few milliseconds, for the worst of sequences.
const PIECE_BYTES: usize = 1 << 10;
/// After the program's end its terminal is closed at once, or others of its processes have it.
const REST_PATIENCE: Duration = Duration::from_millis(50);
const REST_BYTES_MAX: usize = 1 << 20;

/// What the pump and the calls share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) terminal: Terminal,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Of the slot: whose turn it is to take a processor.
    heavy: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(terminal: Terminal, state: State, heavy: Arc<Semaphore>) -> Self {
        Self { terminal, state: Mutex::new(state), changed: watch::Sender::new(()), heavy }
    }

    /// Not to be held over an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told after each change of the state that comes from the program.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn printed(&self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_BYTES) {
            let answers = self.state().printed(piece);
            if !answers.is_empty() {
                // Who does not read what it has asked for does without.
                let _ = self.terminal.write(&answers).now_or_never();
            }
        }
        self.changed.send_replace(());
    }

    fn ended(&self, end: SessionEnd) {
        self.state().ended(end);
        self.changed.send_replace(());
    }
}

/// Until the terminal is closed and the program has ended.
pub(super) async fn pump(shared: Arc<Shared>, mut ended: SessionEnded) {
    let mut buffer = Vec::new();
    let mut end = None;
    loop {
        let read = tokio::select! {
            read = take(&shared.terminal, &mut buffer) => read,
            known = ended.wait(), if end.is_none() => {
                end = Some(known);
                let closed = take_rest(&shared).await;
                shared.ended(known);
                if closed {
                    return;
                }
                continue;
            }
        };
        match read {
            Ok(1..) => buffer = work(&shared, buffer).await,
            Ok(0) | Err(_) => break,
        }
    }
    if end.is_none() {
        shared.ended(ended.wait().await);
    }
}

/// Takes what there is, up to a limit. Cancel-safe: only the first read waits, and what was read
/// is returned.
async fn take(terminal: &Terminal, buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.resize(TURN_BYTES_MAX, 0);
    let mut length = terminal.read(buffer).await?;
    while length > 0 && length < buffer.len() {
        match terminal.read(&mut buffer[length..]).now_or_never() {
            Some(Ok(bytes @ 1..)) => length += bytes,
            // The next turn meets it again.
            _ => break,
        }
    }
    buffer.truncate(length);
    Ok(length)
}

/// Returns the buffer, for the next turn.
async fn work(shared: &Arc<Shared>, buffer: Vec<u8>) -> Vec<u8> {
    let size = shared.state().screen.size();
    // The shortest sequences are for a whole screen of lines, or in eight bytes for a line of cells.
    let cells_per_byte = usize::from(size.rows.get()) + usize::from(size.cols.get()) / 8;
    if buffer.len() * cells_per_byte <= BRIEF_CELLS_MAX {
        shared.printed(&buffer);
        return buffer;
    }
    let turn = Arc::clone(&shared.heavy).acquire_owned().await;
    let began = Instant::now();
    let elsewhere = Arc::clone(shared);
    let work = spawn_blocking(move || {
        elsewhere.printed(&buffer);
        buffer
    });
    let buffer = work.await.unwrap_or_default();
    if buffer.len() == TURN_BYTES_MAX {
        sleep(began.elapsed()).await;
    }
    drop(turn);
    buffer
}

/// What the program has printed before its end. `true`: the terminal is closed.
async fn take_rest(shared: &Arc<Shared>) -> bool {
    let mut buffer = Vec::new();
    let mut taken = 0;
    while taken < REST_BYTES_MAX {
        match timeout(REST_PATIENCE, take(&shared.terminal, &mut buffer)).await {
            Ok(Ok(bytes @ 1..)) => {
                taken += bytes;
                buffer = work(shared, buffer).await;
            }
            Ok(Ok(0) | Err(_)) => return true,
            Err(_elapsed) => return false,
        }
    }
    false
}

/// Never, if there is no such time.
pub(super) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
