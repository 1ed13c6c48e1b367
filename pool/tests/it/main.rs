//! The pool from outside, with containers on real sockets.

#[cfg(test)]
mod handle;
#[cfg(test)]
mod restart;
mod town;
