//! Fetching images, with what the docker CLI knows of their registries.

use super::{
    Engine, EngineError, Fault,
    credentials::{self, Credentials},
    error::Doing,
};
use crate::causes::chain;
use bollard::{models::CreateImageInfo, query_parameters::CreateImageOptions};
use futures_util::StreamExt;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// Between two lines of the log.
const TOLD_APART: Duration = Duration::from_secs(5);

/// Parts of an image that are counted.
const PARTS_MAX: usize = 1_000;

/// Why an image was not to be had, as far as the words of engines say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullTrouble {
    /// There may be such an image; it is not for us.
    Denied,
    /// The registry has no such image.
    Unknown,
    /// It is there, but not for the engine's machine.
    NoPlatform,
    Unreachable,
    Other,
}

impl Engine {
    /// Returns when it is there. Credentials that cannot be read are missed only by a registry that
    /// asks for some.
    pub async fn pull(&self, image: &str) -> Result<(), EngineError> {
        let doing = format!("pull image `{image}`");
        let (credentials, unread) = match self.credentials(image).await {
            Ok(credentials) => (credentials.map(Credentials::for_engine), None),
            Err(error) => {
                tracing::warn!(image, error = %chain(&error), "pulling without credentials");
                (None, Some(error))
            }
        };
        let options =
            CreateImageOptions { from_image: Some(with_tag(image)), ..Default::default() };
        let docker = self.docker().await?;
        let mut news = docker.create_image(Some(options), None, credentials).boxed();
        let mut progress = Progress::default();
        while let Some(news) = news.next().await {
            let error = match news.doing(&doing) {
                Ok(news) => {
                    progress.hear(image, news);
                    continue;
                }
                Err(error) => error,
            };
            return Err(match unread {
                Some(source) if error.pull_trouble() == PullTrouble::Denied => {
                    EngineError { doing, fault: Fault::Credentials(source) }
                }
                _ => error,
            });
        }
        Ok(())
    }

    /// Whether there are any for its registry.
    pub(crate) async fn has_credentials(&self, image: &str) -> bool {
        matches!(self.credentials(image).await, Ok(Some(_)))
    }

    async fn credentials(
        &self,
        image: &str,
    ) -> Result<Option<Credentials>, credentials::CredentialsError> {
        let Some(dir) = self.config_dir.as_deref() else { return Ok(None) };
        credentials::find(dir, credentials::registry(image)).await
    }
}

/// Without one, engines pull every tag there is.
fn with_tag(image: &str) -> String {
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// What of an image has come, in bytes of what was announced.
#[derive(Debug)]
struct Progress {
    parts: HashMap<String, (i64, i64)>,
    next_told: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self { parts: HashMap::new(), next_told: Instant::now() + TOLD_APART }
    }
}

impl Progress {
    fn hear(&mut self, image: &str, news: CreateImageInfo) {
        let step = news.status.unwrap_or_default();
        tracing::trace!(image, step, "pulling");
        // Unpacking is counted anew, and is not what takes long.
        if step == "Downloading"
            && let (Some(id), Some(of)) = (news.id, news.progress_detail)
            && (self.parts.len() < PARTS_MAX || self.parts.contains_key(&id))
        {
            self.parts.insert(id, (of.current.unwrap_or(0), of.total.unwrap_or(0)));
        }
        if Instant::now() >= self.next_told {
            self.next_told = Instant::now() + TOLD_APART;
            let done_bytes: i64 = self.parts.values().map(|part| part.0).sum();
            let known_bytes: i64 = self.parts.values().map(|part| part.1).sum();
            tracing::info!(image, step, done_bytes, known_bytes, "pulling");
        }
    }
}

impl EngineError {
    /// Of a pull.
    pub fn pull_trouble(&self) -> PullTrouble {
        use PullTrouble::{Denied, NoPlatform, Unknown, Unreachable};
        /// Of engines since 20.10, and of Podman; the first that fits. A registry that denies also
        /// says that there may be no such image.
        const WORDS: [(PullTrouble, &[&str]); 4] = [
            (
                NoPlatform,
                &[
                    "no matching manifest",
                    "no match for platform",
                    "no image found in manifest list",
                    "no image found in image index",
                    "does not match the specified platform",
                    "does not provide the specified platform",
                ],
            ),
            (
                Denied,
                &[
                    "denied",
                    "unauthorized",
                    "authentication required",
                    "no basic auth credentials",
                    "authorization failed",
                    "forbidden",
                    "invalid username/password",
                ],
            ),
            (
                Unreachable,
                &[
                    "dial tcp",
                    "no such host",
                    "connection refused",
                    "connection reset",
                    "i/o timeout",
                    "timeout exceeded",
                    "deadline exceeded",
                    "tls handshake",
                    "http response to https client",
                    "network is unreachable",
                    "no route to host",
                    "server misbehaving",
                ],
            ),
            (
                Unknown,
                &["manifest unknown", "name unknown", "not found", "does not exist", "unknown: "],
            ),
        ];
        let Fault::Said { message, .. } = &self.fault else { return PullTrouble::Other };
        let message = message.to_lowercase();
        let fits = |words: &&[&str]| words.iter().any(|words| message.contains(words));
        let found = WORDS.iter().find(|(_, words)| fits(words));
        found.map_or(PullTrouble::Other, |(trouble, _)| *trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_means_its_latest() {
        assert_eq!(with_tag("debian"), "debian:latest");
        assert_eq!(with_tag("debian:12"), "debian:12");
        assert_eq!(with_tag("host:5000/team/debian"), "host:5000/team/debian:latest");
        assert_eq!(with_tag("debian@sha256:00"), "debian@sha256:00");
    }

    #[test]
    fn the_words_of_engines_say_why_an_image_is_not_to_be_had() {
        use PullTrouble::{Denied, NoPlatform, Other, Unknown, Unreachable};
        for (message, wanted) in [
            (
                "pull access denied for a/b, repository does not exist or may require 'docker \
                 login': denied: requested access to the resource is denied",
                Denied,
            ),
            ("Head \"http://far/v2/a/manifests/1\": no basic auth credentials", Denied),
            ("unauthorized: authentication required", Denied),
            ("manifest for far/a:2 not found: manifest unknown: manifest unknown", Unknown),
            ("failed to resolve reference \"far/a:2\": far/a:2: not found", Unknown),
            ("no matching manifest for linux/amd64 in the manifest list entries", NoPlatform),
            (
                "Get \"https://far/v2/\": dial tcp 10.0.0.1:443: connect: connection refused",
                Unreachable,
            ),
            ("Get \"https://far/v2/\": dial tcp: lookup far: no such host", Unreachable),
            ("no space left on device", Other),
        ] {
            let fault = Fault::Said { status: 500, message: message.to_owned() };
            let error = EngineError { doing: String::new(), fault };
            assert_eq!(error.pull_trouble(), wanted, "{message}");
        }
    }
}
