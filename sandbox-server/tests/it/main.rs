//! The server as its clients, its slots and the machine see it, on each rung that there is.

#[cfg(test)]
mod access;
#[cfg(test)]
mod artifacts;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod dial;
#[cfg(test)]
mod docker;
#[cfg(test)]
mod egress;
#[cfg(test)]
mod endurance;
#[cfg(test)]
mod file_tools;
#[cfg(test)]
mod files;
#[cfg(test)]
mod forks;
#[cfg(test)]
mod hard_resets;
#[cfg(test)]
mod host;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http;
#[cfg(test)]
mod image_root;
#[cfg(test)]
mod inheritance;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod link;
#[cfg(test)]
mod link_life;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod network;
#[cfg(test)]
mod output;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod reset;
#[cfg(test)]
mod rung;
#[cfg(test)]
mod server;
#[cfg(test)]
mod stateful;
#[cfg(test)]
mod static_executable;
#[cfg(test)]
mod streaming;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod trees;
#[cfg(test)]
mod v1;
#[cfg(test)]
mod walls;
#[cfg(test)]
mod wire;
