//! What `tch` leaves out, safely wrapped. See README.

pub mod error;
pub mod nn;
pub mod weights;

pub use error::{Error, Result};
pub use weights::{Init, Scope, Store};
