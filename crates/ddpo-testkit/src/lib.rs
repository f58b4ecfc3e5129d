//! What the tests of several crates share, and no crate shows: a toy world to train in, an observer that remembers,
//! and a chat server that fails on demand.

pub mod chat_server;
mod recorder;
mod world;

pub use recorder::Recorder;
pub use world::{AskedColour, LATENT, Pixels, Service, TinyPolicy, World};
