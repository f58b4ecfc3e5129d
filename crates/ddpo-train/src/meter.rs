//! Means over the training of an epoch, by the names that they are logged under.

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::{Collective, Error, Metrics, Result};

/// Running means and counts in f64 on the host. Names are declared once, in the order in which they are shown, so that
/// the columns of a table do not depend on what happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Meter {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    total: f64,
    /// How many values; none for a count.
    n: Option<f64>,
}

impl Meter {
    /// Means of these names, not a number until there is a value.
    pub fn of_means(names: &[&str]) -> Self {
        let entries = names.iter().map(|&name| Entry::new(name, Some(0.0)));
        Self {
            entries: entries.collect(),
        }
    }

    /// Means of these names and what [`Updater`](crate::Updater) adds to them: the gradient's norm before clipping, and
    /// how many updates were made and skipped.
    pub fn of_updates(names: &[&str]) -> Self {
        let mut meter = Self::of_means(names);
        let counts = ["policy/updates", "policy/updates_skipped"];
        let counts = counts.map(|name| Entry::new(name, None));
        meter
            .entries
            .push(Entry::new("policy/grad_norm", Some(0.0)));
        meter.entries.extend(counts);
        meter
    }

    /// Takes in a value of a mean, or adds to a count; a name that was not declared is declared last, as a mean.
    pub fn add(&mut self, name: &str, value: f64) {
        let at = self.entries.iter().position(|entry| entry.name == name);
        let at = at.unwrap_or_else(|| {
            self.entries.push(Entry::new(name, Some(0.0)));
            self.entries.len() - 1
        });
        let entry = &mut self.entries[at];
        entry.total += value;
        entry.n = entry.n.map(|n| n + 1.0);
    }

    /// Takes in all values of another meter.
    pub fn merge(&mut self, other: &Self) {
        for from in &other.entries {
            match self.entries.iter_mut().find(|to| to.name == from.name) {
                Some(to) => {
                    to.total += from.total;
                    to.n = to.n.zip(from.n).map(|(a, b)| a + b);
                }
                None => self.entries.push(from.clone()),
            }
        }
    }

    /// The mean over ranks of every sum, on every rank; ranks must have declared the same names.
    ///
    /// # Errors
    /// [`Error::Collective`].
    pub fn all_reduce(&mut self, collective: &dyn Collective, device: Device) -> Result<()> {
        let sums = self
            .entries
            .iter()
            .flat_map(|e| [e.total, e.n.unwrap_or(0.0)]);
        let sums = Tensor::from_slice(&sums.collect::<Vec<_>>()).to_device(device);
        collective.all_reduce_mean(std::slice::from_ref(&sums))?;
        let reduced = Vec::<f64>::try_from(&sums.to_device(Device::Cpu)).map_err(Error::model)?;
        for (entry, sums) in self.entries.iter_mut().zip(reduced.chunks_exact(2)) {
            entry.total = sums[0];
            entry.n = entry.n.map(|_| sums[1]);
        }
        Ok(())
    }

    /// All means and counts.
    pub fn report(&self, out: &mut Metrics) {
        for Entry { name, total, n } in &self.entries {
            out.push(name, n.map_or(*total, |n| total / n));
        }
    }
}

impl Entry {
    fn new(name: &str, n: Option<f64>) -> Self {
        let (name, total) = (name.to_owned(), 0.0);
        Self { name, total, n }
    }
}
