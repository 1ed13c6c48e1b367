//! Images: whether they are there, and fetching them.

use super::{Engine, EngineError, error::Doing};
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;

impl Engine {
    pub async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        let found = self.docker().await?.inspect_image(image).await;
        match found.doing(format_args!("look at image `{image}`")) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns when it is there.
    pub async fn pull(&self, image: &str) -> Result<(), EngineError> {
        let options =
            CreateImageOptions { from_image: Some(with_tag(image)), ..Default::default() };
        let docker = self.docker().await?;
        let mut progress = std::pin::pin!(docker.create_image(Some(options), None, None));
        let mut step = String::new();
        while let Some(news) = progress.next().await {
            let news = news.doing(format_args!("pull image `{image}`"))?;
            let now = news.status.unwrap_or_default();
            if now != step {
                tracing::debug!(image, step = now, "pulling");
                step = now;
            }
        }
        Ok(())
    }
}

/// Without one, engines pull every tag there is.
fn with_tag(image: &str) -> String {
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
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
}
