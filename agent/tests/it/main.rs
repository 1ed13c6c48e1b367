//! Jobs in containers of a real engine.
//!
//! Needs an engine; the grading image is made here, of one static program. Without an engine the
//! tests are skipped, and say so.

#[cfg(test)]
mod adoption;
#[cfg(test)]
mod backend_door;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod door;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http_door;
#[cfg(test)]
mod image;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod many;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod python;
#[cfg(test)]
mod results;
#[cfg(test)]
mod router;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod students;
#[cfg(test)]
mod warm;
