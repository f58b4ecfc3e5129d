//! State on its way to disk and back: tensors and small values under dotted names.
//!
//! The first part of a name is the component (`policy`, `optimizer`, …) and becomes the file's name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::Tensor;

use crate::{Error, Result};

/// Something whose state must survive a restart.
///
/// What `save` writes, `load` restores to the bit: a run that goes on from it cannot be told from one that was
/// never interrupted.
pub trait Persist {
    /// Writes all state.
    ///
    /// # Errors
    /// If a value cannot be represented.
    fn save(&self, out: &mut StateWriter) -> Result<()>;

    /// Restores all state, in place.
    ///
    /// # Errors
    /// [`Error::State`] with the name of an entry that is missing or does not fit.
    fn load(&mut self, from: &StateReader) -> Result<()>;
}

/// Collects state.
#[derive(Debug, Default)]
pub struct StateWriter {
    prefix: String,
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) values: BTreeMap<String, Value>,
}

impl StateWriter {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor; it is read when the state is written, so do not change it before.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor) {
        self.tensors.insert(
            format!("{}{name}", self.prefix),
            tensor.detach().to_device(tch::Device::Cpu).contiguous(),
        );
    }

    /// Adds a small value. Floats survive exactly, but must be finite.
    ///
    /// # Errors
    /// [`Error::State`] if it has no JSON form.
    pub fn value<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<()> {
        let name = format!("{}{name}", self.prefix);
        match serde_json::to_value(value) {
            Ok(json) => {
                self.values.insert(name, json);
                Ok(())
            }
            Err(reason) => Err(Error::State {
                file: "new checkpoint".to_owned(),
                name,
                reason: reason.to_string(),
            }),
        }
    }

    /// Adds all state of `item` under `name`.
    ///
    /// # Errors
    /// What `item` reports.
    pub fn nested(&mut self, name: &str, item: &(impl Persist + ?Sized)) -> Result<()> {
        let outer = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        let result = item.save(self);
        self.prefix.truncate(outer);
        result
    }

    /// What was written, ready to be read, without going through a file.
    pub fn into_reader(self) -> StateReader {
        StateReader::new("memory".to_owned(), self.tensors, self.values)
    }
}

/// Hands out state.
#[derive(Debug)]
pub struct StateReader {
    file: String,
    tensors: BTreeMap<String, Tensor>,
    values: BTreeMap<String, Value>,
}

impl StateReader {
    pub(crate) fn new(
        file: String,
        tensors: BTreeMap<String, Tensor>,
        values: BTreeMap<String, Value>,
    ) -> Self {
        Self {
            file,
            tensors,
            values,
        }
    }

    /// Whether there is anything, tensor or value, of this name or below it.
    pub fn contains(&self, name: &str) -> bool {
        let below = format!("{name}.");
        let found = |key: &String| key == name || key.starts_with(&below);
        self.tensors.keys().any(found) || self.values.keys().any(found)
    }

    /// The tensor `name`, on the CPU, in the kind that it was saved in.
    ///
    /// # Errors
    /// [`Error::State`] if there is none.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let found = self.tensors.get(name).map(Tensor::shallow_clone);
        found.ok_or_else(|| self.refuse(name, "is missing"))
    }

    /// Copies the tensor `name` into `target`, in place.
    ///
    /// # Errors
    /// [`Error::State`] unless it is there in the shape and kind of `target`.
    pub fn copy_into(&self, name: &str, target: &Tensor) -> Result<()> {
        let source = self.tensor(name)?;
        let (expected, actual) = (
            (target.kind(), target.size()),
            (source.kind(), source.size()),
        );
        if expected != actual {
            return Err(self.refuse(
                name,
                &format!(
                    "is {:?} {:?}, expected {:?} {:?}",
                    actual.0, actual.1, expected.0, expected.1
                ),
            ));
        }
        tch::no_grad(|| target.shallow_clone().copy_(&source));
        Ok(())
    }

    /// Refuses tensors that nobody asked for.
    ///
    /// # Errors
    /// [`Error::State`] with the first tensor that is not among `names`.
    pub fn expect_tensors<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<()> {
        let expected: std::collections::BTreeSet<&str> = names.collect();
        match self.tensors.keys().find(|n| !expected.contains(n.as_str())) {
            None => Ok(()),
            Some(extra) => Err(self.refuse(extra, "is not part of what is loaded")),
        }
    }

    /// The small value `name`.
    ///
    /// # Errors
    /// [`Error::State`] if it is missing or of another type.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let json = self
            .values
            .get(name)
            .ok_or_else(|| self.refuse(name, "is missing"))?;
        T::deserialize(json).map_err(|reason| self.refuse(name, &reason.to_string()))
    }

    /// Restores `item` from what lies under `name`.
    ///
    /// # Errors
    /// What `item` reports.
    pub fn nested(&self, name: &str, item: &mut (impl Persist + ?Sized)) -> Result<()> {
        item.load(&self.below(name))
    }

    fn below(&self, name: &str) -> Self {
        let prefix = format!("{name}.");
        let strip = |key: &String| key.strip_prefix(&prefix).map(str::to_owned);
        Self {
            file: format!("{}: {name}", self.file),
            tensors: self
                .tensors
                .iter()
                .filter_map(|(key, tensor)| Some((strip(key)?, tensor.shallow_clone())))
                .collect(),
            values: self
                .values
                .iter()
                .filter_map(|(key, value)| Some((strip(key)?, value.clone())))
                .collect(),
        }
    }

    /// The error that entry `name` does not fit, for a reason.
    pub fn refuse(&self, name: &str, reason: &str) -> Error {
        Error::State {
            file: self.file.clone(),
            name: name.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// State of something that is not there at the moment, passed on as it is.
impl Persist for StateReader {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        for (name, tensor) in &self.tensors {
            out.tensor(name, tensor);
        }
        self.values
            .iter()
            .try_for_each(|(name, value)| out.value(name, value))
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.file.clone_from(&from.file);
        self.tensors = from
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect();
        self.values.clone_from(&from.values);
        Ok(())
    }
}
