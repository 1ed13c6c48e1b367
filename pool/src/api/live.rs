//! A call whose output is sent while it runs.

use crate::link::{Output, OutputReader};
use futures_util::{Stream, stream::unfold};
use slotmux_protocol::{Problem, ToolResult, Utf8Pieces, link::OutputStream, v1::OutputLine};
use std::{collections::VecDeque, pin::Pin};

type Running = Pin<Box<dyn Future<Output = Result<ToolResult, Problem>> + Send>>;

struct Live {
    /// Polled until it has the answer, also while nobody prints anything.
    running: Option<Running>,
    reader: Option<OutputReader>,
    answer: Option<OutputLine>,
    texts: [Utf8Pieces; 2],
    lines: VecDeque<OutputLine>,
}

/// What a call prints, then what came of it. Dropped, it abandons the call.
pub(super) fn live(
    run: impl Future<Output = Result<ToolResult, Problem>> + Send + 'static,
    reader: OutputReader,
) -> impl Stream<Item = OutputLine> + Send + 'static {
    let state = Live {
        running: Some(Box::pin(run)),
        reader: Some(reader),
        answer: None,
        texts: Default::default(),
        lines: VecDeque::new(),
    };
    unfold(state, async |mut state| {
        let line = state.next().await?;
        Some((line, state))
    })
}

impl Live {
    async fn next(&mut self) -> Option<OutputLine> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            match (&mut self.reader, &mut self.running) {
                (Some(reader), Some(running)) => tokio::select! {
                    biased;
                    output = reader.next() => self.take(output),
                    answer = running => self.finish(answer),
                },
                // It has ended, and so the reader ends too.
                (Some(reader), None) => {
                    let output = reader.next().await;
                    self.take(output);
                }
                (None, Some(running)) => {
                    let answer = running.await;
                    self.finish(answer);
                }
                (None, None) => return self.answer.take(),
            }
        }
    }

    fn finish(&mut self, answer: Result<ToolResult, Problem>) {
        self.answer = Some(OutputLine::last(answer));
        self.running = None;
    }

    fn take(&mut self, output: Option<Output>) {
        match output {
            Some(Output::Chunk { stream, bytes }) => {
                let text = self.texts[stream as usize].push(&bytes);
                self.say(stream, text);
            }
            Some(Output::Cut) => self.lines.push_back(OutputLine::Cut(true)),
            None => {
                self.reader = None;
                for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                    let text = self.texts[stream as usize].finish();
                    self.say(stream, text);
                }
            }
        }
    }

    fn say(&mut self, stream: OutputStream, text: String) {
        if !text.is_empty() {
            self.lines.push_back(match stream {
                OutputStream::Stdout => OutputLine::Stdout(text),
                OutputStream::Stderr => OutputLine::Stderr(text),
            });
        }
    }
}
