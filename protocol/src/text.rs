//! Text out of bytes that come in pieces.

/// UTF-8 that may be cut anywhere. What is no UTF-8 is replaced, as for a whole text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Utf8Pieces {
    /// The beginning of a character whose end has not come: three bytes at most.
    begun: Vec<u8>,
}

impl Utf8Pieces {
    /// The text of all that is certain by now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let certain = all.len() - unfinished(&all);
        self.begun = all.split_off(certain);
        into_text(all)
    }

    /// What was left without its end.
    pub fn finish(&mut self) -> String {
        into_text(std::mem::take(&mut self.begun))
    }
}

fn into_text(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(other) => String::from_utf8_lossy(other.as_bytes()).into_owned(),
    }
}

/// Bytes at the end that may still become a character.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    (1..=tail.len())
        .rev()
        .find(|length| {
            let end = &tail[tail.len() - length..];
            std::str::from_utf8(end)
                .is_err_and(|it| it.valid_up_to() == 0 && it.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_waits_for_its_end() {
        let mut pieces = Utf8Pieces::default();
        let euro = "€".as_bytes();
        assert_eq!(pieces.push(&[b'a', euro[0]]), "a");
        assert_eq!(pieces.push(&euro[1..2]), "");
        assert_eq!(pieces.push(&euro[2..]), "€");
        assert_eq!(pieces.push(&euro[..2]), "");
        assert_eq!((pieces.finish(), pieces.finish()), ("\u{fffd}".to_owned(), String::new()));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_text_is_the_same(bytes: Vec<u8>, cuts: Vec<u8>) {
            let mut pieces = Utf8Pieces::default();
            let (mut text, mut rest) = (String::new(), &bytes[..]);
            for cut in cuts {
                let (now, later) = rest.split_at(usize::from(cut % 5).min(rest.len()));
                text += &pieces.push(now);
                rest = later;
            }
            text += &pieces.push(rest);
            text += &pieces.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
