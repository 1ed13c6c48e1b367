//! Speaking with a container from before its start.

use super::{Attached, Engine, EngineError, Piece, error::Doing};
use bollard::{container::LogOutput, query_parameters::AttachContainerOptions};
use futures_util::StreamExt;

/// Which of its streams are read. What is not read is lost, unless the engine keeps a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hear {
    Stdout,
    StdoutAndStderr,
}

impl Engine {
    /// One request, and no look at what the container does: of one that has ended, the streams
    /// neither say anything nor end.
    pub async fn talk(&self, id: &str, hear: Hear) -> Result<Attached, EngineError> {
        let options = AttachContainerOptions {
            stream: true,
            stdin: true,
            stdout: true,
            stderr: hear == Hear::StdoutAndStderr,
            ..Default::default()
        };
        let attached = self.docker().await?.attach_container(id, Some(options)).await;
        let attached = attached.doing("attach to the container")?;
        let output = attached.output.filter_map(async |output| match output {
            Ok(LogOutput::StdIn { .. }) => None,
            Ok(LogOutput::StdErr { message }) => Some(Ok(Piece::Stderr(message))),
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                Some(Ok(Piece::Stdout(message)))
            }
            Err(error) => Some(Err(error).doing("read what the container prints")),
        });
        Ok(Attached { output: output.boxed(), input: attached.input })
    }
}
