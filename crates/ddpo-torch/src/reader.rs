//! Tensors of a safetensors file: memory-mapped, or read into memory of their own.
//!
//! A mapped tensor costs no copy: its memory is the file's pages, private to this process, and a page is copied
//! when something writes to it. Tensors that are converted or moved are read one by one, so that their
//! memory is freed at once. Either way the weights are in memory once.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::index::{Index, LENGTH, TensorSpan, header_length};
use crate::{Error, Result};

/// An opened file with its index.
pub(crate) struct Reader {
    /// Name in errors.
    pub(crate) name: String,
    pub(crate) index: Index,
    source: Source,
}

enum Source {
    File {
        file: File,
        path: PathBuf,
        n_bytes: u64,
        /// The whole file as bytes, mapped on first use.
        map: OnceCell<Tensor>,
    },
    /// Of the program itself, or from memory.
    Bytes(Cow<'static, [u8]>),
}

impl Reader {
    /// Reads only the header.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Damaged`] if its header is inconsistent.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |action| {
            move |source| Error::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let file = File::open(path).map_err(io("open"))?;
        let n_bytes = file.metadata().map_err(io("read"))?.len();
        let name = path.display().to_string();
        let mut first = vec![0; n_bytes.min(LENGTH as u64) as usize];
        file.read_exact_at(&mut first, 0).map_err(io("read"))?;
        let mut header = vec![0; header_length(&name, &first, n_bytes)?];
        file.read_exact_at(&mut header, LENGTH as u64)
            .map_err(io("read"))?;
        let index = Index::new(&name, &header, n_bytes - (LENGTH + header.len()) as u64)?;
        let source = Source::File {
            file,
            path: path.to_owned(),
            n_bytes,
            map: OnceCell::new(),
        };
        Ok(Self {
            name,
            index,
            source,
        })
    }

    /// From bytes that are compiled into the program, or in memory.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its header is inconsistent.
    pub(crate) fn of_bytes(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let bytes = bytes.into();
        let length = header_length(name, &bytes, bytes.len() as u64)?;
        let (header, data) = bytes[LENGTH..].split_at(length);
        let index = Index::new(name, header, data.len() as u64)?;
        Ok(Self {
            name: name.to_owned(),
            index,
            source: Source::Bytes(bytes),
        })
    }

    /// A tensor in memory of its own, on the CPU, in the file's kind.
    pub(crate) fn read(
        &self,
        name: &str,
        span: &TensorSpan,
    ) -> std::result::Result<Tensor, String> {
        let (file, path) = match &self.source {
            Source::Bytes(bytes) => {
                let start = span.start as usize;
                let data = bytes.get(start..start + span.n_bytes);
                let data = data.ok_or_else(|| format!("`{name}` is beyond the end"))?;
                return Tensor::f_from_data_size(data, &span.shape, span.kind)
                    .map_err(|e| format!("`{name}`: {e}"));
            }
            Source::File { file, path, .. } => (file, path),
        };
        let tensor = Tensor::f_empty(&span.shape, (span.kind, Device::Cpu))
            .map_err(|e| format!("`{name}`: {e}"))?;
        if span.n_bytes > 0 {
            debug_assert_eq!(tensor.numel() * span.kind.elt_size_in_bytes(), span.n_bytes);
            // SAFETY: a fresh contiguous tensor owns `n_bytes`: the index has compared shape and length. Nobody
            // else has it yet, and reading from a file only writes to the buffer.
            let buffer = unsafe {
                std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), span.n_bytes)
            };
            file.read_exact_at(buffer, span.start)
                .map_err(|e| format!("`{name}` cannot be read from {}: {e}", path.display()))?;
        }
        Ok(tensor)
    }

    /// A tensor on the CPU, in the file's dtype, memory-mapped where possible: not for files compiled into the
    /// program, and not where elements would be misaligned.
    pub(crate) fn share(
        &self,
        name: &str,
        span: &TensorSpan,
    ) -> std::result::Result<Tensor, String> {
        let aligned = span
            .start
            .is_multiple_of(span.kind.elt_size_in_bytes() as u64);
        if !aligned || span.n_bytes == 0 {
            return self.read(name, span);
        }
        match self.map()? {
            None => self.read(name, span),
            Some(map) => view(map, span).map_err(|e| format!("`{name}`: {e}")),
        }
    }

    /// The whole file; `None` if there is no file, or its name cannot be passed to libtorch.
    fn map(&self) -> std::result::Result<Option<&Tensor>, String> {
        let Source::File {
            path, n_bytes, map, ..
        } = &self.source
        else {
            return Ok(None);
        };
        if let Some(map) = map.get() {
            return Ok(Some(map));
        }
        let Some(text) = path.to_str() else {
            return Ok(None);
        };
        // Private: libtorch maps with copy on write unless `shared`.
        let (shared, size) = (false, *n_bytes as i64);
        let made = Tensor::f_from_file(text, shared, size, (Kind::Uint8, Device::Cpu))
            .map_err(|e| format!("{text} cannot be mapped: {e}"))?;
        Ok(Some(map.get_or_init(|| made)))
    }
}

fn view(map: &Tensor, span: &TensorSpan) -> std::result::Result<Tensor, tch::TchError> {
    // `data` gives a tensor with its own version counter: a change to one weight must not look like a change to all.
    map.f_narrow(0, span.start as i64, span.n_bytes as i64)?
        .f_view_dtype(span.kind)?
        .f_view(span.shape.as_slice())?
        .f_data()
}
