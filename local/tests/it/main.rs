//! Local containers, with a script in the place of the sandbox-server.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod processes;
