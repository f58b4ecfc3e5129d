//! Tensors out of a safetensors file: shared with the file by memory map, or read into memory of their own.
//!
//! A mapped tensor costs no copy: its memory is the file's pages, private to this process, and a page is copied
//! when something writes to it. A tensor that is to be converted or moved is read by itself, so that what is
//! not needed any more is given back at once. Either way the weights are in memory once.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::index::{Index, LENGTH, Place, header_length};
use crate::{Error, Result};

/// An opened file with its index.
pub(crate) struct Reader {
    /// What errors call it.
    pub(crate) name: String,
    pub(crate) index: Index,
    source: Source,
}

enum Source {
    File {
        file: File,
        path: PathBuf,
        n_bytes: u64,
        /// The whole file as bytes, mapped when it is first asked for.
        map: OnceCell<Tensor>,
    },
    /// Of the program itself, or from memory.
    Bytes(Cow<'static, [u8]>),
}

impl Reader {
    /// Reads the header and nothing else.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Damaged`] if its header lies.
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

    /// Of a file that is part of the program, or in memory.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its header lies.
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
    pub(crate) fn read(&self, name: &str, place: &Place) -> std::result::Result<Tensor, String> {
        let (file, path) = match &self.source {
            Source::Bytes(bytes) => {
                let start = place.start as usize;
                let data = bytes.get(start..start + place.n_bytes);
                let data = data.ok_or_else(|| format!("`{name}` lies beyond the end"))?;
                return Tensor::f_from_data_size(data, &place.shape, place.kind)
                    .map_err(|e| format!("`{name}`: {e}"));
            }
            Source::File { file, path, .. } => (file, path),
        };
        let tensor = Tensor::f_empty(&place.shape, (place.kind, Device::Cpu))
            .map_err(|e| format!("`{name}`: {e}"))?;
        if place.n_bytes > 0 {
            debug_assert_eq!(
                tensor.numel() * place.kind.elt_size_in_bytes(),
                place.n_bytes
            );
            // SAFETY: a fresh contiguous tensor owns `n_bytes`: the index has compared shape and length. Nobody
            // else has it yet, and reading from a file only writes to the buffer.
            let buffer = unsafe {
                std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), place.n_bytes)
            };
            file.read_exact_at(buffer, place.start)
                .map_err(|e| format!("`{name}` cannot be read from {}: {e}", path.display()))?;
        }
        Ok(tensor)
    }

    /// A tensor on the CPU, in the file's kind, whose memory is the file's where that is possible: not for parts
    /// of the program, and not where an element would lie across its natural boundary.
    pub(crate) fn share(&self, name: &str, place: &Place) -> std::result::Result<Tensor, String> {
        let aligned = place
            .start
            .is_multiple_of(place.kind.elt_size_in_bytes() as u64);
        if !aligned || place.n_bytes == 0 {
            return self.read(name, place);
        }
        match self.map()? {
            None => self.read(name, place),
            Some(map) => view(map, place).map_err(|e| format!("`{name}`: {e}")),
        }
    }

    /// The whole file; none where there is no file, or libtorch could not be told its name.
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

fn view(map: &Tensor, place: &Place) -> std::result::Result<Tensor, tch::TchError> {
    // `data` gives a tensor with a history of its own: a change to one weight must not look like one to all.
    map.f_narrow(0, place.start as i64, place.n_bytes as i64)?
        .f_view_dtype(place.kind)?
        .f_view(place.shape.as_slice())?
        .f_data()
}
