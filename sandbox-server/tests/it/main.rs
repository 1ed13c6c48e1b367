//! The server as its clients, its slots and the machine see it, on each rung that there is.

mod files;
mod host;
mod http;
mod limits;
mod output;
mod probe;
mod processes;
mod reset;
mod rung;
mod server;
