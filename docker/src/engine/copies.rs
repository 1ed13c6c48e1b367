//! Files into a container, and out of it, as tar archives. It need not run.

use super::{Engine, EngineError, error::Doing};
use bollard::{
    body_try_stream,
    query_parameters::{DownloadFromContainerOptions, UploadToContainerOptions},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use std::{io, time::Duration};

/// For an archive as a whole, until the engine has unpacked it.
const PUT_MAX: Duration = Duration::from_mins(30);

impl Engine {
    /// Unpacks an archive in the container's directory `path`.
    pub async fn put(
        &self,
        id: &str,
        path: &str,
        archive: impl IntoIterator<Item = Bytes, IntoIter: Send + 'static>,
    ) -> Result<(), EngineError> {
        self.put_stream(id, path, stream::iter(archive.into_iter().map(Ok))).await
    }

    /// The same, of an archive that is made while it is sent, at the engine's pace. If making it
    /// fails, what came before may have been unpacked.
    pub async fn put_stream(
        &self,
        id: &str,
        path: &str,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let options = UploadToContainerOptions { path: path.to_owned(), ..Default::default() };
        let docker = self.docker().await?.with_timeout(PUT_MAX);
        let put = docker.upload_to_container(id, Some(options), body_try_stream(archive)).await;
        put.doing(format_args!("copy files into `{path}`"))
    }

    /// An archive of `path`, a file or a directory with all below it, under its last name. Read at
    /// the reader's pace: nothing is kept but a piece.
    ///
    /// # Errors
    ///
    /// At once, if there is no such path or container; later, in the stream, if it breaks.
    pub async fn get(
        &self,
        id: &str,
        path: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        let options = DownloadFromContainerOptions { path: path.to_owned() };
        let doing = format!("copy `{path}` out of the container");
        let docker = self.docker().await?;
        let mut archive = docker.download_from_container(id, Some(options)).boxed();
        // A refusal comes in its place.
        let first = archive.next().await.transpose().doing(&doing)?;
        let rest = archive.map(move |piece| piece.doing(&doing));
        Ok(stream::iter(first.map(Ok)).chain(rest).boxed())
    }
}
