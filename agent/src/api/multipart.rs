//! `multipart/form-data` (RFC 7578) that is there as a whole: a job, and the files that go with it.
//!
//! Parts are found by their boundary and cut out of the body; nothing is copied.

use bytes::Bytes;
use memchr::memmem;

/// RFC 2046, section 5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;
/// More than any use of ours has.
const PARTS_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) body: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the multipart body does not begin with its boundary")]
    Begin,
    #[error("the multipart body ends before its last boundary")]
    End,
    #[error("a part of the body has no name")]
    Name,
    #[error("the body has more than {PARTS_MAX} parts")]
    Parts,
}

/// The boundary, if this content type is multipart form data and has a proper one.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()).then_some(boundary)
}

pub(super) fn parts(body: &Bytes, boundary: &str) -> Result<Vec<Part>, Fault> {
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(&delimiter);
    // The first one may stand at the very beginning, without a line's end before it.
    let mut at = if body.starts_with(&delimiter.as_bytes()[2..]) {
        delimiter.len() - 2
    } else {
        finder.find(body).ok_or(Fault::Begin)? + delimiter.len()
    };
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        if parts.len() == PARTS_MAX {
            return Err(Fault::Parts);
        }
        // Blanks may follow the boundary.
        let line = memmem::find(rest, b"\r\n").ok_or(Fault::End)?;
        // Kept in the search, so that headers may be none.
        let head = at + line;
        let length = finder.find(&body[head + 2..]).ok_or(Fault::End)?;
        parts.push(part(body, head, head + 2 + length)?);
        at = head + 2 + length + delimiter.len();
    }
}

/// Between the end of the line with the boundary, and the end of the part.
fn part(body: &Bytes, head: usize, end: usize) -> Result<Part, Fault> {
    let headers_end = memmem::find(&body[head..end], b"\r\n\r\n").ok_or(Fault::Name)?;
    let headers = String::from_utf8_lossy(&body[head..head + headers_end]);
    let name = headers.lines().find_map(part_name).ok_or(Fault::Name)?;
    Ok(Part { name, body: body.slice(head + headers_end + 4..end) })
}

fn part_name(line: &str) -> Option<String> {
    let (header, value) = line.split_once(':')?;
    if !header.trim().eq_ignore_ascii_case("content-disposition") {
        return None;
    }
    parameter(value.split_once(';')?.1, "name")
}

/// `name=value; name="value"`: the value of one of them.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        name.trim().eq_ignore_ascii_case(wanted).then(|| bare.unwrap_or(value).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(body: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        let parts = parts(&Bytes::copy_from_slice(body), "b0")?;
        Ok(parts.into_iter().map(|part| (part.name, part.body.to_vec())).collect())
    }

    #[test]
    fn a_boundary_is_found_bare_and_quoted() {
        assert_eq!(boundary("multipart/form-data; boundary=b0").as_deref(), Some("b0"));
        let quoted = boundary("Multipart/Form-Data; charset=utf-8; Boundary=\"b 0\"");
        assert_eq!(quoted.as_deref(), Some("b 0"));
        for none in ["application/json", "multipart/form-data", "multipart/mixed; boundary=b"] {
            assert_eq!(boundary(none), None, "{none}");
        }
        assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "x".repeat(71))), None);
    }

    #[test]
    fn parts_come_out_with_their_names_and_whatever_bytes_they_have() {
        let body = b"preamble\r\n--b0\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{}\r\n\
            --b0 \r\ncontent-type: application/x-tar\r\n\
            content-disposition: form-data; filename=\"a\"; name=files\r\n\r\n\r\n--b\0\r\n--b0--\r\n";
        let files = b"\r\n--b\0".to_vec();
        let found = vec![("job".to_owned(), b"{}".to_vec()), ("files".to_owned(), files)];
        assert_eq!(cut(body), Ok(found));
        assert_eq!(cut(b"--b0--"), Ok(vec![]));
        let empty = b"--b0\r\nContent-Disposition: form-data; name=job\r\n\r\n\r\n--b0--";
        assert_eq!(cut(empty), Ok(vec![("job".to_owned(), vec![])]));
    }

    #[test]
    fn what_is_cut_short_or_nameless_is_refused() {
        assert_eq!(cut(b""), Err(Fault::Begin));
        assert_eq!(cut(b"--b1\r\n"), Err(Fault::Begin));
        assert_eq!(cut(b"--b0"), Err(Fault::End));
        assert_eq!(
            cut(b"--b0\r\nContent-Disposition: form-data; name=a\r\n\r\nx"),
            Err(Fault::End)
        );
        assert_eq!(cut(b"--b0\r\n\r\nx\r\n--b0--"), Err(Fault::Name));
        assert_eq!(cut(b"--b0\r\nA: b; name=a\r\n\r\nx\r\n--b0--"), Err(Fault::Name));
        let part = "--b0\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n";
        assert_eq!(cut(part.repeat(PARTS_MAX + 1).as_bytes()), Err(Fault::Parts));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "\r\n", "--b0", "--", "x", "content-disposition: form-data; name=a",
                ]),
                0..40,
            )
        ) {
            let _ = cut(pieces.concat().as_bytes());
        }
    }
}
