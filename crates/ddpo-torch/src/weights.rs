//! Named tensors in and out of safetensors files, strictly.
//!
//! A model is built by asking a [`Scope`] for each tensor by name and shape. Behind it stands a [`Store`] that
//! either reads a file or draws seeded random values, so one constructor serves loading and training from
//! nothing. [`Store::finish`] then reports every missing, extra and misshapen tensor at once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::file::Index;
pub use crate::file::{read_all, read_all_with_metadata, save, save_with_metadata};
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
        index: Index,
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
        let index = Index::new(&name, bytes.as_ref())?;
        let unused = index.names().into_iter().collect();
        Ok(Self::new(
            Source::File {
                name,
                bytes,
                index,
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
            Source::File {
                bytes,
                index,
                unused,
                ..
            } => {
                let candidates = std::iter::once(name.to_owned()).chain((self.aliases)(name));
                match candidates.into_iter().find(|n| unused.remove(n)) {
                    None => Err(format!("`{name}` is missing (expected shape {shape:?})")),
                    Some(found) => index
                        .tensor(bytes.as_ref(), &found, Some(shape))
                        .and_then(|tensor| floating(&found, tensor)),
                }
            }
        };
        let tensor = tensor.unwrap_or_else(|fault| {
            faults.push(fault);
            // The model is never used: `finish` reports the fault. One element has any number of dimensions.
            Tensor::zeros(vec![1; shape.len()], (Kind::Float, Device::Cpu))
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

/// Whole numbers are no weights: converting them would hide that the file is another one.
fn floating(name: &str, tensor: Tensor) -> std::result::Result<Tensor, String> {
    match tensor.kind() {
        Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16 => Ok(tensor),
        other => Err(format!(
            "`{name}` is of kind {other:?}, expected a floating-point one"
        )),
    }
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
