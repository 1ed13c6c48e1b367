//! Containers of a real engine, with the shipped sandbox-server in them.
//!
//! Needs an engine and images, which `tests/engine.sh` finds or makes, and the static executable.
//! Without these the tests are skipped, and say so.

#[cfg(test)]
mod adoption;
#[cfg(test)]
mod attaching;
#[cfg(test)]
mod building;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod copying;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod house;
#[cfg(test)]
mod image_root;
#[cfg(test)]
mod images;
#[cfg(test)]
mod looking;
#[cfg(test)]
mod low_level;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod pulling;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod secure;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod waiting;
