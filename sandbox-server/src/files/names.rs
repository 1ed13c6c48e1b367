//! Names of files, for people and for programs: slots may give them any bytes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// On one line: what is not UTF-8 is replaced, and control characters are written as escapes.
pub(super) fn shown(name: &[u8]) -> String {
    let lossy = String::from_utf8_lossy(name);
    if !lossy.chars().any(char::is_control) {
        return lossy.into_owned();
    }
    let mut shown = String::with_capacity(lossy.len() + 8);
    for char in lossy.chars() {
        if char.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

/// `path`, and `path_base64` when that does not say all.
pub(super) fn insert(data: &mut Map<String, Value>, path: &[u8]) {
    data.insert("path".to_owned(), String::from_utf8_lossy(path).into());
    if std::str::from_utf8(path).is_err() {
        data.insert("path_base64".to_owned(), BASE64_STANDARD.encode(path).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_on_its_line_and_is_marked_when_it_is_not_text() {
        assert_eq!(shown("ünï 🦀".as_bytes()), "ünï 🦀");
        assert_eq!(shown(b"a\nb\x1b\xff"), "a\\nb\\u{1b}\u{fffd}");
        let mut data = Map::new();
        insert(&mut data, b"a\xff");
        assert_eq!(data["path_base64"], "Yf8=");
        let mut data = Map::new();
        insert(&mut data, "é".as_bytes());
        assert!(!data.contains_key("path_base64"));
    }
}
