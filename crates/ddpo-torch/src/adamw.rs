//! AdamW through libtorch's fused kernel, with all its state in tensors that the caller owns.
//!
//! tch's own optimiser does not expose its moments, so they cannot be saved; here they are arguments.
use crate::foreach::{require, same_length, same_shape};
use crate::{Result, ffi};
use tch::{Kind, Tensor};

const OP: &str = "fused_adamw";

/// Hyperparameters of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment, β₁.
    pub beta1: f64,
    /// Decay of the second moment, β₂.
    pub beta2: f64,
    /// Decoupled weight decay: each step multiplies a parameter by `1 − lr · weight_decay`.
    pub weight_decay: f64,
    /// Added to the root of the corrected second moment, ε.
    pub eps: f64,
}

impl Default for AdamWConfig {
    /// Black et al. 2023, table D.5: full fine-tuning with learning rate 1e-5 (ddpo-pytorch uses 3e-4 with LoRA).
    fn default() -> Self {
        Self {
            lr: 1e-5,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 1e-4,
        }
    }
}

/// One AdamW step (Loshchilov and Hutter 2019) over all parameters, in place, on CPU or CUDA.
///
/// Adds 1 to every count in `steps` first, so a fresh state is all zeros, and the counts say how
/// many steps were taken. Then, with `t` the count, `m` and `v` the moments, `g` the gradient:
///
/// ```text
/// p ← p (1 − lr · weight_decay)
/// m ← m + (1 − β₁)(g − m)         v ← β₂ v + (1 − β₂) g²
/// p ← p − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
///
/// # Shapes
/// All five lists have one entry per parameter.
/// - `grads[i]`, `exp_avgs[i]`, `exp_avg_sqs[i]`: shape, kind and device of `params[i]`
/// - `steps[i]`: one f32 value, on the device of `params[i]`
///
/// Parameters, moments and counts are contiguous; gradients need not be. All parameters share one
/// kind and one device.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) if the lists do not match, before anything is
/// changed; [`Error::Libtorch`](crate::Error::Libtorch) if the kernel fails.
pub fn fused_adamw(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
    args: AdamWConfig,
) -> Result<()> {
    check(params, grads, exp_avgs, exp_avg_sqs, steps)?;
    if params.is_empty() {
        return Ok(());
    }
    let grads: Vec<Tensor> = grads.iter().map(Tensor::contiguous).collect();
    let lists = [params, &grads, exp_avgs, exp_avg_sqs, steps].map(ffi::pointers);
    // SAFETY: five lists of pointers to live tensors, all of `params.len()` entries; kinds, devices,
    // sizes and layouts were checked above, so the kernel stays within every storage.
    let message = unsafe {
        ffi::ddpo_fused_adamw(
            lists[0].as_ptr(),
            lists[1].as_ptr(),
            lists[2].as_ptr(),
            lists[3].as_ptr(),
            lists[4].as_ptr(),
            params.len(),
            args.lr,
            args.beta1,
            args.beta2,
            args.weight_decay,
            args.eps,
        )
    };
    // SAFETY: the message is the one just returned.
    unsafe { ffi::check(OP, message) }
}

/// The kernel works on raw pointers, so that all of its assumptions must hold.
fn check(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
) -> Result<()> {
    let partners = [
        ("grads", grads),
        ("exp_avgs", exp_avgs),
        ("exp_avg_sqs", exp_avg_sqs),
    ];
    for (what, list) in partners {
        same_length(OP, what, params.len(), list.len())?;
    }
    same_length(OP, "steps", params.len(), steps.len())?;
    for (index, param) in params.iter().enumerate() {
        let name = format!("params[{index}]");
        require(OP, &name, param.defined(), || "is undefined".to_owned())?;
        same_storage(&name, &params[0], param)?;
        for (what, list) in partners {
            let (name, tensor) = (format!("{what}[{index}]"), &list[index]);
            same_shape(OP, &name, param, tensor)?;
            same_storage(&name, param, tensor)?;
        }
        for (what, list) in [
            ("params", params),
            ("exp_avgs", exp_avgs),
            ("exp_avg_sqs", exp_avg_sqs),
        ] {
            let contiguous = list[index].is_contiguous();
            require(OP, &format!("{what}[{index}]"), contiguous, || {
                "is not contiguous".to_owned()
            })?;
        }
        check_count(&format!("steps[{index}]"), param, &steps[index])?;
    }
    Ok(())
}

fn check_count(name: &str, param: &Tensor, count: &Tensor) -> Result<()> {
    require(OP, name, count.defined(), || "is undefined".to_owned())?;
    let fits =
        count.numel() == 1 && count.kind() == Kind::Float && count.device() == param.device();
    require(OP, name, fits, || {
        format!(
            "is {:?} {:?} on {:?}, expected one Float on {:?}",
            count.kind(),
            count.size(),
            count.device(),
            param.device()
        )
    })
}

fn same_storage(name: &str, expected: &Tensor, actual: &Tensor) -> Result<()> {
    let describe = |t: &Tensor| (t.kind(), t.device(), t.is_sparse());
    let (expected, actual) = (describe(expected), describe(actual));
    require(OP, name, expected == actual && !actual.2, || {
        format!("is {actual:?}, expected {expected:?} (kind, device, sparse)")
    })
}
