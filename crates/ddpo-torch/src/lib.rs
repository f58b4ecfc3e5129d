#![doc = include_str!("../README.md")]

pub mod adamw;
pub mod autograd;
pub mod cuda;
pub mod error;
mod ffi;
mod file;
pub mod foreach;
pub mod host_staging;
mod index;
pub mod memory;
pub mod nn;
mod pickle;
mod reader;
mod shards;
pub mod weights;

pub use adamw::{AdamWConfig, fused_adamw};
pub use autograd::{Autocast, HeldCasts, backward};
pub use cuda::{
    CudaStatus, Tf32, device, load_cuda, parse_device, set_deterministic, set_tf32, tf32,
};
pub use error::{Error, Result};
pub use foreach::{foreach_lerp_, foreach_mul_, foreach_norm, global_norm};
pub use host_staging::HostStaging;
pub use memory::PeakMemory;
pub use weights::{Init, Scope, Store};
