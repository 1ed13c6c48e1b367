//! TLS to an engine, with the certificates that the docker CLI uses.
//!
//! Invariant: the engine's certificate is always verified.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{fs, net::TcpStream};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{
            CertificateDer, PrivateKeyDer, ServerName,
            pem::{self, PemObject},
        },
        version::{TLS12, TLS13},
    },
};

const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// A bundle of all authorities of a machine has a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("understand `{path}`")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("use the certificates in `{dir}`")]
    Rustls { dir: PathBuf, source: tokio_rustls::rustls::Error },
    #[error("`{0}` is no name for a certificate")]
    Name(String),
    #[error("agree on a secure connection")]
    Handshake(#[source] io::Error),
}

/// The files are read anew each time: somebody may have renewed them.
pub(super) async fn wrap(
    stream: TcpStream,
    host: &str,
    certificates: &Path,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let config = config(certificates).await?;
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(TlsError::Handshake)
}

async fn config(dir: &Path) -> Result<ClientConfig, TlsError> {
    let refused = |source| TlsError::Rustls { dir: dir.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&dir.join(AUTHORITY)).await? {
        roots.add(authority).map_err(refused)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(refused)?
        .with_root_certificates(roots);
    // Not every engine asks who its client is.
    if !fs::try_exists(dir.join(CERTIFICATE)).await.unwrap_or(true) {
        return Ok(builder.with_no_client_auth());
    }
    let own = certificates(&dir.join(CERTIFICATE)).await?;
    let path = dir.join(KEY);
    let key = PrivateKeyDer::from_pem_slice(&read(&path).await?)
        .map_err(|source| TlsError::Pem { path, source })?;
    builder.with_client_auth_cert(own, key).map_err(refused)
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path).await?;
    let all: Result<_, _> = CertificateDer::pem_slice_iter(&text).collect();
    all.map_err(|source| TlsError::Pem { path: path.to_owned(), source })
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |source| TlsError::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).await.map_err(wrong)?;
    if meta.len() > FILE_BYTES_MAX {
        return Err(wrong(io::ErrorKind::FileTooLarge.into()));
    }
    fs::read(path).await.map_err(wrong)
}
