//! Images that are there.

use super::{Engine, EngineError, clock::unix_seconds, error::Doing};
use bollard::{
    models::{ImageInspect, ImageSummary},
    query_parameters::{ListImagesOptions, RemoveImageOptions},
};
use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A line of a list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    /// As `name:tag`. None, where its last name was given to another.
    pub tags: Vec<String>,
    pub labels: HashMap<String, String>,
    /// In whole seconds. 1970, where nobody has written it down.
    pub created: SystemTime,
}

/// What is known of an image that was asked for by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    pub image: Image,
    /// As `8080/tcp`, in order.
    pub exposed_ports: Vec<String>,
}

impl Engine {
    pub async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        Ok(self.find_image(image).await?.is_some())
    }

    /// By name or by id.
    pub async fn find_image(&self, image: &str) -> Result<Option<FoundImage>, EngineError> {
        let found = self.docker().await?.inspect_image(image).await;
        match found.doing(format_args!("look at image `{image}`")) {
            Ok(found) => Ok(Some(FoundImage::read(found))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every image with `label`: a name, whatever its value, or `name=value`.
    pub async fn images_with_label(&self, label: &str) -> Result<Vec<Image>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..Default::default() };
        let listed = self.docker().await?.list_images(Some(options)).await;
        Ok(listed.doing("list images")?.into_iter().map(Image::read).collect())
    }

    /// Its last name with it. Refused while a container is made of it.
    pub async fn remove_image(&self, image: &str) -> Result<(), EngineError> {
        let docker = self.docker().await?;
        let removed = docker.remove_image(image, None::<RemoveImageOptions>, None).await;
        match removed.doing(format_args!("remove image `{image}`")) {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl Image {
    fn read(listed: ImageSummary) -> Self {
        Self {
            id: listed.id,
            tags: real_tags(listed.repo_tags),
            labels: listed.labels,
            created: time(listed.created),
        }
    }
}

impl FoundImage {
    fn read(found: ImageInspect) -> Self {
        let (labels, ports) = found.config.map_or_else(Default::default, |config| {
            (config.labels.unwrap_or_default(), config.exposed_ports.unwrap_or_default())
        });
        let created = found.created.as_deref().and_then(unix_seconds);
        let mut exposed_ports = ports;
        exposed_ports.sort_unstable();
        Self {
            image: Image {
                id: found.id.unwrap_or_default(),
                tags: real_tags(found.repo_tags.unwrap_or_default()),
                labels,
                created: time(created.unwrap_or_default()),
            },
            exposed_ports,
        }
    }
}

/// Older engines write of one without a name that it has none.
fn real_tags(mut tags: Vec<String>) -> Vec<String> {
    tags.retain(|tag| tag != "<none>:<none>");
    tags
}

/// Negative are those that have no time at all.
fn time(unix_s: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(unix_s).unwrap_or_default());
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}
