//! Stable Diffusion on libtorch. See README.

pub mod attention;
pub mod error;
pub mod resnet;
pub mod unet;
pub mod vae;

pub use error::{Error, Result};
pub use unet::{Unet, UnetConfig};
pub use vae::{Vae, VaeConfig};
