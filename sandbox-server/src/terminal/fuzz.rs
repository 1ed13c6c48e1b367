//! Any output of a program, cut anywhere, on a screen whose size changes meanwhile: no panic, and
//! no more is held than is said. For the fuzzers.

use super::{cast::CAST_BYTES_MAX, log::LOG_BYTES_MAX, screen::Size, state::State};

/// The first bytes say how it is cut and how large the screen is.
pub(crate) fn output(data: &[u8]) {
    let Some((&[rows, cols, cut, seldom], bytes)) = data.split_first_chunk() else { return };
    let size = |rows: u8, cols: u8| Size::new(u16::from(rows % 60) + 1, u16::from(cols) + 1);
    let Some(first) = size(rows, cols) else { return };
    let mut state = State::new(first, "abc");
    for (at, piece) in bytes.chunks(usize::from(cut).max(1)).enumerate() {
        let answers = state.printed(piece);
        assert!(answers.len() <= 4 << 10);
        state.screen.check();
        if at % (usize::from(seldom) + 2) == 0
            && let Some(size) = size(piece[0], cols ^ piece[0])
        {
            state.resized(size);
            state.screen.check();
            state.typed(piece);
        }
    }
    assert!(state.screen.entire(100).text.len() <= 100);
    let part = state.log.read(0, usize::MAX, true);
    assert!(part.next_offset - part.offset <= LOG_BYTES_MAX as u64);
    let recorded = state.cast.read(0, usize::MAX).text;
    assert!(recorded.len() <= CAST_BYTES_MAX + (4 << 10));
    for line in recorded.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_output_leaves_a_sound_session(
            shape in any::<[u8; 4]>(),
            bytes in proptest::collection::vec(
                prop_oneof![3 => any::<u8>(), 1 => Just(0x1b), 1 => Just(b'['), 1 => Just(b']'), 1 => Just(7)],
                0..600,
            ),
        ) {
            super::output(&[&shape[..], &bytes[..]].concat());
        }
    }
}
