//! safetensors files: whole ones out, checked ones in, and what is wrong with a damaged one.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Bytes of the number in front of the header.
const LENGTH: usize = 8;

/// Where each tensor of a file lies; every offset was checked against the file's length.
pub(crate) struct Index {
    data: usize,
    metadata: Metadata,
}

impl Index {
    /// Reads the header of `bytes`; `file` is its name in errors. Takes no memory for tensors.
    pub(crate) fn new(file: &str, bytes: &[u8]) -> Result<Self> {
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| Error::Damaged {
            file: file.to_owned(),
            reason: explain(bytes).unwrap_or_else(|| e.to_string()),
        })?;
        Ok(Self {
            data: LENGTH + header,
            metadata,
        })
    }

    /// The names in the file.
    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The tensor `name`, on the CPU in the file's dtype; `bytes` are those that the index was made of.
    ///
    /// `shape`, if given, is the only one accepted; the error is a sentence that names the tensor.
    pub(crate) fn tensor(
        &self,
        bytes: &[u8],
        name: &str,
        shape: Option<&[i64]>,
    ) -> std::result::Result<Tensor, String> {
        let info = self
            .metadata
            .info(name)
            .ok_or_else(|| format!("`{name}` is missing"))?;
        let actual: Vec<i64> = info
            .shape
            .iter()
            .map(|&d| i64::try_from(d).map_err(|_| format!("`{name}` has a dimension of {d}")))
            .collect::<std::result::Result<_, _>>()?;
        if let Some(expected) = shape
            && actual != expected
        {
            return Err(format!(
                "`{name}` has shape {actual:?}, expected {expected:?}"
            ));
        }
        let kind = kind_of(info.dtype)
            .ok_or_else(|| format!("`{name}` has dtype {}, which is not supported", info.dtype))?;
        let (start, end) = info.data_offsets;
        let data = bytes
            .get(self.data + start..self.data + end)
            .ok_or_else(|| format!("`{name}` lies beyond the end of the file"))?;
        // Compares the length of `data` with shape and dtype: what the copy below relies on.
        let view = TensorView::new(info.dtype, info.shape.clone(), data)
            .map_err(|e| format!("`{name}`: {e}"))?;
        Tensor::f_from_data_size(view.data(), &actual, kind).map_err(|e| format!("`{name}`: {e}"))
    }
}

/// Writes tensors as one safetensors file, sorted by name, through a temporary file and a rename.
///
/// # Errors
/// [`Error::Io`] with the path; what was at `path` before is then still there.
pub fn save<'t>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
) -> Result<()> {
    save_with_metadata(path, tensors, [])
}

/// As [`save`], with texts by key beside the tensors (safetensors' `__metadata__`).
///
/// # Errors
/// As [`save`].
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
        write(&temporary, views, metadata).and_then(|()| std::fs::rename(&temporary, path));
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
/// [`Error::Io`] if the file cannot be read, [`Error::Damaged`] if it lies.
pub fn read_all(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    Ok(read_all_with_metadata(path)?.0)
}

/// As [`read_all`], with the texts by key that [`save_with_metadata`] and other programs write.
///
/// # Errors
/// As [`read_all`].
pub fn read_all_with_metadata(
    path: &Path,
) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, String>)> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let file = path.display().to_string();
    let index = Index::new(&file, &bytes)?;
    let one = |name: String| match index.tensor(&bytes, &name, None) {
        Ok(tensor) => Ok((name, tensor)),
        Err(reason) => Err(Error::Damaged {
            file: file.clone(),
            reason,
        }),
    };
    let tensors = index.names().into_iter().map(one).collect::<Result<_>>()?;
    let texts = index.metadata.metadata().iter().flatten();
    let texts = texts.map(|(key, text)| (key.clone(), text.clone()));
    Ok((tensors, texts.collect()))
}

fn write(
    path: &Path,
    views: Vec<(&str, Plain)>,
    metadata: HashMap<String, String>,
) -> std::io::Result<()> {
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(e) => e,
        other => std::io::Error::other(other.to_string()),
    })?;
    std::fs::File::open(path)?.sync_all()
}

/// What a damaged file gets wrong, naming the tensor; the library's own errors often do not.
fn explain(bytes: &[u8]) -> Option<String> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Some(format!("it has only {} bytes", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().and_then(|n| rest.get(..n));
    let Some(header) = header else {
        let size = bytes.len();
        return Some(format!(
            "it claims a header of {length} bytes and has {size} in all"
        ));
    };
    let available = rest.len() - header.len();
    let entries: HashMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let mut tensors = Vec::new();
    for (name, entry) in entries {
        if name == "__metadata__" {
            continue;
        }
        match serde_json::from_value::<TensorInfo>(entry) {
            Ok(info) => tensors.push((info.data_offsets, name, info)),
            Err(e) => return Some(format!("`{name}`: {e}")),
        }
    }
    tensors.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut position = 0;
    for ((start, end), name, info) in tensors {
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |n, &d| n.checked_mul(d));
        let Some(bits) = bits else {
            return Some(format!("`{name}` has an impossible shape {:?}", info.shape));
        };
        if end < start || end - start != bits.div_ceil(8) {
            return Some(format!(
                "`{name}` claims bytes {start} to {end}, but {} {:?} takes {}",
                info.dtype,
                info.shape,
                bits.div_ceil(8)
            ));
        }
        if start != position {
            return Some(format!(
                "`{name}` starts at byte {start}, the tensor before it ends at {position}"
            ));
        }
        if end > available {
            return Some(format!(
                "it is cut off: `{name}` ends at byte {end} of {available}"
            ));
        }
        position = end;
    }
    (position != available)
        .then(|| format!("its tensors take {position} bytes, but {available} follow the header"))
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS
        .iter()
        .find(|(_, d)| *d == dtype)
        .map(|(kind, _)| *kind)
}

const KINDS: [(Kind, Dtype); 8] = [
    (Kind::Double, Dtype::F64),
    (Kind::Float, Dtype::F32),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Uint8, Dtype::U8),
    (Kind::Bool, Dtype::BOOL),
];

/// A tensor as the contiguous CPU bytes that safetensors writes.
struct Plain {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Plain {
    fn new(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let kind = tensor.kind();
        let Some((_, dtype)) = KINDS.iter().find(|(k, _)| *k == kind) else {
            let reason = format!("cannot save a tensor of kind {kind:?}");
            return Err(tch::TchError::Kind(reason).into());
        };
        let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        Ok(Self {
            dtype: *dtype,
            shape: tensor.size().iter().map(|&d| d as usize).collect(),
            bytes,
        })
    }
}

impl safetensors::View for Plain {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.bytes).into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
