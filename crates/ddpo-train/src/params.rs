//! The tensors that training changes, in one order for good.

use tch::{Kind, Tensor};

use crate::{Error, Persist, Result, StateReader, StateWriter};

/// Named parameters, sorted by name: the order of reductions, optimiser state and files.
#[derive(Debug)]
pub struct ParamSet {
    names: Vec<String>,
    tensors: Vec<Tensor>,
}

impl ParamSet {
    /// Sorts by name. The tensors are shared with the caller, not copied.
    ///
    /// # Errors
    /// [`Error::Duplicate`].
    pub fn new(mut params: Vec<(String, Tensor)>) -> Result<Self> {
        params.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(pair) = params.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::Duplicate {
                name: pair[0].0.clone(),
            });
        }
        let (names, tensors) = params.into_iter().unzip();
        Ok(Self { names, tensors })
    }

    /// How many tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is nothing to train.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// How many numbers.
    pub fn numel(&self) -> usize {
        self.tensors.iter().map(Tensor::numel).sum()
    }

    /// The names, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The tensors, in the order of their names.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Names with tensors.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.names
            .iter()
            .map(String::as_str)
            .zip(self.tensors.iter())
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        let index = self.names.binary_search_by(|n| n.as_str().cmp(name)).ok()?;
        self.tensors.get(index)
    }

    /// Stops recording gradients.
    pub fn freeze(&self) {
        self.require_grad(false);
    }

    /// Records gradients from now on.
    pub fn thaw(&self) {
        self.require_grad(true);
    }

    fn require_grad(&self, on: bool) {
        for tensor in &self.tensors {
            let _same = tensor.set_requires_grad(on);
        }
    }

    /// Sets every gradient that exists to zero.
    pub fn zero_grad(&self) {
        for tensor in &self.tensors {
            tensor.shallow_clone().zero_grad();
        }
    }

    /// The gradients, in the order of the names; they share storage with the parameters' own.
    ///
    /// # Errors
    /// [`Error::NoGradient`] with the name of a parameter that no backward pass has reached.
    pub fn grads(&self) -> Result<Vec<Tensor>> {
        self.iter()
            .map(|(name, tensor)| {
                let grad = tensor.grad();
                if grad.defined() {
                    Ok(grad)
                } else {
                    Err(Error::NoGradient {
                        name: name.to_owned(),
                    })
                }
            })
            .collect()
    }

    /// Whether every number is finite. Waits for the device.
    pub fn all_finite(&self) -> bool {
        tch::no_grad(|| {
            self.tensors
                .iter()
                .all(|t| t.isfinite().all().int64_value(&[]) == 1)
        })
    }

    /// Kind of the first parameter; f32 if there is none.
    pub fn kind(&self) -> Kind {
        self.tensors.first().map_or(Kind::Float, Tensor::kind)
    }
}

impl Persist for ParamSet {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        for (name, tensor) in self.iter() {
            out.tensor(name, tensor);
        }
        Ok(())
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        from.expect_tensors(self.names.iter().map(String::as_str))?;
        for (name, tensor) in self.iter() {
            from.copy_into(name, tensor)?;
        }
        Ok(())
    }
}
