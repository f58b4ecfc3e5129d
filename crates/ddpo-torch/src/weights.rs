//! Named tensors in and out of safetensors files, strictly.
//!
//! A model is built by asking a [`Scope`] for each tensor by name and shape. Behind it stands a [`Store`] that
//! either reads a file or draws seeded random values, so one constructor serves loading and training from
//! nothing. [`Store::finish`] then reports every missing, extra and misshapen tensor at once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// How a tensor starts when there is no file: torch's own defaults are [`Init::Uniform`] with `1 / sqrt(fan_in)`.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Uniform in ±bound.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
}

/// The bytes of a safetensors file.
#[derive(Clone)]
enum Bytes {
    Mapped(Arc<memmap2::Mmap>),
    Static(&'static [u8]),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}

enum Source {
    File {
        name: String,
        bytes: Bytes,
        unused: BTreeSet<String>,
    },
    Random {
        seed: u64,
    },
}

/// Other names under which older files keep a tensor, best first.
pub type Aliases = fn(&str) -> Vec<String>;

struct Inner {
    source: Source,
    given: BTreeMap<String, Tensor>,
    faults: Vec<String>,
}

/// Hands out named tensors and keeps account of them.
pub struct Store {
    inner: RefCell<Inner>,
    device: Device,
    kind: Kind,
    aliases: Aliases,
}

impl Store {
    /// Reads from a safetensors file by memory map; tensors are converted to `kind` on `device`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be mapped, [`Error::Damaged`] if its header lies.
    pub fn open(path: &Path, device: Device, kind: Kind) -> Result<Self> {
        let io = |action| {
            move |source| Error::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let file = std::fs::File::open(path).map_err(io("open"))?;
        // SAFETY: the map is read-only and private to this process; a file that somebody truncates meanwhile
        // is outside what a loader can defend against (the same contract as in safetensors' own Python loader).
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io("map"))?;
        Self::from_bytes(
            path.display().to_string(),
            Bytes::Mapped(Arc::new(map)),
            device,
            kind,
        )
    }

    /// Reads from a safetensors file compiled into the program; `name` appears in errors.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its header lies.
    pub fn embedded(name: &str, bytes: &'static [u8], device: Device, kind: Kind) -> Result<Self> {
        Self::from_bytes(name.to_owned(), Bytes::Static(bytes), device, kind)
    }

    /// Draws every tensor at random, keyed by `seed` and the tensor's name: the order of asking does not matter.
    pub fn random(seed: u64, device: Device, kind: Kind) -> Self {
        Self::new(Source::Random { seed }, device, kind)
    }

    fn new(source: Source, device: Device, kind: Kind) -> Self {
        let inner = Inner {
            source,
            given: BTreeMap::new(),
            faults: Vec::new(),
        };
        Self {
            inner: RefCell::new(inner),
            device,
            kind,
            aliases: |_| Vec::new(),
        }
    }

    fn from_bytes(name: String, bytes: Bytes, device: Device, kind: Kind) -> Result<Self> {
        let unused = parse(&name, bytes.as_ref())?
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        Ok(Self::new(
            Source::File {
                name,
                bytes,
                unused,
            },
            device,
            kind,
        ))
    }

    /// Accepts older names too.
    #[must_use]
    pub fn with_aliases(mut self, aliases: Aliases) -> Self {
        self.aliases = aliases;
        self
    }

    /// The scope of all names.
    pub fn root(&self) -> Scope<'_> {
        Scope {
            store: self,
            prefix: String::new(),
        }
    }

    /// Whether the file has this tensor (always true of a random store).
    pub fn contains(&self, name: &str) -> bool {
        match &self.inner.borrow().source {
            Source::File { unused, .. } => unused.contains(name),
            Source::Random { .. } => true,
        }
    }

    /// Closes the account: the tensors handed out, by name.
    ///
    /// Buffers that carry no weights (`position_ids`) may be left over; anything else may not.
    ///
    /// # Errors
    /// [`Error::Misfit`] with every missing, misshapen and extra tensor.
    pub fn finish(self) -> Result<BTreeMap<String, Tensor>> {
        let Inner {
            source,
            given,
            mut faults,
        } = self.inner.into_inner();
        let Source::File {
            name: file, unused, ..
        } = source
        else {
            return Ok(given);
        };
        let extra = unused.iter().filter(|n| !n.ends_with("position_ids"));
        faults.extend(
            extra.map(|n| format!("`{n}` is in the file, but the model has no such tensor")),
        );
        if faults.is_empty() {
            Ok(given)
        } else {
            Err(Error::Misfit { file, faults })
        }
    }

    fn fetch(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let mut inner = self.inner.borrow_mut();
        let Inner {
            source,
            given,
            faults,
        } = &mut *inner;
        let tensor = match source {
            Source::Random { seed } => Ok(draw(*seed, name, shape, init)),
            Source::File { bytes, unused, .. } => {
                let candidates = std::iter::once(name.to_owned()).chain((self.aliases)(name));
                match candidates.into_iter().find(|n| unused.remove(n)) {
                    None => Err(format!("`{name}` is missing (expected shape {shape:?})")),
                    Some(found) => read(bytes.as_ref(), &found, shape),
                }
            }
        };
        let tensor = tensor.unwrap_or_else(|fault| {
            faults.push(fault);
            // The model is never used: `finish` reports the fault. A zero-stride view costs one element.
            Tensor::zeros([1], (Kind::Float, Device::Cpu)).expand(vec![1; shape.len()], true)
        });
        let tensor = tensor.to_device(self.device).to_kind(self.kind);
        given.insert(name.to_owned(), tensor.shallow_clone());
        tensor
    }
}

/// A place in the tree of names; `&scope / "conv_in"` goes one down.
pub struct Scope<'a> {
    store: &'a Store,
    prefix: String,
}

impl Scope<'_> {
    /// The tensor `name` below this place.
    ///
    /// On a fault a placeholder comes back and [`Store::finish`] will report it.
    pub fn tensor(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.store.fetch(&self.full(name), shape, init)
    }

    /// Whether a tensor of this name is there to be read (always true of a random store).
    pub fn contains(&self, name: &str) -> bool {
        let full = self.full(name);
        self.store.contains(&full)
            || (self.store.aliases)(&full)
                .iter()
                .any(|n| self.store.contains(n))
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}

impl<'a, S: std::fmt::Display> std::ops::Div<S> for &Scope<'a> {
    type Output = Scope<'a>;

    fn div(self, name: S) -> Scope<'a> {
        Scope {
            store: self.store,
            prefix: self.full(&name.to_string()),
        }
    }
}

/// Writes tensors as one safetensors file, sorted by name, through a temporary file and a rename.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn save<'t>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
) -> Result<()> {
    let views: Vec<(&str, Plain)> = tensors
        .into_iter()
        .map(|(n, t)| Ok((n, Plain::new(t)?)))
        .collect::<Result<_>>()?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let temporary = PathBuf::from(format!("{}.part", path.display()));
    let io = |reason: std::io::Error| Error::Io {
        action: "write",
        path: path.to_owned(),
        source: reason,
    };
    safetensors::serialize_to_file(views, Some(metadata), &temporary)
        .map_err(|reason| io(std::io::Error::other(reason.to_string())))?;
    std::fs::File::open(&temporary)
        .and_then(|f| f.sync_all())
        .map_err(io)?;
    std::fs::rename(&temporary, path).map_err(io)
}

/// Every tensor of a safetensors file, by name, in the file's own dtypes, on the CPU.
///
/// # Errors
/// As [`Store::open`].
pub fn read_all(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let io = |source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::read(path).map_err(io)?;
    let file = path.display().to_string();
    let parsed = parse(&file, &bytes)?;
    let one = |(name, view): (String, TensorView<'_>)| {
        let tensor = to_tensor(&view).map_err(|reason| Error::Damaged {
            file: file.clone(),
            reason,
        })?;
        Ok((name, tensor))
    };
    parsed.tensors().into_iter().map(one).collect()
}

fn parse<'b>(file: &str, bytes: &'b [u8]) -> Result<SafeTensors<'b>> {
    SafeTensors::deserialize(bytes).map_err(|e| Error::Damaged {
        file: file.to_owned(),
        reason: e.to_string(),
    })
}

fn read(bytes: &[u8], name: &str, shape: &[i64]) -> std::result::Result<Tensor, String> {
    let parsed = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let view = parsed.tensor(name).map_err(|e| e.to_string())?;
    let actual: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    if actual != shape {
        return Err(format!("`{name}` has shape {actual:?}, expected {shape:?}"));
    }
    to_tensor(&view)
}

fn to_tensor(view: &TensorView<'_>) -> std::result::Result<Tensor, String> {
    let kind = match view.dtype() {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        other => return Err(format!("dtype {other:?} is not supported")),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|e| e.to_string())
}

fn draw(seed: u64, name: &str, shape: &[i64], init: Init) -> Tensor {
    let n: i64 = shape.iter().product();
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ fnv1a(name));
    let mut uniform = || rng.random::<f64>();
    let values: Vec<f32> = match init {
        Init::Zeros => vec![0.0; n as usize],
        Init::Ones => vec![1.0; n as usize],
        Init::Uniform(bound) => (0..n)
            .map(|_| ((2.0 * uniform() - 1.0) * bound) as f32)
            .collect(),
        Init::Normal(std) => (0..n)
            .map(|_| {
                // Box-Muller; 1 - u lies in (0, 1], so the logarithm is finite.
                let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
                (std * radius * (std::f64::consts::TAU * uniform()).cos()) as f32
            })
            .collect(),
    };
    Tensor::from_slice(&values).view(shape)
}

/// FNV-1a, 64 bit: spreads names over seeds; no adversary here.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

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
        let dtype = match kind {
            Kind::Double => Dtype::F64,
            Kind::Float => Dtype::F32,
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Int64 => Dtype::I64,
            Kind::Int => Dtype::I32,
            Kind::Uint8 => Dtype::U8,
            Kind::Bool => Dtype::BOOL,
            other => {
                return Err(
                    tch::TchError::Kind(format!("cannot save a tensor of kind {other:?}")).into(),
                );
            }
        };
        let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        Ok(Self {
            dtype,
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
