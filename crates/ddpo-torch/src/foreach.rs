//! Operations over whole lists of tensors: one call, and on CUDA a handful of kernels, for all parameters.
//!
//! None of them records gradients, and those that end in `_` change their first argument in place.
use crate::{Error, Result, ffi};
use tch::{Kind, Tensor};

/// L2 norm of each tensor, as 0-dimensional f32 tensors on the tensors' devices.
///
/// # Errors
/// [`Error::Libtorch`] if a tensor is not floating point.
pub fn foreach_norm(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let list = ffi::pointers(tensors);
    let mut out = vec![std::ptr::null_mut(); tensors.len()];
    // SAFETY: `list` holds pointers to live tensors and `out` has room for as many results.
    let message = unsafe { ffi::ddpo_foreach_norm(list.as_ptr(), list.len(), out.as_mut_ptr()) };
    // SAFETY: the message is the one just returned.
    unsafe { ffi::check("foreach_norm", message)? };
    Ok(out
        .into_iter()
        // SAFETY: the shim succeeded, so each pointer is a new tensor that it gave to us.
        .map(|norm| unsafe { Tensor::from_ptr(norm) })
        .collect())
}

/// L2 norm of all tensors as one vector; 0 for an empty list.
///
/// The norm of each tensor is f32, their sum of squares f64. Non-finite elements give a non-finite
/// norm. Waits for the device.
///
/// # Errors
/// Same as [`foreach_norm`].
pub fn global_norm(tensors: &[Tensor]) -> Result<f64> {
    let norms = foreach_norm(tensors)?;
    let Some(first) = norms.first() else {
        return Ok(0.0);
    };
    let device = first.device();
    let norms: Vec<Tensor> = norms.iter().map(|norm| norm.to_device(device)).collect();
    Ok(Tensor::stack(&norms, 0)
        .to_kind(Kind::Double)
        .square()
        .sum(Kind::Double)
        .sqrt()
        .double_value(&[]))
}

/// Multiplies every tensor by `factor`.
///
/// # Errors
/// [`Error::Libtorch`] if libtorch fails, as for an integer tensor.
pub fn foreach_mul_(tensors: &[Tensor], factor: f64) -> Result<()> {
    if tensors.is_empty() {
        return Ok(());
    }
    let list = ffi::pointers(tensors);
    // SAFETY: `list` holds pointers to live tensors.
    let message = unsafe { ffi::ddpo_foreach_mul(list.as_ptr(), list.len(), factor) };
    // SAFETY: the message is the one just returned.
    unsafe { ffi::check("foreach_mul_", message) }
}

/// Moves every tensor towards its partner in `ends`: `tensor += weight · (end − tensor)`.
///
/// With `weight = 1 − decay` this is one step of an exponential moving average.
///
/// # Errors
/// [`Error::Argument`] if the lists do not match, before anything is changed; [`Error::Libtorch`]
/// if libtorch fails.
pub fn foreach_lerp_(tensors: &[Tensor], ends: &[Tensor], weight: f64) -> Result<()> {
    same_length("foreach_lerp_", "ends", tensors.len(), ends.len())?;
    for (index, (tensor, end)) in tensors.iter().zip(ends).enumerate() {
        same_shape("foreach_lerp_", &format!("ends[{index}]"), tensor, end)?;
    }
    if tensors.is_empty() {
        return Ok(());
    }
    let (list, end_list) = (ffi::pointers(tensors), ffi::pointers(ends));
    // SAFETY: both lists hold pointers to live tensors and have the same length, checked above.
    let message =
        unsafe { ffi::ddpo_foreach_lerp(list.as_ptr(), end_list.as_ptr(), list.len(), weight) };
    // SAFETY: the message is the one just returned.
    unsafe { ffi::check("foreach_lerp_", message) }
}

/// Refuses lists of different lengths.
pub(crate) fn same_length(
    op: &'static str,
    what: &str,
    expected: usize,
    actual: usize,
) -> Result<()> {
    require(op, what, expected == actual, || {
        format!("has {actual} tensors, expected {expected}")
    })
}

/// Refuses tensors of different shapes, and undefined ones such as the gradient of an unused parameter.
pub(crate) fn same_shape(
    op: &'static str,
    name: &str,
    expected: &Tensor,
    actual: &Tensor,
) -> Result<()> {
    require(op, name, expected.defined() && actual.defined(), || {
        "is undefined, or its parameter is".to_owned()
    })?;
    let (expected, actual) = (expected.size(), actual.size());
    require(op, name, expected == actual, || {
        format!("has shape {actual:?}, expected {expected:?}")
    })
}

/// [`Error::Argument`] unless `holds`.
pub(crate) fn require(
    op: &'static str,
    name: &str,
    holds: bool,
    problem: impl FnOnce() -> String,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Argument {
        op,
        name: name.to_owned(),
        problem: problem(),
    })
}
