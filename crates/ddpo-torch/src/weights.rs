//! Strict reading and writing of named tensors in safetensors files; `torch.save` files can be read as well.
//!
//! Models request each tensor by name and shape from a [`Scope`] of a [`Store`], which either reads a file or
//! initializes tensors from a seed, so that one constructor serves both loading and training from scratch.
//! [`Store::finish`] then reports every missing, unexpected and misshapen tensor at once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

pub use crate::file::{
    from_bytes, read_all, read_all_with_metadata, save, save_with_metadata, share_all, to_bytes,
};
use crate::pickle::Archive;
use crate::reader::Reader;
pub use crate::shards::shard_files;
use crate::{Error, Result, shards};

/// Initialization of a tensor without a file: torch's defaults are [`Init::Uniform`] with `1 / sqrt(fan_in)`.
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

enum Source {
    Files {
        name: String,
        readers: Vec<Reader>,
        /// The reader of each tensor; tensors that were requested are removed.
        unused: BTreeMap<String, usize>,
    },
    Pickled {
        archive: Archive,
        /// Tensors that were requested are removed.
        unused: BTreeSet<String>,
    },
    Random {
        seed: u64,
    },
}

/// Dtypes of weights.
const FLOATS: [Kind; 4] = [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16];

/// The largest finite value of f16.
const LARGEST_HALF: f64 = 65504.0;

/// Names of a tensor in older files, in order of preference.
pub type Aliases = fn(&str) -> Vec<String>;

struct Inner {
    source: Source,
    given: BTreeMap<String, Tensor>,
    faults: Vec<String>,
}

/// Provides named tensors and tracks which were requested.
pub struct Store {
    inner: RefCell<Inner>,
    device: Device,
    kind: Kind,
    aliases: Aliases,
    unneeded: Box<dyn Fn(&str) -> bool>,
}

impl Store {
    /// Reads from a safetensors file, or from a `torch.save` file of a dictionary of tensors; tensors have dtype
    /// `kind` and are on `device`. Only tensors are unpickled.
    ///
    /// On the CPU and in the file's own dtype, tensors are memory-mapped with copy on write: the file may be replaced
    /// or removed meanwhile, but not truncated. Otherwise tensors are read and converted one by one.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Damaged`] if its header is inconsistent, [`Error::Refused`] if a
    /// `torch.save` file holds anything but tensors.
    pub fn open(path: &Path, device: Device, kind: Kind) -> Result<Self> {
        if let Some(archive) = Archive::open(path)? {
            let unused = archive.names().into_iter().collect();
            return Ok(Self::new(Source::Pickled { archive, unused }, device, kind));
        }
        Ok(Self::of_reader(Reader::open(path)?, device, kind))
    }

    /// Like [`open`](Self::open), for sharded weights with an index (`*.safetensors.index.json`).
    ///
    /// # Errors
    /// Same as [`open`](Self::open); [`Error::Damaged`] if the index does not parse or does not match its files,
    /// with every tensor that is not in the listed file.
    pub fn sharded(index: &Path, device: Device, kind: Kind) -> Result<Self> {
        let (readers, unused) = shards::open(index)?;
        let name = index.display().to_string();
        let source = Source::Files {
            name,
            readers,
            unused,
        };
        Ok(Self::new(source, device, kind))
    }

    /// Reads from a safetensors file compiled into the program; `name` appears in errors.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its header is inconsistent.
    pub fn embedded(name: &str, bytes: &'static [u8], device: Device, kind: Kind) -> Result<Self> {
        Ok(Self::of_reader(
            Reader::of_bytes(name, bytes)?,
            device,
            kind,
        ))
    }

    /// Initializes every tensor at random, keyed by `seed` and the tensor's name, so that the order does not matter.
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
            unneeded: Box::new(|_| false),
        }
    }

    fn of_reader(reader: Reader, device: Device, kind: Kind) -> Self {
        let names = reader.index.names().into_iter();
        let source = Source::Files {
            name: reader.name.clone(),
            unused: names.map(|name| (name, 0)).collect(),
            readers: vec![reader],
        };
        Self::new(source, device, kind)
    }

    /// Accepts older names too.
    #[must_use]
    pub fn with_aliases(mut self, aliases: Aliases) -> Self {
        self.aliases = aliases;
        self
    }

    /// Allows tensors in the file that the model does not need, where `unneeded` returns true for the name.
    ///
    /// For a part of a larger model: CLIP's image tower in the file of both towers.
    #[must_use]
    pub fn with_unneeded(mut self, unneeded: impl Fn(&str) -> bool + 'static) -> Self {
        self.unneeded = Box::new(unneeded);
        self
    }

    /// The root scope.
    pub fn root(&self) -> Scope<'_> {
        Scope {
            store: self,
            prefix: String::new(),
        }
    }

    /// Whether the file has this tensor (always true for a random store).
    pub fn contains(&self, name: &str) -> bool {
        match &self.inner.borrow().source {
            Source::Files { unused, .. } => unused.contains_key(name),
            Source::Pickled { unused, .. } => unused.contains(name),
            Source::Random { .. } => true,
        }
    }

    /// Returns the tensors that were requested, by name, and checks that nothing is missing or unexpected.
    ///
    /// Buffers that are no weights (`position_ids`) may be unused; anything else may not.
    ///
    /// # Errors
    /// [`Error::Misfit`] with every missing, misshapen and unexpected tensor.
    pub fn finish(self) -> Result<BTreeMap<String, Tensor>> {
        let unneeded = self.unneeded;
        let Inner {
            source,
            given,
            mut faults,
        } = self.inner.into_inner();
        let (file, unused): (_, Vec<String>) = match source {
            Source::Files { name, unused, .. } => (name, unused.into_keys().collect()),
            Source::Pickled { archive, unused } => (archive.name, unused.into_iter().collect()),
            Source::Random { .. } => return Ok(given),
        };
        let extra = unused
            .iter()
            .filter(|n| !n.ends_with("position_ids") && !unneeded(n));
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
        let mut candidates = std::iter::once(name.to_owned()).chain((self.aliases)(name));
        let missing = || Err(format!("`{name}` is missing (expected shape {shape:?})"));
        let tensor = match source {
            Source::Random { seed } => Ok(draw(*seed, name, shape, init)),
            Source::Files {
                readers, unused, ..
            } => match candidates.find_map(|name| unused.remove_entry(&name)) {
                None => missing(),
                Some((found, reader)) => self.weight(&readers[reader], &found, shape),
            },
            Source::Pickled { archive, unused } => {
                match candidates.find(|name| unused.remove(name)) {
                    None => missing(),
                    Some(found) => self.unpickled(archive, &found, shape),
                }
            }
        };
        let tensor = tensor.unwrap_or_else(|fault| {
            faults.push(fault);
            // A placeholder, since `finish` reports the fault: one element expands to any shape.
            Tensor::zeros(vec![1; shape.len()], (Kind::Float, Device::Cpu))
        });
        let tensor = tensor.to_device(self.device).to_kind(self.kind);
        given.insert(name.to_owned(), tensor.shallow_clone());
        tensor
    }

    /// A tensor of a file, checked; memory-mapped if it needs no conversion.
    fn weight(
        &self,
        reader: &Reader,
        name: &str,
        shape: &[i64],
    ) -> std::result::Result<Tensor, String> {
        let place = reader.index.place(name, Some(shape))?;
        floating(name, place.kind)?;
        let as_it_is = place.kind == self.kind && self.device == Device::Cpu;
        let tensor = match as_it_is {
            true => reader.share(name, &place)?,
            false => reader.read(name, &place)?,
        };
        check(name, &tensor, self.kind)?;
        Ok(tensor)
    }

    /// A tensor of an archive, checked.
    fn unpickled(
        &self,
        archive: &Archive,
        name: &str,
        shape: &[i64],
    ) -> std::result::Result<Tensor, String> {
        let tensor = archive.tensor(name, shape)?;
        check_weight(name, &tensor, self.kind)?;
        Ok(tensor)
    }
}

/// A prefix of tensor names; `&scope / "conv_in"` appends to it.
pub struct Scope<'a> {
    store: &'a Store,
    prefix: String,
}

impl Scope<'_> {
    /// The tensor `name` in this scope.
    ///
    /// On an error it returns a placeholder, and [`Store::finish`] reports the error.
    pub fn tensor(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.store.fetch(&self.full(name), shape, init)
    }

    /// Whether there is a tensor of this name (always true for a random store).
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

/// Integer tensors are not weights: converting them would hide that it is the wrong file.
fn floating(name: &str, kind: Kind) -> std::result::Result<(), String> {
    match FLOATS.contains(&kind) {
        true => Ok(()),
        false => Err(format!(
            "`{name}` is of kind {kind:?}, expected a floating-point one"
        )),
    }
}

/// Refuses tensors that are not weights of `kind`: integers, values that are not finite, and values that `kind`
/// cannot represent. [`Store`] checks every tensor; [`read_all`] does not.
///
/// # Errors
/// One sentence with `name`, as [`Error::Misfit`] lists them.
pub fn check_weight(name: &str, tensor: &Tensor, kind: Kind) -> std::result::Result<(), String> {
    floating(name, tensor.kind())?;
    check(name, tensor, kind)
}

/// Refuses values that are not finite or that `kind` cannot represent.
fn check(name: &str, tensor: &Tensor, kind: Kind) -> std::result::Result<(), String> {
    if tensor.numel() == 0 {
        return Ok(());
    }
    // One pass without a temporary tensor; NaN propagates to both minimum and maximum.
    let (least, most) = tensor
        .f_aminmax(None, false)
        .map_err(|e| format!("`{name}`: {e}"))?;
    let (least, most) = (least.double_value(&[]), most.double_value(&[]));
    if !least.is_finite() || !most.is_finite() {
        return Err(format!("`{name}` has values that are not finite"));
    }
    let largest = most.max(-least);
    if kind == Kind::Half && largest > LARGEST_HALF {
        return Err(format!(
            "`{name}` has values up to {largest:.3e}, f16 ends at {LARGEST_HALF}: use bf16 or f32"
        ));
    }
    Ok(())
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

/// FNV-1a, 64 bit: hashes names to seeds.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}
