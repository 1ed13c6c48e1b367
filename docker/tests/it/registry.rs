//! A registry on loopback with one image in it, for those who have the password or for all.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, convert::Infallible, sync::Arc};
use tokio::{net::TcpListener, task::AbortHandle};

const USER: &str = "someone";
/// In base64 it has both of the characters in which alphabets differ.
pub(crate) const PASSWORD: &str = "~~~???>>>";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    All,
    ThePassword,
}

pub(crate) struct Registry {
    host: String,
    porter: AbortHandle,
}

impl Registry {
    /// With `team/image:there`, and `team/image:elsewhere` for another kind of machine.
    pub(crate) async fn open(machine: &str, whom: For) -> Self {
        let files = Arc::new(files(machine));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let porter = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let files = files.clone();
                let serve = service_fn(move |request| {
                    let answer = answer(&files, whom, &request);
                    async { Ok::<_, Infallible>(answer) }
                });
                // An engine may go away in the middle.
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
                tokio::spawn(async { drop(serving.await) });
            }
        });
        Self { host, porter: porter.abort_handle() }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn image(&self, tag: &str) -> String {
        format!("{}/team/image:{tag}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

/// `user:password` as it is filed and sent.
pub(crate) fn secret(password: &str) -> String {
    STANDARD.encode(format!("{USER}:{password}"))
}

type Files = HashMap<String, (&'static str, String)>;

fn answer(files: &Files, whom: For, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let wanted = format!("Basic {}", secret(PASSWORD));
    let empty = Full::new(Bytes::new());
    let answer = Response::builder().header("Docker-Distribution-Api-Version", "registry/2.0");
    let given = request.headers().get("authorization");
    let has_it = given.is_some_and(|given| given.as_bytes() == wanted.as_bytes());
    let answer = if whom == For::ThePassword && !has_it {
        let refused = answer.status(StatusCode::UNAUTHORIZED);
        refused.header("WWW-Authenticate", "Basic realm=\"test\"").body(empty)
    } else if request.uri().path() == "/v2/" {
        answer.body(empty)
    } else if let Some((kind, text)) = files.get(request.uri().path()) {
        let found = answer.header("Content-Type", *kind).header("Content-Length", text.len());
        let found = found.header("Docker-Content-Digest", digest(text));
        let is_head = request.method() == "HEAD";
        found.body(if is_head { empty } else { Full::new(Bytes::from(text.clone())) })
    } else {
        let error = r#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}"#;
        let missing = answer.status(StatusCode::NOT_FOUND);
        missing.header("Content-Type", "application/json").body(Full::new(error.into()))
    };
    answer.unwrap()
}

fn digest(text: &str) -> String {
    let digest = Sha256::digest(text);
    let hex: Vec<_> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// By path. An image of one empty directory, which is all that a server needs.
fn files(machine: &str) -> Files {
    const OCI: &str = "application/vnd.oci.image";
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    archive.append_data(&mut header, "empty/", std::io::empty()).unwrap();
    let layer = String::from_utf8(archive.into_inner().unwrap()).unwrap();
    let config = format!(
        r#"{{"architecture": "{machine}", "os": "linux", "config": {{}}, "rootfs": {{"type": "layers", "diff_ids": ["{}"]}}, "history": [{{"created_by": "test"}}]}}"#,
        digest(&layer)
    );
    let part = |kind: &str, text: &str| {
        let (digest, size) = (digest(text), text.len());
        format!(r#"{{"mediaType": "{OCI}.{kind}", "digest": "{digest}", "size": {size}}}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion": 2, "mediaType": "{OCI}.manifest.v1+json", "config": {}, "layers": [{}]}}"#,
        part("config.v1+json", &config),
        part("layer.v1.tar", &layer)
    );
    let elsewhere = part("manifest.v1+json", &manifest);
    let elsewhere = elsewhere.trim_end_matches('}');
    let index = format!(
        r#"{{"schemaVersion": 2, "mediaType": "{OCI}.index.v1+json", "manifests": [{elsewhere}, "platform": {{"architecture": "s390x", "os": "linux"}}}}]}}"#
    );
    let manifest_kind = "application/vnd.oci.image.manifest.v1+json";
    let at = |kind: &str, name: &str| format!("/v2/team/image/{kind}/{name}");
    HashMap::from([
        (at("manifests", &digest(&manifest)), (manifest_kind, manifest.clone())),
        (at("manifests", "there"), (manifest_kind, manifest)),
        (
            at("manifests", &digest(&index)),
            ("application/vnd.oci.image.index.v1+json", index.clone()),
        ),
        (at("manifests", "elsewhere"), ("application/vnd.oci.image.index.v1+json", index)),
        (at("blobs", &digest(&config)), ("application/octet-stream", config)),
        (at("blobs", &digest(&layer)), ("application/octet-stream", layer)),
    ])
}
