//! Accuracy of a judge, head by head, on scenes composed for each question.

use ddpo_model::Vae;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::Result;
use crate::artwork::{ArtworkSet, Pack};
use crate::judge::{Judge, JudgeOutput, Role};
use crate::pretrain::batch::compose;
use crate::pretrain::judges::labels;
use crate::scene::{Composer, Mixture, Scene};

/// Accuracy of a judge's heads on one kind of images, each over scenes where the question applies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeAccuracy {
    /// Which of the 45 training animals, on scenes of a single one.
    pub entity: TopKAccuracy,
    /// Which of them, on scenes with an activity.
    pub entity_active: TopKAccuracy,
    /// Which of them, on scenes of two to eight.
    pub entity_counted: TopKAccuracy,
    /// Which activity, on scenes with one; "none" is among the classes.
    pub activity: TopKAccuracy,
    /// No activity, on scenes of one animal and nothing else.
    pub no_activity: TopKAccuracy,
    /// How many, on scenes of two to eight; one is among the classes.
    pub count: TopKAccuracy,
    /// That there is one, on scenes of one.
    pub one: TopKAccuracy,
    /// Which unusual colour, on scenes like DPOK's prompts; "none" is among the classes.
    pub tint: TopKAccuracy,
    /// Which location, on scenes like DPOK's prompts; "none" is among the classes.
    pub place: TopKAccuracy,
}

/// The drawings that a judge is evaluated on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawings {
    /// Those of the sets that it was trained on.
    Own,
    /// Those of all other sets.
    Others,
}

impl Drawings {
    fn weights(self, role: Role) -> [f64; 7] {
        let mut sets = Mixture::default().sets;
        for set in ArtworkSet::ALL {
            let own = role.sets().contains(&set);
            if own != (self == Self::Own) {
                sets[set.index()] = 0.0;
            }
        }
        sets
    }
}

const SEED: u64 = 7_000;

impl JudgeAccuracy {
    /// Evaluates `judge` on `n` scenes per kind of training animals, reconstructed by `vae` if there is one.
    ///
    /// # Errors
    /// If scenes cannot be composed.
    pub fn of(
        judge: &Judge,
        role: Role,
        drawings: Drawings,
        vae: Option<&Vae>,
        pack: &Pack,
        n: u64,
    ) -> Result<Self> {
        let animals = Mixture {
            animals: 1.0,
            unseen_animals: 0.0,
            objects: 0.0,
            all_animals_active: true,
            sets: drawings.weights(role),
            ..Mixture::singles()
        };
        let asked = |mixture: Mixture| -> Result<(JudgeOutput, Vec<Scene>)> {
            let data = compose(&Composer::new(pack, mixture)?, SEED, 0..n);
            Ok((judge.forward_all(&data.images, vae), data.scenes))
        };
        let among: Vec<usize> = (0..pack.entities().len())
            .filter(|&i| pack.entities()[i].kind == crate::artwork::EntityKind::Animal)
            .collect();
        let entity = |(output, scenes): &(JudgeOutput, Vec<Scene>)| {
            let truth: Vec<usize> = scenes.iter().map(Scene::entity).collect();
            TopKAccuracy::of(&output.entity, &truth, &among)
        };
        let singles = asked(animals.clone())?;
        let active = asked(Mixture {
            activities: 1.0,
            ..animals.clone()
        })?;
        let counted = asked(Mixture {
            counting: 1.0,
            ..animals.clone()
        })?;
        let dpok = asked(Mixture {
            attributes: 1.0,
            ..animals
        })?;
        Ok(Self {
            entity: entity(&singles),
            entity_active: entity(&active),
            entity_counted: entity(&counted),
            activity: rate(&active.0.activity, &active.1, labels::activity),
            no_activity: rate(&singles.0.activity, &singles.1, labels::activity),
            count: rate(&counted.0.count, &counted.1, labels::count),
            one: rate(&singles.0.count, &singles.1, labels::count),
            tint: rate(&dpok.0.tint, &dpok.1, labels::tint),
            place: rate(&dpok.0.place, &dpok.1, labels::place),
        })
    }
}

fn rate(log_probs: &Tensor, scenes: &[Scene], label: fn(&Scene) -> usize) -> TopKAccuracy {
    let truth: Vec<usize> = scenes.iter().map(label).collect();
    let among: Vec<usize> = (0..log_probs.size()[1] as usize).collect();
    TopKAccuracy::of(log_probs, &truth, &among)
}

/// Top-1 and top-5 accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopKAccuracy {
    /// Top-1 accuracy, in [0, 1].
    pub first: f64,
    /// Top-5 accuracy, in [0, 1].
    pub top_five: f64,
    /// Images judged.
    pub n: usize,
}

impl TopKAccuracy {
    /// # Shapes
    /// - `log_probs`: `[batch, answers]`
    /// - `truth`: the index of the right class, one per image
    /// - `among`: the classes that compete; all others are ignored
    pub fn of(log_probs: &Tensor, truth: &[usize], among: &[usize]) -> Self {
        let columns = Tensor::from_slice(&among.iter().map(|&i| i as i64).collect::<Vec<_>>());
        let order = log_probs.index_select(1, &columns).argsort(1, true);
        let rank = |(row, &answer): (usize, &usize)| {
            let column = among
                .iter()
                .position(|&i| i == answer)
                .expect("the right class competes") as i64;
            (0..among.len() as i64)
                .find(|&r| order.int64_value(&[row as i64, r]) == column)
                .expect("a permutation")
        };
        let ranks: Vec<i64> = truth.iter().enumerate().map(rank).collect();
        let share = |k: i64| ranks.iter().filter(|&&r| r < k).count() as f64 / ranks.len() as f64;
        Self {
            first: share(1),
            top_five: share(5),
            n: ranks.len(),
        }
    }
}
