//! Asynchronous copies from a device to the host, with one synchronization for all of them.
use tch::{Cuda, Device, Kind, Tensor};

use crate::foreach::same_shape;
use crate::{Result, ffi};

/// Host memory that tensors of a device are copied into asynchronously.
///
/// On CUDA the memory is pinned and the copies are queued behind the kernels that compute their source; on the CPU
/// they are plain copies. [`finish`](Self::finish) waits for all of them at once.
#[derive(Debug)]
pub struct HostStaging {
    host: Tensor,
    from: Device,
}

impl HostStaging {
    /// Allocates `shape`, initially zero, to be filled from tensors on the device `from`.
    pub fn new(shape: &[i64], kind: Kind, from: Device) -> Self {
        let host = Tensor::zeros(shape, (kind, Device::Cpu));
        let host = match from {
            Device::Cpu => host,
            device => host.pin_memory(device),
        };
        Self { host, from }
    }

    /// Starts to copy `from` into row `row`. The source may be dropped at once: its memory is not reused
    /// before the copy, which is earlier in the same stream.
    ///
    /// # Shapes
    /// - `from`: that of a row
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for another shape; [`crate::Error::Libtorch`] if libtorch fails.
    pub fn put(&self, row: i64, from: &Tensor) -> Result<()> {
        let to = self.host.get(row);
        same_shape("copy_async", "from", &to, from)?;
        // SAFETY: both pointers are those of live tensors.
        let message = unsafe { ffi::ddpo_copy_async(to.as_ptr(), from.as_ptr()) };
        // SAFETY: the message is the one just returned.
        unsafe { ffi::check("copy_async", message) }
    }

    /// Waits for all copies and returns all rows, on the host.
    pub fn finish(self) -> Tensor {
        if let Device::Cuda(index) = self.from {
            Cuda::synchronize(index as i64);
        }
        self.host
    }
}
