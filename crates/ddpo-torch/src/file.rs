//! Writing and reading of whole safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use tch::{Device, Tensor};

use crate::index::{KINDS, TensorSpan};
use crate::reader::Reader;
use crate::{Error, Result};

/// Writes tensors as one safetensors file, sorted by name, through a temporary file and a rename.
///
/// # Errors
/// [`Error::Io`] with the path; the previous file at `path` is then unchanged.
pub fn save<'t>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
) -> Result<()> {
    save_with_metadata(path, tensors, [])
}

/// Like [`save`], with string metadata (safetensors' `__metadata__`).
///
/// # Errors
/// Same as [`save`].
pub fn save_with_metadata<'t>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Result<()> {
    let views: Vec<(&str, Plain)> = tensors
        .into_iter()
        .map(|(n, t)| Ok((n, Plain::new(t)?)))
        .collect::<Result<_>>()?;
    let temporary = PathBuf::from(format!("{}.part", path.display()));
    let format = ("format".to_owned(), "pt".to_owned());
    let metadata = std::iter::once(format).chain(metadata).collect();
    let written =
        write(&temporary, &views, metadata).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|source| {
        // Best effort: the error to report is the first one.
        let _ = std::fs::remove_file(&temporary);
        Error::Io {
            action: "write",
            path: path.to_owned(),
            source,
        }
    })
}

/// Every tensor of a safetensors file, by name, in the file's own dtypes, on the CPU.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Damaged`] if it is inconsistent.
pub fn read_all(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    Ok(read_all_with_metadata(path)?.0)
}

/// Like [`read_all`], with the metadata that [`save_with_metadata`] and other programs write.
///
/// # Errors
/// Same as [`read_all`].
pub fn read_all_with_metadata(
    path: &Path,
) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, String>)> {
    let reader = Reader::open(path)?;
    let tensors = all(&reader, Reader::read)?;
    Ok((tensors, reader.index.texts().collect()))
}

/// Like [`read_all`], but the tensors are memory-mapped, as those of [`Store::open`](crate::Store::open): tensors
/// that are not accessed take no memory.
///
/// # Errors
/// Same as [`read_all`].
pub fn share_all(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    all(&Reader::open(path)?, Reader::share)
}

/// As [`save_with_metadata`], to memory.
///
/// # Errors
/// A kind that safetensors has no name for.
pub fn to_bytes<'t>(
    tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<u8>> {
    let views = tensors
        .into_iter()
        .map(|(n, t)| Ok((n, Plain::new(t)?)))
        .collect::<Result<Vec<(&str, Plain)>>>()?;
    let views = views.iter().map(|(name, view)| (*name, view));
    let bytes = safetensors::serialize(views, Some(metadata.into_iter().collect()));
    bytes.map_err(|error| tch::TchError::Kind(error.to_string()).into())
}

/// As [`read_all_with_metadata`], from memory; `name` is for errors.
///
/// # Errors
/// [`Error::Damaged`] if the bytes lie.
pub fn from_bytes(
    name: &str,
    bytes: Vec<u8>,
) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, String>)> {
    let reader = Reader::of_bytes(name, bytes)?;
    let tensors = all(&reader, Reader::read)?;
    Ok((tensors, reader.index.texts().collect()))
}

fn all(
    reader: &Reader,
    get: impl Fn(&Reader, &str, &TensorSpan) -> std::result::Result<Tensor, String>,
) -> Result<BTreeMap<String, Tensor>> {
    let one = |name: String| {
        let place = reader.index.place(&name, None);
        match place.and_then(|place| get(reader, &name, &place)) {
            Ok(tensor) => Ok((name, tensor)),
            Err(reason) => Err(Error::Damaged {
                file: reader.name.clone(),
                reason,
            }),
        }
    };
    reader.index.names().into_iter().map(one).collect()
}

fn write(
    path: &Path,
    views: &[(&str, Plain)],
    metadata: HashMap<String, String>,
) -> std::io::Result<()> {
    let views = views.iter().map(|(name, view)| (*name, view));
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(e) => e,
        other => std::io::Error::other(other.to_string()),
    })?;
    std::fs::File::open(path)?.sync_all()
}

/// A tensor as contiguous CPU bytes for safetensors, copied only if necessary.
struct Plain {
    dtype: Dtype,
    shape: Vec<usize>,
    tensor: Tensor,
}

impl Plain {
    fn new(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
        let kind = tensor.kind();
        let Some((_, dtype)) = KINDS.iter().find(|(k, _)| *k == kind) else {
            let reason = format!("cannot save a tensor of kind {kind:?}");
            return Err(tch::TchError::Kind(reason).into());
        };
        Ok(Self {
            dtype: *dtype,
            shape: tensor.size().iter().map(|&d| d as usize).collect(),
            tensor,
        })
    }
}

impl safetensors::View for &Plain {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        if self.data_len() == 0 {
            return (&[]).into();
        }
        let start = self.tensor.data_ptr().cast_const().cast::<u8>();
        // SAFETY: contiguous memory of the CPU that `self.tensor` keeps alive; a tensor cannot be shared between
        // threads, and this one only calls `write` while the slice lives.
        unsafe { std::slice::from_raw_parts(start, self.data_len()) }.into()
    }
    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}
