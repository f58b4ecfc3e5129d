//! The C ABI of `shim.cpp`, and the two conversions that every caller of it needs.
use crate::{Error, Result};
use std::ffi::{CStr, c_char, c_int};
use tch::Tensor;
use torch_sys::C_tensor;

/// A list of `at::Tensor *`, as the shim takes it.
pub(crate) type List = *const *const C_tensor;

// SAFETY: the signatures are those of shim.cpp, which this crate compiles and links; `C_tensor` is
// torch-sys' name for `at::Tensor`.
unsafe extern "C" {
    fn ddpo_free(message: *mut c_char);
    pub(crate) fn ddpo_fused_adamw(
        params: List,
        grads: List,
        exp_avgs: List,
        exp_avg_sqs: List,
        steps: List,
        n: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
    pub(crate) fn ddpo_foreach_norm(
        tensors: List,
        n: usize,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn ddpo_foreach_mul(tensors: List, n: usize, factor: f64) -> *mut c_char;
    pub(crate) fn ddpo_foreach_lerp(
        tensors: List,
        ends: List,
        n: usize,
        weight: f64,
    ) -> *mut c_char;
    pub(crate) fn ddpo_backward(of: *const C_tensor, grad: *const C_tensor) -> *mut c_char;
    pub(crate) fn ddpo_autocast_enter(
        cuda: bool,
        kind: c_int,
        was_enabled: *mut bool,
        was_kind: *mut c_int,
    ) -> *mut c_char;
    pub(crate) fn ddpo_autocast_exit(cuda: bool, kind: c_int, enabled: bool) -> *mut c_char;
    pub(crate) fn ddpo_autocast_hold() -> *mut c_char;
    pub(crate) fn ddpo_autocast_release() -> *mut c_char;
    pub(crate) fn ddpo_copy_async(to: *const C_tensor, from: *const C_tensor) -> *mut c_char;
    pub(crate) fn ddpo_cuda_memory(
        device: c_int,
        reset: bool,
        now: *mut i64,
        peak: *mut i64,
    ) -> *mut c_char;
    pub(crate) fn ddpo_set_tf32(allow: bool) -> *mut c_char;
    pub(crate) fn ddpo_tf32(products: *mut bool, convolutions: *mut bool) -> *mut c_char;
    pub(crate) fn ddpo_set_deterministic(on: bool) -> *mut c_char;
    pub(crate) fn ddpo_load_cuda(status: *mut c_int, detail: *mut *mut c_char) -> *mut c_char;
}

/// The pointers of `tensors`, valid while `tensors` is borrowed.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

/// Turns the return value of a shim function into a `Result`; `op` names the operation in the error.
///
/// # Safety
/// `message` is null or a string that the shim returned and nobody has freed.
pub(crate) unsafe fn check(op: &'static str, message: *mut c_char) -> Result<()> {
    // SAFETY: by this function's own contract.
    match unsafe { take_string(message) } {
        None => Ok(()),
        Some(message) => Err(Error::Libtorch { op, message }),
    }
}

/// Copies a string of the shim and frees it; `None` for null.
///
/// # Safety
/// `message` is null or a string that the shim returned and nobody has freed.
pub(crate) unsafe fn take_string(message: *mut c_char) -> Option<String> {
    if message.is_null() {
        return None;
    }
    // SAFETY: the shim returns NUL-terminated strings, and by contract this one is still allocated.
    let text = unsafe { CStr::from_ptr(message) }
        .to_string_lossy()
        .into_owned();
    // SAFETY: allocated by the shim with the allocator that `ddpo_free` frees, and not used again.
    unsafe { ddpo_free(message) };
    Some(text)
}
