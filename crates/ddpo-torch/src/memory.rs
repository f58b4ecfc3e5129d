//! How much memory a piece of work takes at most.
use std::ffi::c_int;

use tch::Device;

use crate::{Error, Result, ffi};

/// What a device holds from now on, at most.
///
/// On CUDA these are the bytes of tensors, as libtorch's allocator counts them. On the CPU libtorch counts
/// nothing, and Linux' figures of the process stand in: resident memory, whatever holds it, which is an upper
/// limit of what tensors need.
#[derive(Debug)]
pub struct PeakMemory {
    device: Device,
    before: u64,
}

impl PeakMemory {
    /// Begins to watch. There is one mark of the peak in a process: the latest begin counts.
    ///
    /// # Errors
    /// [`Error::Io`] where the system has no `/proc/self`; [`Error::Libtorch`] without CUDA for a CUDA device.
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

    /// Bytes when it began.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// Bytes at most since then, those of before included.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
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
