//! The core against a world that is late, forgetful and full of lies.

mod model;
mod properties;
mod simulation;
mod stories;
mod world;
