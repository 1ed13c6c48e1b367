//! Replacing a piece of text in a file, exactly.
//!
//! Bytes outside of it stay as they are, whatever they are.

use super::{FileError, Told, Until, Workspace, replace::Draft, short};
use memchr::memmem;
use serde_json::json;
use slotmux_protocol::EditFileArgs;

/// Largest file that is edited, before and after.
const EDIT_BYTES_MAX: u64 = 16 << 20;
/// Occurrences that are replaced in one edit.
const REPLACED_MAX: usize = 1_000_000;
/// Places that an answer names.
const PLACES_MAX: usize = 100;

pub(super) fn edit_file(
    workspace: &Workspace,
    args: &EditFileArgs,
    until: &Until,
) -> Result<Told, FileError> {
    if args.old.is_empty() {
        return Err(FileError::Invalid("old is empty: give the text to be replaced".to_owned()));
    }
    if args.old == args.new {
        return Err(FileError::Invalid("old and new are the same: nothing to do".to_owned()));
    }
    let (content, seen) = workspace.read_all(&args.path, EDIT_BYTES_MAX, until)?;
    let (old, new) = (args.old.as_bytes(), args.new.as_bytes());
    let places = if args.replace_all {
        disjoint_places(&content, old, until)?
    } else {
        only_place(&content, args, until)?
    };
    if places.is_empty() {
        return Err(missing(&content, args));
    }
    let edited = splice(&content, &places, old.len(), new)?;
    let lines = lines_of(&content, &places[..places.len().min(PLACES_MAX)]);
    let draft = Draft::begin(workspace, &args.path)?;
    draft.write(&edited)?;
    until.check()?;
    draft.put_in_place(None, Some(&seen))?;
    let times = match places.len() {
        1 => "1 occurrence".to_owned(),
        count => format!("{count} occurrences"),
    };
    Ok(Told {
        text: format!("Replaced {times} in {} ({})", args.path, on_lines(&lines, places.len())),
        data: Some(json!({
            "replacements": places.len(),
            "lines": lines,
            "bytes": edited.len(),
        })),
    })
}

fn disjoint_places(content: &[u8], old: &[u8], until: &Until) -> Result<Vec<usize>, FileError> {
    let mut places = Vec::new();
    for place in memmem::find_iter(content, old) {
        if places.len() % 4_096 == 0 {
            until.check()?;
        }
        if places.len() == REPLACED_MAX {
            let text = format!("Text occurs more than {REPLACED_MAX} times");
            return Err(FileError::Invalid(text));
        }
        places.push(place);
    }
    Ok(places)
}

/// Those that overlap count too: it is not said which of them is meant.
fn only_place(content: &[u8], args: &EditFileArgs, until: &Until) -> Result<Vec<usize>, FileError> {
    let finder = memmem::Finder::new(&args.old);
    let mut places = Vec::new();
    let mut from = 0;
    while let Some(place) = finder.find(&content[from..]) {
        until.check()?;
        places.push(from + place);
        from += place + 1;
        if places.len() > PLACES_MAX {
            break;
        }
    }
    if places.len() < 2 {
        return Ok(places);
    }
    let count = match places.len() {
        many if many > PLACES_MAX => format!("more than {PLACES_MAX}"),
        count => count.to_string(),
    };
    let lines = lines_of(content, &places[..places.len().min(PLACES_MAX)]);
    Err(FileError::Invalid(format!(
        "Text occurs {count} times in {} ({}); give more of the text around it, or set replace_all",
        short(&args.path),
        on_lines(&lines, places.len()),
    )))
}

fn splice(
    content: &[u8],
    places: &[usize],
    old_bytes: usize,
    new: &[u8],
) -> Result<Vec<u8>, FileError> {
    let grown = (new.len() as u64).saturating_mul(places.len() as u64);
    let bytes = (content.len() - places.len() * old_bytes) as u64 + grown;
    if bytes > EDIT_BYTES_MAX {
        return Err(FileError::TooLarge { bytes, max: EDIT_BYTES_MAX });
    }
    let mut edited = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    let mut from = 0;
    for place in places {
        edited.extend_from_slice(&content[from..*place]);
        edited.extend_from_slice(new);
        from = place + old_bytes;
    }
    edited.extend_from_slice(&content[from..]);
    Ok(edited)
}

/// From 1. Places are in order.
fn lines_of(content: &[u8], places: &[usize]) -> Vec<usize> {
    let (mut line, mut from) = (1, 0);
    let line_of = |place: &usize| {
        line += memchr::memchr_iter(b'\n', &content[from..*place]).count();
        from = *place;
        line
    };
    places.iter().map(line_of).collect()
}

fn on_lines(lines: &[usize], places: usize) -> String {
    let list = lines.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let word = if lines.len() == 1 { "line" } else { "lines" };
    let more = if places > lines.len() { ", …" } else { "" };
    format!("{word} {list}{more}")
}

fn missing(content: &[u8], args: &EditFileArgs) -> FileError {
    let path = short(&args.path);
    match line_but_for_spaces(content, args.old.as_bytes()) {
        Some(line) => FileError::Invalid(format!(
            "Text not found in {path}; on line {line} it stands with other white space: give it \
             exactly as read_file shows it"
        )),
        None => FileError::Invalid(format!("Text not found in {path}")),
    }
}

/// Where `old` would be if white space did not count.
fn line_but_for_spaces(content: &[u8], old: &[u8]) -> Option<usize> {
    let is_ink = |byte: &u8| !byte.is_ascii_whitespace();
    let old: Vec<u8> = old.iter().copied().filter(is_ink).collect();
    if old.is_empty() {
        return None;
    }
    let ink: Vec<u8> = content.iter().copied().filter(is_ink).collect();
    let place = memmem::find(&ink, &old)?;
    let at = content.iter().enumerate().filter(|(_, byte)| is_ink(byte)).nth(place)?.0;
    lines_of(content, &[at]).first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::workspace;
    use slotmux_protocol::CallLimits;
    use tokio_util::sync::CancellationToken;

    fn edit(content: &[u8], old: &str, new: &str, all: bool) -> Result<(Vec<u8>, String), String> {
        let (_dir, workspace) = workspace();
        workspace.write("f", content).unwrap();
        let args = EditFileArgs {
            path: "f".to_owned(),
            old: old.to_owned(),
            new: new.to_owned(),
            replace_all: all,
        };
        let until = Until::new(CallLimits::default(), &CancellationToken::new());
        match edit_file(&workspace, &args, &until) {
            Ok(told) => Ok((workspace.read("f").unwrap(), told.text)),
            Err(error) => {
                assert_eq!(workspace.read("f").unwrap(), content, "changed all the same");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn one_place_is_replaced_and_all_other_bytes_stay() {
        let (content, text) = edit(b"\xff\0a\r\nold\xfe", "old", "new", false).unwrap();
        assert_eq!(content, b"\xff\0a\r\nnew\xfe");
        assert_eq!(text, "Replaced 1 occurrence in f (line 2)");
        assert_eq!(edit(b"x", "x", "", false).unwrap().0, b"");
    }

    #[test]
    fn an_ambiguous_text_is_refused_with_its_lines() {
        let error = edit(b"a\nb\na\n", "a", "c", false).unwrap_err();
        assert!(error.contains("2 times in f (lines 1, 3)"), "{error}");
        let error = edit(b"aaa", "aa", "c", false).unwrap_err();
        assert!(error.contains("2 times"), "{error}");
        let error = edit(&b"a\n".repeat(101), "a", "c", false).unwrap_err();
        assert!(error.contains("more than 100 times") && error.contains("100, …"), "{error}");
        assert_eq!(edit(b"a\nb\na\n", "a", "ca", true).unwrap().0, b"ca\nb\nca\n");
    }

    #[test]
    fn a_missing_text_is_said_with_where_it_almost_is() {
        assert_eq!(edit(b"abc", "x", "y", false).unwrap_err(), "Text not found in f");
        let error = edit(b"a\n  if x:\r\n\treturn\n", "if x:\n    return", "y", false).unwrap_err();
        assert!(error.contains("on line 2"), "{error}");
        assert!(edit(b"a", "", "y", false).is_err());
        assert!(edit(b"a", "a", "a", false).is_err());
    }

    #[test]
    fn a_file_does_not_grow_past_the_limit() {
        let error = edit(&b"a".repeat(100_000), "a", &"b".repeat(200), true).unwrap_err();
        assert!(error.starts_with("File too large: 20000000 bytes"), "{error}");
    }
}
