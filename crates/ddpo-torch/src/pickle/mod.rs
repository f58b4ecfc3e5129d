//! Weights that were only published as `torch.save` files: only tensors are admitted.
//!
//! Such a file (`.pth`, `.pt`, `.bin`) is a zip archive with a pickle, `data.pkl`, and the bytes of each storage as an
//! entry of their own. What is admitted follows `torch.load(weights_only=True)`; no crate does
//! that: candle's reader needs all of candle and skips what it does not know, others parse any pickle.
//! Entries are stored uncompressed, and every statement of the pickle about them is checked against the archive
//! before a byte of a tensor is read.

mod machine;
mod value;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tch::Tensor;
use zip::{CompressionMethod, ZipArchive};

use self::value::Claim;
use crate::{Error, Result};

/// The first bytes of every zip archive.
const MAGIC: &[u8] = b"PK\x03\x04";
/// The first bytes of files by torch before 1.6: a sequence of pickles without an archive.
const OLD_MAGIC: &[u8] = &[0x80, 2, 0x8a, 0x0a];
/// Longest pickle that is interpreted: a tensor takes about 100 bytes of it.
const MAX_PICKLE: u64 = 4 << 20;

/// An opened file and the position of each tensor in it, all checked against the file.
pub(crate) struct Archive {
    /// Name in errors.
    pub(crate) name: String,
    file: File,
    tensors: BTreeMap<String, StoredTensor>,
}

struct StoredTensor {
    claim: Claim,
    bytes: Range<u64>,
}

impl Archive {
    /// Reads the directory and the pickle; `None` if the file is not an archive. Takes no memory for tensors.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Refused`] if it holds anything but tensors.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let io = |action| {
            move |source| Error::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let file = File::open(path).map_err(io("open"))?;
        let n_bytes = file.metadata().map_err(io("read"))?.len();
        let mut first = vec![0; n_bytes.min(MAGIC.len() as u64) as usize];
        file.read_exact_at(&mut first, 0).map_err(io("read"))?;
        let name = path.display().to_string();
        if first == OLD_MAGIC {
            let reason =
                "it is from before torch 1.6: load and save it with a newer one".to_owned();
            return Err(Error::Refused { file: name, reason });
        }
        if first != MAGIC {
            return Ok(None);
        }
        match read(BufReader::new(&file), n_bytes) {
            Ok(tensors) => Ok(Some(Self {
                name,
                file,
                tensors,
            })),
            Err(reason) => Err(Error::Refused { file: name, reason }),
        }
    }

    /// The names in the file.
    pub(crate) fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// The tensor `name`, on the CPU in the file's kind, contiguous.
    ///
    /// `shape` is the only one accepted; the error is a sentence that names the tensor.
    pub(crate) fn tensor(&self, name: &str, shape: &[i64]) -> std::result::Result<Tensor, String> {
        let place = self.tensors.get(name);
        let StoredTensor { claim, bytes } = place.ok_or_else(|| format!("`{name}` is missing"))?;
        if claim.shape != shape {
            return Err(format!(
                "`{name}` has shape {:?}, expected {shape:?}",
                claim.shape
            ));
        }
        let mut data = vec![0; (bytes.end - bytes.start) as usize];
        self.file
            .read_exact_at(&mut data, bytes.start)
            .map_err(|e| format!("`{name}` cannot be read from {}: {e}", self.name))?;
        let n = (data.len() / claim.kind.elt_size_in_bytes()) as i64;
        let made = Tensor::f_from_data_size(&data, &[n], claim.kind)
            .and_then(|flat| flat.f_as_strided(&claim.shape, &claim.strides, None))
            .and_then(|tensor| tensor.f_contiguous());
        made.map_err(|e| format!("`{name}`: {e}"))
    }
}

type Zip<'a> = ZipArchive<BufReader<&'a File>>;

fn read(
    file: BufReader<&File>,
    n_bytes: u64,
) -> std::result::Result<BTreeMap<String, StoredTensor>, String> {
    let mut archive = ZipArchive::new(file).map_err(|e| format!("its archive is damaged: {e}"))?;
    let entries = entries(&mut archive, n_bytes)?;
    let (root, pickle) = pickle(&mut archive, &entries)?;
    if entries.contains_key(&format!("{root}byteorder"))
        && content(&mut archive, &format!("{root}byteorder"), 16)? != b"little"
    {
        return Err("its bytes are not in little-endian order".to_owned());
    }
    let mut tensors = BTreeMap::new();
    for (name, claim) in machine::tensors(&pickle)? {
        let entry = entries.get(&format!("{root}data/{}", claim.storage));
        let entry = entry.ok_or_else(|| format!("`{name}` has no data in the archive"))?;
        let bytes = within(&claim, entry).map_err(|reason| format!("`{name}` {reason}"))?;
        tensors.insert(name, StoredTensor { claim, bytes });
    }
    Ok(tensors)
}

/// The position of each entry: uncompressed, within the file, no name twice.
fn entries(
    archive: &mut Zip<'_>,
    n_bytes: u64,
) -> std::result::Result<BTreeMap<String, Range<u64>>, String> {
    let mut entries = BTreeMap::new();
    for i in 0..archive.len() {
        let entry = archive
            .by_index_raw(i)
            .map_err(|e| format!("its archive is damaged: {e}"))?;
        let name = entry.name().to_owned();
        if entry.compression() != CompressionMethod::Stored
            || entry.size() != entry.compressed_size()
        {
            return Err(format!("`{name}` is compressed, which torch never does"));
        }
        let end = entry.data_start().checked_add(entry.size());
        let Some(end) = end.filter(|end| *end <= n_bytes) else {
            return Err(format!("`{name}` is beyond the end of the file"));
        };
        let range = entry.data_start()..end;
        if entries.insert(name.clone(), range).is_some() {
            return Err(format!("`{name}` is there twice"));
        }
    }
    Ok(entries)
}

/// The folder inside the archive, with its slash, and the pickle itself.
fn pickle(
    archive: &mut Zip<'_>,
    entries: &BTreeMap<String, Range<u64>>,
) -> std::result::Result<(String, Vec<u8>), String> {
    let mut found = entries.iter().filter(|(name, _)| {
        name.split_once('/')
            .is_some_and(|(_, rest)| rest == "data.pkl")
    });
    let (Some((name, range)), None) = (found.next(), found.next()) else {
        return Err("it holds no single data.pkl".to_owned());
    };
    let n = range.end - range.start;
    if n > MAX_PICKLE {
        return Err(format!(
            "its pickle has {n} bytes, at most {MAX_PICKLE} are read"
        ));
    }
    let root = name.trim_end_matches("data.pkl").to_owned();
    Ok((root, content(archive, name, MAX_PICKLE)?))
}

/// An entry's bytes, at most `limit` of them, their checksum compared.
fn content(archive: &mut Zip<'_>, name: &str, limit: u64) -> std::result::Result<Vec<u8>, String> {
    let mut content = Vec::new();
    archive
        .by_name(name)
        .map_err(|e| e.to_string())?
        .take(limit)
        .read_to_end(&mut content)
        .map_err(|e| format!("`{name}` is damaged: {e}"))?;
    Ok(content)
}

/// The bytes of the file from a tensor's first element to its last, if all that is claimed holds.
fn within(claim: &Claim, entry: &Range<u64>) -> std::result::Result<Range<u64>, String> {
    let size = claim.kind.elt_size_in_bytes() as u64;
    let n_bytes = entry.end - entry.start;
    let stored = u64::try_from(claim.n_stored).ok();
    if stored.and_then(|n| n.checked_mul(size)) != Some(n_bytes) {
        return Err(format!(
            "claims a storage of {} {:?}, the archive has {n_bytes} bytes of it",
            claim.n_stored, claim.kind
        ));
    }
    let impossible = || {
        format!(
            "claims shape {:?} with strides {:?} from element {} of {}",
            claim.shape, claim.strides, claim.offset, claim.n_stored
        )
    };
    let Claim { shape, strides, .. } = claim;
    let no_negative = [shape, strides]
        .iter()
        .all(|list| list.iter().all(|d| *d >= 0));
    if shape.len() != strides.len() || !no_negative || claim.offset < 0 {
        return Err(impossible());
    }
    // Strides of zero would allow any shape from one element: there may be no more elements than are stored.
    let n = shape.iter().try_fold(1_i64, |n, &d| n.checked_mul(d));
    let span = shape
        .iter()
        .zip(strides)
        .try_fold(1_i64, |span, (&d, &stride)| {
            span.checked_add((d - 1).max(0).checked_mul(stride)?)
        });
    let (Some(n), Some(span)) = (n, span) else {
        return Err(impossible());
    };
    let span = if n == 0 { 0 } else { span };
    match claim.offset.checked_add(span) {
        Some(end) if end <= claim.n_stored && n <= claim.n_stored => {
            let at = |element: i64| entry.start + element as u64 * size;
            Ok(at(claim.offset)..at(end))
        }
        _ => Err(impossible()),
    }
}
