//! What tests across crates share.
