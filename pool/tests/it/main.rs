//! The pool from outside, with containers on real sockets.

mod handle;
mod restart;
mod town;
