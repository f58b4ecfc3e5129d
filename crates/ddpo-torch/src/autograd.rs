//! Autocast and backward passes from given gradients, which tch has for CUDA and f16 only, or not at all.
use std::ffi::c_int;
use std::marker::PhantomData;

use tch::{Device, Kind, Tensor};

use crate::foreach::{require, same_shape};
use crate::{Error, Result, ffi};

/// Backward pass from a tensor that is not a scalar: adds to the gradients of all leaves that `of` depends on,
/// given the gradient of `of`.
///
/// # Shapes
/// - `grad`: shape and kind of `of`
///
/// # Errors
/// [`Error::Argument`] for a gradient of another shape or kind; [`Error::Libtorch`] if autograd fails,
/// as for a tensor without a graph.
pub fn backward(of: &Tensor, grad: &Tensor) -> Result<()> {
    same_shape("backward", "grad", of, grad)?;
    require("backward", "grad", of.kind() == grad.kind(), || {
        format!("is {:?}, expected {:?}", grad.kind(), of.kind())
    })?;
    // SAFETY: both pointers are those of live tensors.
    let message = unsafe { ffi::ddpo_backward(of.as_ptr(), grad.as_ptr()) };
    // SAFETY: the message is the one just returned.
    unsafe { ffi::check("backward", message) }
}

/// While this guard lives, matrix products, convolutions and attention of this thread on one type of device run in
/// half precision, whatever the dtype of their inputs; gradients of f32 weights stay f32.
///
/// Weights that require gradients are cast once per region, and the casts are dropped at its end unless they are
/// held ([`HeldCasts`]): forward passes belong inside, backward passes and updates outside.
/// Dropping the guard restores the previous state, so regions nest.
#[derive(Debug)]
pub struct Autocast {
    before: Option<Before>,
    /// The state is thread-local.
    _not_send: PhantomData<*const ()>,
}

#[derive(Debug)]
struct Before {
    cuda: bool,
    enabled: bool,
    kind: c_int,
}

impl Autocast {
    /// Enters a region in `kind`, `BFloat16` or `Half`; `None` changes nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] for another kind; [`Error::Libtorch`] if libtorch fails.
    pub fn enter(device: Device, kind: Option<Kind>) -> Result<Self> {
        let Some(kind) = kind else {
            return Ok(Self::of(None));
        };
        // at::ScalarType, which tch does not export.
        let number = match kind {
            Kind::Half => 5,
            Kind::BFloat16 => 15,
            other => {
                return Err(Error::Argument {
                    op: "autocast",
                    name: "kind".to_owned(),
                    problem: format!("is {other:?}, expected BFloat16 or Half"),
                });
            }
        };
        let cuda = device.is_cuda();
        let (mut enabled, mut was) = (false, 0);
        // SAFETY: both out-pointers are valid for writes.
        let message = unsafe { ffi::ddpo_autocast_enter(cuda, number, &mut enabled, &mut was) };
        // SAFETY: the message is the one just returned.
        unsafe { ffi::check("autocast", message)? };
        Ok(Self::of(Some(Before {
            cuda,
            enabled,
            kind: was,
        })))
    }

    fn of(before: Option<Before>) -> Self {
        Self {
            before,
            _not_send: PhantomData,
        }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        let Some(before) = self.before.take() else {
            return;
        };
        // SAFETY: plain values; the kind is one that libtorch returned.
        let message = unsafe { ffi::ddpo_autocast_exit(before.cuda, before.kind, before.enabled) };
        // Restoring a value that libtorch reported does not fail; if it did, the next call would report it.
        // SAFETY: the message is the one just returned.
        let _restored = unsafe { ffi::check("autocast", message) };
    }
}

/// While this guard lives, casts of weights made by an [`Autocast`] region on this thread without gradients are reused
/// by later regions: for many forward passes with the same weights. Nothing runs in half precision between regions.
///
/// Torch only caches leaves that require gradients. Changes to them are not seen while their casts are
/// held; a region with gradients makes its own casts and drops those held so far.
#[derive(Debug)]
pub struct HeldCasts {
    /// The nesting count is thread-local.
    _not_send: PhantomData<*const ()>,
}

impl HeldCasts {
    /// Starts holding casts.
    ///
    /// # Errors
    /// [`Error::Libtorch`] if libtorch fails.
    pub fn begin() -> Result<Self> {
        // SAFETY: no arguments.
        let message = unsafe { ffi::ddpo_autocast_hold() };
        // SAFETY: the message is the one just returned.
        unsafe { ffi::check("autocast", message)? };
        Ok(Self {
            _not_send: PhantomData,
        })
    }
}

impl Drop for HeldCasts {
    fn drop(&mut self) {
        // SAFETY: no arguments.
        let message = unsafe { ffi::ddpo_autocast_release() };
        // Counting down does not fail.
        // SAFETY: the message is the one just returned.
        let _released = unsafe { ffi::check("autocast", message) };
    }
}
