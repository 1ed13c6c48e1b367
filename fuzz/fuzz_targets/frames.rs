//! Any bytes, cut anywhere: the decoder answers, and holds no more than it was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slotmux_protocol::{
    Decoder,
    link::{FromContainer, ToContainer},
};

const LIMIT_BYTES: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else { return };
    for size in [usize::from(*cut).max(1), bytes.len().max(1)] {
        let mut to_container = Decoder::new(LIMIT_BYTES);
        let mut from_container = Decoder::new(LIMIT_BYTES);
        for piece in bytes.chunks(size) {
            to_container.push(piece);
            while let Ok(Some(_)) = to_container.next_message::<ToContainer>() {}
            from_container.push(piece);
            while let Ok(Some(_)) = from_container.next_message::<FromContainer>() {}
        }
        assert!(to_container.pending_bytes() <= bytes.len());
    }
});
