//! An epoch that is drawn and not whole scored: what a failed reward leaves behind.

use std::sync::Arc;

use ddpo_reward::{Images, Prompt, Score};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::rollout::prompts_of;
use crate::{
    Error, Persist, Result, RolloutRequest, StateReader, StateWriter, Ticket, TrainContext,
};

/// Images of an epoch and the scores that are known. What the algorithm took while they were drawn is its own state.
#[derive(Debug)]
pub(crate) struct PartialEpoch {
    pub(crate) epoch: u64,
    images: Vec<Arc<Images>>,
    /// One per image, over all batches.
    scores: Vec<Option<Score>>,
}

/// A score in a checkpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    value: f32,
    parts: Vec<f32>,
    answer: String,
}

impl PartialEpoch {
    /// Nothing yet, and what state is loaded into.
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            images: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// Adds a batch; which rows its images have.
    pub(crate) fn add(&mut self, images: Arc<Images>) -> Vec<usize> {
        let first = self.scores.len();
        self.scores.resize(first + images.len(), None);
        self.images.push(images);
        (first..self.scores.len()).collect()
    }

    /// Takes in what is known of these rows.
    pub(crate) fn take_in(&mut self, rows: &[usize], scores: Vec<Option<Score>>) {
        for (&row, score) in rows.iter().zip(scores) {
            self.scores[row] = score.or(self.scores[row].take());
        }
    }

    /// The scores that are known: one per image once nothing has failed.
    pub(crate) fn scores(self) -> Vec<Score> {
        self.scores.into_iter().flatten().collect()
    }

    /// Refuses to go on with other samples of the epoch than were drawn.
    pub(crate) fn check(&self, request: &RolloutRequest) -> Result<()> {
        let (drawn, n) = (self.scores.len(), request.sample_ids.len());
        if drawn == n {
            return Ok(());
        }
        let expected = format!(
            "the epoch that a reward failed in has {drawn} images of this rank: go on with as many samples and ranks"
        );
        Err(Error::config("samples of this rank", n, expected))
    }

    /// Puts the images without a score in the queue again, batch by batch.
    pub(crate) fn submit(
        &self,
        ctx: &TrainContext<'_>,
        request: &RolloutRequest,
    ) -> Vec<(Vec<usize>, Ticket)> {
        let (mut first, mut tickets) = (0, Vec::new());
        for images in &self.images {
            let open: Vec<usize> = (0..images.len())
                .filter(|at| self.scores[first + at].is_none())
                .collect();
            if !open.is_empty() {
                let rows: Vec<usize> = open.iter().map(|at| first + at).collect();
                let ids: Vec<u64> = rows.iter().map(|&row| request.sample_ids[row]).collect();
                let prompts: Vec<Prompt> = prompts_of(ctx, self.epoch, request, &ids);
                let ticket = ctx.rewards.submit(Arc::new(images.select(&open)), prompts);
                tickets.push((rows, ticket));
            }
            first += images.len();
        }
        tickets
    }
}

impl Persist for PartialEpoch {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("epoch", &self.epoch)?;
        let stored = |score: &Score| Stored {
            value: score.value,
            parts: score.parts.clone(),
            answer: score.answer.clone(),
        };
        let scores: Vec<Option<Stored>> = self
            .scores
            .iter()
            .map(|score| score.as_ref().map(stored))
            .collect();
        out.value("scores", &scores)?;
        out.value("batches", &self.images.len())?;
        for (i, images) in self.images.iter().enumerate() {
            let shape = images.view().dim();
            let shape = [shape.0, shape.1, shape.2, 3].map(|n| n as i64);
            let pixels = Tensor::from_slice(images.bytes()).view(shape);
            out.tensor(&format!("images.{i}"), &pixels);
        }
        Ok(())
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.epoch = from.value("epoch")?;
        let scores: Vec<Option<Stored>> = from.value("scores")?;
        let score = |stored: Stored| Score {
            value: stored.value,
            parts: stored.parts,
            answer: stored.answer,
        };
        self.scores = scores.into_iter().map(|stored| stored.map(score)).collect();
        let n_batches: usize = from.value("batches")?;
        let images = (0..n_batches).map(|i| load_images(from, &format!("images.{i}")));
        self.images = images.collect::<Result<_>>()?;
        let n: usize = self.images.iter().map(|images| images.len()).sum();
        if n != self.scores.len() {
            let reason = format!("has {} entries for {n} images", self.scores.len());
            return Err(from.refuse("scores", &reason));
        }
        Ok(())
    }
}

fn load_images(from: &StateReader, name: &str) -> Result<Arc<Images>> {
    let pixels = from.tensor(name)?;
    let &[n, height, width, 3] = pixels.size().as_slice() else {
        return Err(from.refuse(name, "is no batch of images"));
    };
    let bytes = Vec::<u8>::try_from(&pixels.flatten(0, -1)).map_err(Error::model)?;
    let images = Images::from_bytes(n as usize, height as usize, width as usize, bytes);
    images
        .map(Arc::new)
        .map_err(|error| from.refuse(name, &error.to_string()))
}
