//! Devices: CUDA loaded at run time, so that one binary serves machines with and without it.
use crate::{Error, Result, ffi};
use std::sync::OnceLock;
use tch::{Cuda, Device};

/// What [`load_cuda`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaStatus {
    /// The CUDA half of libtorch is loaded.
    Loaded,
    /// There is no NVIDIA driver (`libcuda.so.1`) on this machine.
    NoDriver,
    /// There is a driver, but this is a CPU build of libtorch.
    NoLibrary {
        /// Where `libtorch_cuda.so` was looked for: the folder of `libtorch_cpu.so`.
        folder: String,
    },
    /// There is a driver and a library, but the library did not load.
    Failed {
        /// What the dynamic loader said.
        message: String,
    },
}

impl std::fmt::Display for CudaStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CudaStatus::Loaded => write!(f, "libtorch's CUDA library is loaded"),
            CudaStatus::NoDriver => write!(f, "no NVIDIA driver (libcuda.so.1) was found"),
            CudaStatus::NoLibrary { folder } => write!(
                f,
                "an NVIDIA driver was found, but no libtorch_cuda.so in {folder}: \
                 run `cargo xtask setup --cuda`, or set LIBTORCH or LD_LIBRARY_PATH to a libtorch 2.11.0 with CUDA"
            ),
            CudaStatus::Failed { message } => {
                write!(f, "libtorch's CUDA library did not load: {message}")
            }
        }
    }
}

/// Loads the CUDA half of libtorch if this machine has a driver and this libtorch has that half.
///
/// The linker drops libraries without referenced symbols, so CUDA's kernels are only available after this
/// call. Call it before anything queries whether CUDA is available, since libtorch caches the answer.
/// The first call does the work; later ones return its result.
pub fn load_cuda() -> CudaStatus {
    static STATUS: OnceLock<CudaStatus> = OnceLock::new();
    STATUS.get_or_init(load).clone()
}

/// Parses `"cpu"`, `"cuda"` (the first one) or `"cuda:N"`, and checks that the device is there.
///
/// # Errors
/// [`Error::Device`] for any other name, or for a CUDA device that this machine or this
/// libtorch does not have; the message says which of the two.
pub fn device(name: &str) -> Result<Device> {
    let device = parse_device(name)?;
    let Device::Cuda(index) = device else {
        return Ok(device);
    };
    let error = |reason: String| Error::Device {
        name: name.to_owned(),
        reason,
    };
    match load_cuda() {
        CudaStatus::Loaded => {}
        status => return Err(error(status.to_string())),
    }
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if index >= count {
        return Err(error(format!("this machine has {count} CUDA devices")));
    }
    Ok(device)
}

/// Parses the same names without checking whether the device is there.
///
/// # Errors
/// [`Error::Device`] for any other name.
pub fn parse_device(name: &str) -> Result<Device> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        _ => name
            .strip_prefix("cuda:")
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse::<usize>().ok())
            .ok_or_else(|| Error::Device {
                name: name.to_owned(),
                reason: "expected \"cpu\" or \"cuda:N\", as in \"cuda:0\"".to_owned(),
            })?,
    };
    Ok(Device::Cuda(index))
}

/// Where CUDA may use TF32 for f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tf32 {
    /// In matrix products.
    pub products: bool,
    /// In convolutions.
    pub convolutions: bool,
}

/// The current setting. By default libtorch allows TF32 in convolutions.
///
/// # Errors
/// [`Error::Libtorch`] if libtorch fails.
pub fn tf32() -> Result<Tf32> {
    let (mut products, mut convolutions) = (false, false);
    // SAFETY: both out-pointers are valid for writes.
    let message = unsafe { ffi::ddpo_tf32(&mut products, &mut convolutions) };
    // SAFETY: the message is the one just returned.
    unsafe { ffi::check("tf32", message)? };
    Ok(Tf32 {
        products,
        convolutions,
    })
}

/// Allows or forbids TF32 in CUDA matrix products and convolutions: faster, with 10 bits of mantissa.
///
/// Has no effect without CUDA.
///
/// # Errors
/// [`Error::Libtorch`] if libtorch fails.
pub fn set_tf32(allow: bool) -> Result<()> {
    // SAFETY: no arguments but a flag.
    let message = unsafe { ffi::ddpo_set_tf32(allow) };
    // SAFETY: the message is the one just returned.
    unsafe { ffi::check("set_tf32", message) }
}

/// Makes libtorch use deterministic kernels, and fail where there is none.
///
/// No run does so: on CUDA the backward pass of fused attention is then not deterministic between runs.
/// cuBLAS also needs `CUBLAS_WORKSPACE_CONFIG`, which must be set before the program starts.
///
/// # Errors
/// [`Error::Libtorch`] if libtorch fails.
pub fn set_deterministic(on: bool) -> Result<()> {
    // SAFETY: no arguments but a flag.
    let message = unsafe { ffi::ddpo_set_deterministic(on) };
    // SAFETY: the message is the one just returned.
    unsafe { ffi::check("set_deterministic", message) }
}

fn load() -> CudaStatus {
    let mut status = -1;
    let mut detail = std::ptr::null_mut();
    // SAFETY: both out-pointers are valid for writes.
    let message = unsafe { ffi::ddpo_load_cuda(&mut status, &mut detail) };
    // SAFETY: the message is the one just returned.
    if let Err(error) = unsafe { ffi::check("load_cuda", message) } {
        return CudaStatus::Failed {
            message: error.to_string(),
        };
    }
    // SAFETY: the shim set `detail` to null or to a string that it gave to us.
    let detail = unsafe { ffi::take_string(detail) }.unwrap_or_default();
    match status {
        0 => CudaStatus::Loaded,
        1 => CudaStatus::NoDriver,
        2 => CudaStatus::NoLibrary { folder: detail },
        _ => CudaStatus::Failed { message: detail },
    }
}
