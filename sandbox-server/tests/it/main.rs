//! The server as its clients, its slots and the machine see it, on each rung that there is.

mod dial;
mod files;
mod host;
mod http;
mod lifecycle;
mod limits;
mod link;
mod memory;
mod network;
mod output;
mod probe;
mod processes;
mod reset;
mod rung;
mod server;
mod walls;
mod wire;
