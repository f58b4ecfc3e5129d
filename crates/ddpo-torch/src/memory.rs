//! Peak memory.
use std::ffi::c_int;

use tch::Device;

use crate::{Error, Result, ffi};

/// Peak memory of a device from now on.
///
/// On CUDA this is the memory of tensors, as counted by libtorch's allocator. On the CPU libtorch counts
/// nothing, so that the process's resident memory from Linux is used instead: an upper bound of what tensors need.
#[derive(Debug)]
pub struct PeakMemory {
    device: Device,
    before: u64,
}

impl PeakMemory {
    /// Resets the peak. There is one peak counter per process: the latest call counts.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no `/proc/self`; [`Error::Libtorch`] without CUDA for a CUDA device.
    pub fn begin(device: Device) -> Result<Self> {
        let before = match device {
            Device::Cuda(index) => cuda(index, true)?.0,
            _ => {
                let path = "/proc/self/clear_refs";
                // "5" sets the mark of the peak to what is resident now (proc(5)).
                std::fs::write(path, "5").map_err(|source| io("write", path, source))?;
                resident("VmRSS:")?
            }
        };
        Ok(Self { device, before })
    }

    /// Bytes in use at the start.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// Peak in bytes since then, including what was in use at the start.
    ///
    /// # Errors
    /// Same as [`begin`](Self::begin).
    pub fn peak(&self) -> Result<u64> {
        match self.device {
            Device::Cuda(index) => Ok(cuda(index, false)?.1),
            _ => resident("VmHWM:"),
        }
    }
}

fn cuda(index: usize, reset: bool) -> Result<(u64, u64)> {
    let (mut now, mut peak) = (0, 0);
    // SAFETY: both out-pointers are valid for writes.
    let message = unsafe { ffi::ddpo_cuda_memory(index as c_int, reset, &mut now, &mut peak) };
    // SAFETY: the message is the one just returned.
    unsafe { ffi::check("memory statistics", message)? };
    Ok((now.max(0) as u64, peak.max(0) as u64))
}

/// A line of `/proc/self/status`, in bytes.
fn resident(key: &str) -> Result<u64> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path).map_err(|source| io("read", path, source))?;
    let kib = text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .trim()
            .split(' ')
            .next()?
            .parse()
            .ok()
    });
    kib.map(|kib: u64| kib * 1024)
        .ok_or_else(|| io("read", path, std::io::ErrorKind::InvalidData.into()))
}

fn io(action: &'static str, path: &str, source: std::io::Error) -> Error {
    Error::Io {
        action,
        path: path.into(),
        source,
    }
}
