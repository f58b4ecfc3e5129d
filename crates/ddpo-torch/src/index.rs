//! The header of a safetensors file, checked before any tensor is read, and messages about damaged ones.

use std::collections::{HashMap, HashSet};
use std::fmt;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use tch::Kind;

use crate::{Error, Result};

/// Bytes of the number in front of the header.
pub(crate) const LENGTH: usize = 8;

/// The longest header that the format allows.
const LONGEST: u64 = 100_000_000;

/// Dtypes that both safetensors and torch have.
pub(crate) const KINDS: [(Kind, Dtype); 8] = [
    (Kind::Double, Dtype::F64),
    (Kind::Float, Dtype::F32),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Uint8, Dtype::U8),
    (Kind::Bool, Dtype::BOOL),
];

/// The position of each tensor in a file; every offset was checked against the file's length.
pub(crate) struct Index {
    data: u64,
    metadata: Metadata,
}

/// The dtype, shape and bytes of a tensor in the file; the byte count matches the shape.
pub(crate) struct TensorSpan {
    /// The shape.
    pub(crate) shape: Vec<i64>,
    /// Dtype of the elements.
    pub(crate) kind: Kind,
    /// Offset of the first byte from the beginning of the file.
    pub(crate) start: u64,
    /// Number of bytes.
    pub(crate) n_bytes: usize,
}

/// Length of the header, as the first bytes of a file of `n_bytes` state it, checked against the file's length.
pub(crate) fn header_length(file: &str, first: &[u8], n_bytes: u64) -> Result<usize> {
    let damaged = |reason| Error::Damaged {
        file: file.to_owned(),
        reason,
    };
    let Some((length, _)) = first.split_first_chunk::<LENGTH>() else {
        return Err(damaged(format!("it has only {n_bytes} bytes")));
    };
    let length = u64::from_le_bytes(*length);
    if length > n_bytes - LENGTH as u64 {
        return Err(damaged(format!(
            "it claims a header of {length} bytes and has {n_bytes} in all"
        )));
    }
    if length > LONGEST {
        return Err(damaged(format!(
            "it claims a header of {length} bytes, the format allows {LONGEST}"
        )));
    }
    Ok(length as usize)
}

impl Index {
    /// Checks a header against the number of bytes that follow it; `file` is its name in errors.
    ///
    /// Only takes memory for the header's own contents, whatever sizes it states.
    pub(crate) fn new(file: &str, header: &[u8], n_data: u64) -> Result<Self> {
        let damaged = |reason: String| Error::Damaged {
            file: file.to_owned(),
            reason,
        };
        let Header { texts, tensors } = {
            let parsed = Header::parse(header).map_err(damaged)?;
            match parsed.fault(n_data) {
                None => parsed,
                Some(fault) => return Err(damaged(fault)),
            }
        };
        // The library checks once more.
        let metadata = Metadata::new(Some(texts), tensors).map_err(|e| damaged(e.to_string()))?;
        Ok(Self {
            data: (LENGTH + header.len()) as u64,
            metadata,
        })
    }

    /// The names in the file.
    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The string metadata.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (String, String)> {
        let texts = self.metadata.metadata().iter().flatten();
        texts.map(|(key, text)| (key.clone(), text.clone()))
    }

    /// Where the tensor `name` is; `shape`, if given, is the only one accepted.
    ///
    /// The error is a sentence that names the tensor.
    pub(crate) fn place(
        &self,
        name: &str,
        shape: Option<&[i64]>,
    ) -> std::result::Result<TensorSpan, String> {
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
        let (kind, _) = KINDS
            .iter()
            .find(|(_, dtype)| *dtype == info.dtype)
            .ok_or_else(|| format!("`{name}` has dtype {}, which is not supported", info.dtype))?;
        let (start, end) = info.data_offsets;
        Ok(TensorSpan {
            shape: actual,
            kind: *kind,
            start: self.data + start as u64,
            n_bytes: end - start,
        })
    }
}

/// The entries of a header, in the order of the data.
///
/// Deserialized into typed values: as a tree of untyped values, as in the library's reader, a header takes up to
/// fifty times its length.
struct Header {
    texts: HashMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

impl Header {
    fn parse(json: &[u8]) -> std::result::Result<Self, String> {
        let mut header: Self =
            serde_json::from_slice(json).map_err(|e| format!("its header: {e}"))?;
        header
            .tensors
            .sort_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));
        Ok(header)
    }

    /// The first inconsistency, if `available` bytes follow.
    fn fault(&self, available: u64) -> Option<String> {
        let mut position = 0;
        for (name, info) in &self.tensors {
            let (start, end) = info.data_offsets;
            let n_bits = info
                .shape
                .iter()
                .try_fold(info.dtype.bitsize(), |n, &d| n.checked_mul(d));
            let Some(n_bits) = n_bits else {
                return Some(format!("`{name}` has an impossible shape {:?}", info.shape));
            };
            if end < start || end - start != n_bits.div_ceil(8) {
                return Some(format!(
                    "`{name}` claims bytes {start} to {end}, but {} {:?} takes {}",
                    info.dtype,
                    info.shape,
                    n_bits.div_ceil(8)
                ));
            }
            if start != position {
                return Some(format!(
                    "`{name}` starts at byte {start}, the tensor before it ends at {position}"
                ));
            }
            if end as u64 > available {
                return Some(format!(
                    "it is cut off: `{name}` ends at byte {end} of {available}"
                ));
            }
            position = end;
        }
        (position as u64 != available).then(|| {
            format!("its tensors take {position} bytes, but {available} follow the header")
        })
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        from.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let (mut texts, mut tensors) = (HashMap::new(), Vec::new());
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                texts = map.next_value()?;
                continue;
            }
            let info = map
                .next_value()
                .map_err(|e| A::Error::custom(format!("`{name}`: {e}")))?;
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("`{name}` is there twice")));
            }
            tensors.push((name, info));
        }
        Ok(Header { texts, tensors })
    }
}
