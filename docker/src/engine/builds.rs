//! Building images, with the classic builder: the one that every engine has without a session.

use super::{Engine, EngineError, Fault, LogTail, error::Doing};
use bollard::{body_try_stream, errors::Error, query_parameters::BuildImageOptions};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// For an image as a whole. A step that stands still ends too.
const BUILD_MAX: Duration = Duration::from_hours(1);

/// Of what a step printed, for the reason of its failure.
const WORDS_BYTES_MAX: usize = 2 << 10;

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOrder {
    /// `name:tag`, which the image then has.
    pub tag: String,
    /// Its name in the context.
    pub dockerfile: String,
    pub labels: HashMap<String, String>,
    pub args: BTreeMap<String, String>,
}

impl Engine {
    /// Of `context`, a tar archive. Returns when the image is there.
    pub async fn build(
        &self,
        context: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        order: BuildOrder,
    ) -> Result<(), EngineError> {
        let BuildOrder { tag, dockerfile, labels, args } = order;
        let doing = format!("build image `{tag}`");
        let options = BuildImageOptions {
            dockerfile,
            t: Some(tag.clone()),
            labels: Some(labels),
            buildargs: Some(args.into_iter().collect()),
            // Of a step that failed, too.
            rm: true,
            forcerm: true,
            ..Default::default()
        };
        let docker = self.docker().await?.with_timeout(BUILD_MAX);
        let mut news = docker.build_image(options, None, Some(body_try_stream(context)));
        let deadline = Instant::now() + BUILD_MAX;
        let mut step = Step::default();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Dropping the stream makes the engine give it up.
            let news = timeout(left, news.next()).await;
            match news.unwrap_or(Some(Err(Error::RequestTimeoutError))) {
                None => return Ok(()),
                Some(Ok(news)) => step.hear(&tag, news.stream.as_deref().unwrap_or_default()),
                Some(Err(Error::DockerStreamError { error })) => {
                    return Err(EngineError { doing, fault: step.failed(error) });
                }
                Some(Err(error)) => return Err(error).doing(doing),
            }
        }
    }
}

/// The step that is under way.
#[derive(Debug)]
struct Step {
    name: String,
    words: LogTail,
}

impl Default for Step {
    fn default() -> Self {
        Self { name: String::new(), words: LogTail::new(WORDS_BYTES_MAX) }
    }
}

impl Step {
    fn hear(&mut self, tag: &str, said: &str) {
        let line = said.trim_end();
        if line.is_empty() {
            return;
        }
        tracing::debug!(image = tag, said = line, "building");
        // Of podman in capitals.
        if line.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case("step ")) {
            *self = Self { name: line.to_owned(), ..Self::default() };
        // The engine's own remarks.
        } else if !line.starts_with(" ---> ") {
            self.words.push(said.as_bytes());
        }
    }

    fn failed(self, message: String) -> Fault {
        let words = self.words.text();
        Fault::step(self.name, &message, words.trim())
    }
}
