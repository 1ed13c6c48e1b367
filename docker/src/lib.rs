//! Containers of a Docker engine, with the sandbox-server put into any image.
//!
//! [`Engine`] speaks with the engine and knows nothing of slots; [`DockerBackend`] is the trait on
//! top of it. The engine is the only memory: what is known of a container stands in its labels and
//! its environment, so that a later pool finds it, from another machine too.
//!
//! Invariant: nothing is taken for gone because the engine did not answer. What it does say after
//! a silence is looked up as a whole, and not put together from what was heard before.

mod backend;
mod causes;
mod context;
mod diagnose;
mod engine;
mod exit;
mod filter;
mod keeper;
mod names;
mod parcel;
mod plan;
mod ready;
mod seen;
mod settings;
mod token;
mod watcher;

pub use backend::DockerBackend;
pub use engine::{
    Attached, BuildOrder, CredentialsError, Ended, Engine, EngineError, Event, Fault, Found,
    FoundImage, Hear, Image, Listed, LogTail, News, NewsFeed, Piece, PullTrouble, Selector, State,
    Stats, Until,
};
pub use filter::NAMESPACES_FILTER;
pub use parcel::is_static;
pub use settings::{
    Build, ContainerSettings, Data, DockerSettings, Inject, Ports, Pull, Reach, SettingsFault,
    SettingsFaults, User, Walls,
};
