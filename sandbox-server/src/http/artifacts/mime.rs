//! What a file is by its name, as Python's `mimetypes` says it.

const OTHER: &str = "application/octet-stream";

const KINDS: [(&str, &[&str]); 45] = [
    ("application/gzip", &["gz", "tgz"]),
    ("application/javascript", &["js", "mjs"]),
    ("application/json", &["json", "map"]),
    ("application/msword", &["doc"]),
    ("application/pdf", &["pdf"]),
    ("application/vnd.ms-excel", &["xls"]),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", &["xlsx"]),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", &["docx"]),
    ("application/wasm", &["wasm"]),
    ("application/x-bzip2", &["bz2"]),
    ("application/x-ndjson", &["jsonl", "ndjson"]),
    ("application/x-python-code", &["pyc", "pyo"]),
    ("application/x-sh", &["sh", "bash"]),
    ("application/x-sharedlib", &["so"]),
    ("application/x-tar", &["tar"]),
    ("application/x-xz", &["xz"]),
    ("application/xml", &["xml", "xsl"]),
    ("application/yaml", &["yaml", "yml"]),
    ("application/zip", &["zip", "whl"]),
    ("application/zstd", &["zst"]),
    ("audio/mpeg", &["mp3"]),
    ("audio/ogg", &["ogg"]),
    ("audio/x-wav", &["wav"]),
    ("font/woff", &["woff"]),
    ("font/woff2", &["woff2"]),
    ("image/bmp", &["bmp"]),
    ("image/gif", &["gif"]),
    ("image/jpeg", &["jpg", "jpeg"]),
    ("image/png", &["png"]),
    ("image/svg+xml", &["svg"]),
    ("image/tiff", &["tif", "tiff"]),
    ("image/webp", &["webp"]),
    ("image/x-icon", &["ico"]),
    ("text/css", &["css"]),
    ("text/csv", &["csv"]),
    ("text/html", &["html", "htm"]),
    ("text/markdown", &["md", "markdown"]),
    ("text/plain", &["txt", "text", "log", "c", "h", "cfg", "ini", "conf", "toml", "rs", "go"]),
    ("text/tab-separated-values", &["tsv"]),
    ("text/x-c++", &["cpp", "cc", "cxx", "hpp"]),
    ("text/x-java", &["java"]),
    ("text/x-python", &["py"]),
    ("text/x-rst", &["rst"]),
    ("video/mp4", &["mp4"]),
    ("video/webm", &["webm"]),
];

pub(super) fn of(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    // A name that begins with its only dot has no suffix.
    let Some((_, suffix)) = name.trim_start_matches('.').rsplit_once('.') else { return OTHER };
    let suffix = suffix.to_ascii_lowercase();
    let kind = KINDS.iter().find(|(_, suffixes)| suffixes.contains(&&*suffix));
    kind.map_or(OTHER, |(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_says_the_kind() {
        assert_eq!(of("a/b.PY"), "text/x-python");
        assert_eq!(of("x.tar.gz"), "application/gzip");
        for path in ["", "py", ".py", "a.py/b", "x.unknown", "a."] {
            assert_eq!(of(path), OTHER, "{path}");
        }
    }
}
