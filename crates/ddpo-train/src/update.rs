//! The end of an update: average over ranks, clip, AdamW; or skip it, because a number is not finite.

use crate::{
    Error, Event, Meter, Metrics, Persist, Result, StateReader, StateWriter, TrainContext,
};

/// Where in a run an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateIndex {
    /// Which epoch, from 0.
    pub epoch: u64,
    /// Which update of it, from 0.
    pub update: usize,
    /// How many updates the epoch has.
    pub n_updates: usize,
}

/// Why gradients must not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// What was not finite, and where.
    NotFinite(String),
    /// A loss scale was too large; it is smaller by now, and the next update may succeed.
    Overflow(String),
}

/// Applies updates, and skips those whose numbers are not finite, up to a number in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Updater {
    max_grad_norm: f64,
    max_skipped: u32,
    skipped_in_a_row: u32,
}

impl Updater {
    /// Clips gradients to a global norm of `max_grad_norm`; `max_skipped` skipped updates in a row end the run.
    pub fn new(max_grad_norm: f64, max_skipped: u32) -> Self {
        Self {
            max_grad_norm,
            max_skipped,
            skipped_in_a_row: 0,
        }
    }

    /// Averages the accumulated gradients over ranks and lets the optimiser use them, unless `fault` on any rank says
    /// what was not finite: then gradients are set to zero and observers are told.
    ///
    /// `stats` has the means of this update on this rank. They are averaged over ranks and end up in `epoch_stats`; a
    /// skipped update is counted there and nothing else.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if too many updates in a row were skipped; what the optimiser or a rank reports.
    pub fn apply(
        &mut self,
        ctx: &mut TrainContext<'_>,
        at: UpdateIndex,
        fault: Option<Fault>,
        mut stats: Meter,
        epoch_stats: &mut Meter,
    ) -> Result<()> {
        let reason = if ctx.any_rank(fault.is_some())? {
            ctx.policy.params().zero_grad();
            // A loss scale that was too large is smaller by now, and ends the run itself when it cannot be.
            // Ranks agree on what counts, or one of them would end the run alone.
            let counts = matches!(fault, Some(Fault::NotFinite(_)));
            if ctx.any_rank(counts)? {
                self.skipped_in_a_row += 1;
            }
            match fault {
                Some(Fault::NotFinite(text) | Fault::Overflow(text)) => text,
                None => "on another rank".to_owned(),
            }
        } else {
            let grads = ctx.policy.params().grads()?;
            ctx.collective.all_reduce_mean(&grads)?;
            match ctx.optimizer.step(ctx.policy.params(), self.max_grad_norm) {
                Ok(norm) => {
                    self.skipped_in_a_row = 0;
                    if let Some(scale) = ctx.policy.loss_scale() {
                        scale.stepped();
                    }
                    stats.all_reduce(ctx.collective, ctx.device)?;
                    stats.add("policy/grad_norm", norm.norm);
                    stats.add("policy/updates", 1.0);
                    epoch_stats.merge(&stats);
                    let mut report = Metrics::default();
                    stats.report(&mut report);
                    return ctx.emit(&Event::UpdateDone {
                        at,
                        report: &report,
                    });
                }
                Err(Error::NonFinite { what, detail }) => {
                    self.skipped_in_a_row += 1;
                    format!("{what} {detail}")
                }
                Err(other) => return Err(other),
            }
        };
        epoch_stats.add("policy/updates_skipped", 1.0);
        self.skip(ctx, at, &reason)
    }

    /// Tells observers, and ends the run when it was once too often.
    fn skip(&self, ctx: &mut TrainContext<'_>, at: UpdateIndex, reason: &str) -> Result<()> {
        let in_a_row = self.skipped_in_a_row;
        ctx.emit(&Event::UpdateSkipped {
            at,
            reason,
            in_a_row,
        })?;
        if in_a_row < self.max_skipped {
            return Ok(());
        }
        let UpdateIndex { epoch, update, .. } = at;
        Err(Error::NonFinite {
            what: "training",
            detail: format!(
                "epoch {epoch}, update {update}: {reason}; {in_a_row} updates in a row skipped"
            ),
        })
    }
}

impl Persist for Updater {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("skipped_in_a_row", &self.skipped_in_a_row)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.skipped_in_a_row = from.value("skipped_in_a_row")?;
        Ok(())
    }
}
