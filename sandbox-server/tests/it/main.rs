//! The server as its clients, its slots and the machine see it, on each rung that there is.

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod dial;
#[cfg(test)]
mod files;
#[cfg(test)]
mod hard_resets;
#[cfg(test)]
mod host;
#[cfg(test)]
mod http;
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
mod walls;
#[cfg(test)]
mod wire;
