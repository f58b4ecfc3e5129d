//! Ranks that train one policy together.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tch::Tensor;

use crate::{Error, Result};

/// A group of ranks. Every rank makes the same calls in the same order.
pub trait Collective {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world(&self) -> usize;

    /// Replaces each tensor, in place, by its mean over the ranks, summed in the order of ranks.
    ///
    /// # Errors
    /// [`Error::Collective`] if a rank is gone.
    fn all_reduce_mean(&self, tensors: &[Tensor]) -> Result<()>;

    /// The tensors of all ranks, in the order of ranks, one after the other along the first dimension.
    ///
    /// # Errors
    /// [`Error::Collective`] if a rank is gone.
    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor>;

    /// Replaces each tensor, in place, by that of rank 0.
    ///
    /// # Errors
    /// [`Error::Collective`] if a rank is gone.
    fn broadcast(&self, tensors: &[Tensor]) -> Result<()>;
}

/// One rank.
#[derive(Debug, Clone, Copy, Default)]
pub struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_reduce_mean(&self, _tensors: &[Tensor]) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.shallow_clone())
    }

    fn broadcast(&self, _tensors: &[Tensor]) -> Result<()> {
        Ok(())
    }
}

/// Ranks that are threads of one process: for tests, and for what is too small for processes.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world: usize,
    state: Mutex<Meeting>,
    changed: Condvar,
}

/// One exchange: ranks bring their tensors, then take everybody's.
#[derive(Debug, Default)]
struct Meeting {
    brought: Vec<Option<Vec<Tensor>>>,
    n_taken: usize,
    broken: bool,
}

impl Threads {
    /// One handle per rank.
    pub fn group(world: usize) -> Vec<Self> {
        let shared = Arc::new(Shared {
            world,
            state: Mutex::new(Meeting {
                brought: (0..world).map(|_| None).collect(),
                ..Meeting::default()
            }),
            changed: Condvar::new(),
        });
        (0..world)
            .map(|rank| Self {
                rank,
                shared: Arc::clone(&shared),
            })
            .collect()
    }

    /// Everybody's tensors, by rank.
    fn exchange(&self, tensors: &[Tensor]) -> Result<Vec<Vec<Tensor>>> {
        let mine = tensors.iter().map(|t| t.detach().copy()).collect();
        // The previous exchange must be over before a new one begins.
        let mut meeting = self.wait(self.lock(), |m| m.brought[self.rank].is_none())?;
        meeting.brought[self.rank] = Some(mine);
        self.shared.changed.notify_all();
        let mut meeting = self.wait(meeting, |m| m.brought.iter().all(Option::is_some))?;
        let all = meeting
            .brought
            .iter()
            .flatten()
            .map(|list| list.iter().map(Tensor::copy).collect())
            .collect();
        meeting.n_taken += 1;
        if meeting.n_taken == self.shared.world {
            meeting.n_taken = 0;
            meeting.brought.iter_mut().for_each(|slot| *slot = None);
            self.shared.changed.notify_all();
        }
        Ok(all)
    }

    fn lock(&self) -> MutexGuard<'_, Meeting> {
        let locked = self.shared.state.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'m>(
        &self,
        mut meeting: MutexGuard<'m, Meeting>,
        ready: impl Fn(&Meeting) -> bool,
    ) -> Result<MutexGuard<'m, Meeting>> {
        while !ready(&meeting) {
            if meeting.broken {
                return Err(Error::Collective { rank: self.rank });
            }
            let woken = self.shared.changed.wait(meeting);
            meeting = woken.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(meeting)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.lock().broken = true;
        self.shared.changed.notify_all();
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.shared.world
    }

    fn all_reduce_mean(&self, tensors: &[Tensor]) -> Result<()> {
        let all = self.exchange(tensors)?;
        tch::no_grad(|| {
            for (i, tensor) in tensors.iter().enumerate() {
                let mut sum = all[0][i].copy();
                for other in &all[1..] {
                    sum += &other[i];
                }
                tensor
                    .shallow_clone()
                    .copy_(&(sum / self.shared.world as f64));
            }
        });
        Ok(())
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        let all = self.exchange(std::slice::from_ref(tensor))?;
        let parts: Vec<&Tensor> = all.iter().flatten().collect();
        Ok(Tensor::cat(&parts, 0))
    }

    fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        let all = self.exchange(tensors)?;
        tch::no_grad(|| {
            for (tensor, first) in tensors.iter().zip(&all[0]) {
                tensor.shallow_clone().copy_(first);
            }
        });
        Ok(())
    }
}
