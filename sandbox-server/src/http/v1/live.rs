//! A call whose output is sent while it runs.

use crate::slot::Chunk;
use futures_util::{
    Stream, StreamExt as _,
    stream::{iter, unfold},
};
use slotmux_protocol::{Code, Problem, ToolResult, Utf8Pieces, link::OutputStream, v1::OutputLine};
use tokio::{sync::mpsc, task::JoinHandle};

type Answer = JoinHandle<Result<ToolResult, Problem>>;

/// What a call prints, then what came of it. Dropped, it leaves the call to run on.
pub(super) fn live(
    chunks: mpsc::Receiver<Chunk>,
    answer: Answer,
) -> impl Stream<Item = OutputLine> + Send + 'static {
    let state = Some((chunks, answer, <[Utf8Pieces; 2]>::default()));
    unfold(state, async |state| {
        let (mut chunks, answer, mut texts) = state?;
        if let Some(Chunk { stream, data }) = chunks.recv().await {
            let stream = OutputStream::from(stream);
            let text = texts[stream as usize].push(&data);
            return Some((line(stream, text), Some((chunks, answer, texts))));
        }
        // The call has ended.
        let mut last = Vec::new();
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            last.extend(line(stream, texts[stream as usize].finish()));
        }
        let answer = answer.await.unwrap_or_else(|_panic_or_end| {
            Err(Problem::new(Code::ShuttingDown, "the server is shutting down"))
        });
        last.push(OutputLine::last(answer));
        Some((last, None))
    })
    .flat_map(iter)
}

fn line(stream: OutputStream, text: String) -> Vec<OutputLine> {
    match stream {
        _ if text.is_empty() => Vec::new(),
        OutputStream::Stdout => vec![OutputLine::Stdout(text)],
        OutputStream::Stderr => vec![OutputLine::Stderr(text)],
    }
}
