//! The binary as people and programs use it.

#[cfg(test)]
mod client;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod help;
#[cfg(test)]
#[path = "../../../local/tests/it/machine.rs"]
#[expect(dead_code, reason = "the local backend's own tests use all of it")]
mod machine;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod run;
#[cfg(test)]
mod serve;
