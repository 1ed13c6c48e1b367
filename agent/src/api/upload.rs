//! A request for a job: JSON alone, or `multipart/form-data` with the parts `job` (the same JSON)
//! and `files` (a tar archive).

use super::{Api, multipart};
use crate::jobs::Jobs;
use axum::{
    extract::{FromRequest, Request},
    http::{
        HeaderMap, HeaderName,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use slotmux_edge::{Refusal, parse, read_body};
use slotmux_protocol::{Code, Problem, job::JobRequest};

/// Bodies up to this are read without waiting for others.
const SMALL_BYTES: usize = 256 << 10;

pub(super) struct Upload {
    pub(super) request: JobRequest,
    pub(super) files: Option<Bytes>,
    /// What is held in memory for it, at most.
    pub(super) bytes: usize,
}

impl<J: Jobs> FromRequest<Api<J>> for Upload {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Api<J>) -> Result<Self, Refusal> {
        let boundary = text(request.headers(), CONTENT_TYPE).and_then(multipart::boundary);
        let announced = text(request.headers(), CONTENT_LENGTH).and_then(|it| it.parse().ok());
        let _seat = match announced {
            Some(0_usize..=SMALL_BYTES) => None,
            // Never closed.
            Some(_) | None => api.large_bodies.acquire().await.ok(),
        };
        let settings = &api.settings;
        let body = read_body(request, settings.body_bytes_max, settings.body_wait).await?.freeze();
        Ok(read(body, boundary.as_deref())?)
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn read(body: Bytes, boundary: Option<&str>) -> Result<Upload, Problem> {
    let bytes = body.len();
    let Some(boundary) = boundary else {
        return Ok(Upload { request: parse(&body)?, files: None, bytes });
    };
    let parts = multipart::parts(&body, boundary)
        .map_err(|fault| Problem::new(Code::Malformed, fault.to_string()))?;
    let (mut job, mut files) = (None, None);
    for part in parts {
        let place = match part.name.as_str() {
            "job" => &mut job,
            "files" => &mut files,
            _ => return Err(Problem::new(Code::Invalid, "the parts are `job` and `files`")),
        };
        if place.replace(part.body).is_some() {
            return Err(Problem::new(Code::Invalid, "a part comes twice").at(part.name));
        }
    }
    let missing = || Problem::new(Code::Invalid, "the part with the request is missing").at("job");
    Ok(Upload { request: parse(&job.ok_or_else(missing)?)?, files, bytes })
}

impl Upload {
    /// Of what is asked for, however it was spelled, and without its name.
    pub(super) fn digest(&self) -> Result<[u8; 32], Problem> {
        let JobRequest { job_id: _, priority, graded, plain } = &self.request;
        let text = serde_json::to_vec(&(priority, graded, plain)).map_err(|error| {
            // Our own types: nothing in them refuses to be written.
            tracing::error!(%error, "request not written as json");
            Problem::new(Code::Internal, "this is a fault of ours; the log says more")
        })?;
        let mut digest = Sha256::new();
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(&text);
        if let Some(files) = &self.files {
            digest.update(b"files");
            digest.update(files);
        }
        Ok(digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(json: &str, files: Option<&'static [u8]>) -> [u8; 32] {
        let request = serde_json::from_str(json).unwrap();
        let files = files.map(Bytes::from_static);
        Upload { request, files, bytes: 0 }.digest().unwrap()
    }

    #[test]
    fn a_digest_is_of_what_is_asked_for_and_not_of_its_spelling() {
        let job = r#"{"graded": {"environment": "e", "inputdata": {"a": 1, "b": 2}}}"#;
        let spelled = r#"{"job_id": "j", "graded": {"inputdata": {"b": 2, "a": 1},
            "environment": "e", "environment_type": "docker"}}"#;
        assert_eq!(digest(job, None), digest(spelled, None));
        assert_ne!(digest(job, None), digest(&job.replace('2', "3"), None));
        assert_ne!(digest(job, None), digest(job, Some(b"")));
        assert_ne!(digest(job, Some(b"a")), digest(job, Some(b"b")));
    }

    #[test]
    fn a_form_has_a_job_and_perhaps_files() {
        let part = |name: &str, body: &str| {
            format!("--b\r\ncontent-disposition: form-data; name={name}\r\n\r\n{body}\r\n")
        };
        let read = |parts: &[String]| read((parts.concat() + "--b--").into(), Some("b"));
        let job = part("job", r#"{"plain": {"image": "i"}}"#);
        let upload = read(&[part("files", "tar"), job.clone()]).unwrap();
        assert_eq!(upload.files.as_deref(), Some(&b"tar"[..]));
        assert!(read(std::slice::from_ref(&job)).unwrap().files.is_none());
        let field = |parts: &[String]| read(parts).err().unwrap().field;
        assert_eq!(field(&[part("files", "tar")]).as_deref(), Some("job"));
        assert_eq!(field(&[job.clone(), job.clone()]).as_deref(), Some("job"));
        assert_eq!(read(&[job, part("x", "")]).err().unwrap().code, Code::Invalid);
    }
}
