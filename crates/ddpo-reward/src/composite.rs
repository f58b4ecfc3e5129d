//! Several rewards as one.

use std::collections::HashMap;

use crate::reward::{check_batch, collect};
use crate::{Images, Prompt, Result, Reward, RewardError, RewardInfo, Score};

/// A reward and its weight.
pub struct WeightedReward {
    /// The reward.
    pub reward: Box<dyn Reward>,
    /// Factor of its scores.
    pub weight: f64,
}

/// The weighted sum of other rewards.
///
/// `Σ weight · score`, summed in f64 in the order of the parts. [`Score::parts`] has each part's own score, so
/// that an algorithm can normalise them one by one before it adds them (`ddpo_rl::Ddpo::normalise_parts`): the weights
/// then apply to scores of equal spread, whatever their units.
pub struct Composite {
    parts: Vec<WeightedReward>,
}

impl Composite {
    /// The value of `reward.kind`.
    pub const NAME: &'static str = "composite";

    /// The weighted sum of these rewards.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] without a part, or with a weight that is 0 or not finite.
    pub fn new(parts: Vec<WeightedReward>) -> Result<Self> {
        if parts.is_empty() {
            return Err(RewardError::bad_input(
                "parts of a composite reward",
                "at least 1",
                0,
            ));
        }
        if let Some(part) = parts
            .iter()
            .find(|p| p.weight == 0.0 || !p.weight.is_finite())
        {
            let what = format!("weight of {}", part.reward.name());
            return Err(RewardError::bad_input(
                what,
                "a finite number but 0",
                part.weight,
            ));
        }
        Ok(Self { parts })
    }

    /// Quantity and unit of the score.
    pub fn quantity() -> RewardInfo {
        RewardInfo {
            quantity: "weighted sum of rewards".to_owned(),
            unit: String::new(),
        }
    }

    /// Weights of the parts, in order.
    pub fn weights(&self) -> Vec<f64> {
        self.parts.iter().map(|part| part.weight).collect()
    }
}

impl std::fmt::Debug for Composite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composite")
            .field("version", &self.version())
            .finish()
    }
}

impl Reward for Composite {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        collect(self, images, prompts)
    }

    /// Part after part; an image is known as soon as its last part is.
    ///
    /// When a part fails, what the parts before it said is lost, unless they are kept in a cache: put the part
    /// that fails most easily first.
    fn score_each(
        &mut self,
        images: &Images,
        prompts: &[Prompt],
        known: &mut dyn FnMut(usize, Score),
    ) -> Result<()> {
        check_batch(images, prompts)?;
        let weights = self.weights();
        let mut so_far: HashMap<usize, Score> = HashMap::new();
        let last = self.parts.len() - 1;
        for (p, part) in self.parts.iter_mut().enumerate() {
            let name = part.reward.name().to_owned();
            part.reward.score_each(images, prompts, &mut |i, score| {
                let all = so_far.entry(i).or_default();
                all.parts.push(score.value);
                if !score.answer.is_empty() {
                    let separator = if all.answer.is_empty() { "" } else { " | " };
                    all.answer += &format!("{separator}{name}: {}", score.answer);
                }
                if p == last
                    && let Some(mut all) = so_far.remove(&i)
                {
                    let terms = weights.iter().zip(&all.parts);
                    all.value = terms.map(|(w, &s)| w * f64::from(s)).sum::<f64>() as f32;
                    known(i, all);
                }
            })?;
            if p != last && so_far.values().any(|score| score.parts.len() != p + 1) {
                return Err(RewardError::bad_answer(name, "an image without a score"));
            }
        }
        Ok(())
    }

    fn version(&self) -> String {
        let parts = self.parts.iter();
        let parts: Vec<String> = parts
            .map(|p| {
                format!(
                    "{} × {} ({})",
                    p.weight,
                    p.reward.name(),
                    p.reward.version()
                )
            })
            .collect();
        parts.join(" + ")
    }

    fn parts(&self) -> Vec<String> {
        self.parts
            .iter()
            .map(|part| part.reward.name().to_owned())
            .collect()
    }

    fn info(&self) -> RewardInfo {
        Self::quantity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Colourfulness;

    /// The first byte of an image.
    struct FirstByte;

    impl Reward for FirstByte {
        fn name(&self) -> &str {
            "first-byte"
        }
        fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
            check_batch(images, prompts)?;
            Ok(images.iter_bytes().map(|rgb| f32::from(rgb[0])).collect())
        }
    }

    fn part(reward: impl Reward + 'static, weight: f64) -> WeightedReward {
        let reward = Box::new(reward);
        WeightedReward { reward, weight }
    }

    #[test]
    fn scores_add_up_with_their_weights_and_stay_apart_beside_the_sum() {
        let mut sum =
            Composite::new(vec![part(FirstByte, 2.0), part(Colourfulness, -0.5)]).unwrap();
        let images = Images::from_bytes(2, 1, 1, vec![8, 8, 8, 100, 0, 0]).unwrap();
        let prompts = crate::prompts::numbered(["a", "b"]);
        let colour = Colourfulness.score(&images, &prompts).unwrap();
        let mut scores = Vec::new();
        sum.score_each(&images, &prompts, &mut |i, s| scores.push((i, s)))
            .unwrap();
        assert_eq!(scores[0].1.value, 16.0 - 0.5 * colour[0]);
        assert_eq!(scores[1].1.value, 200.0 - 0.5 * colour[1]);
        assert_eq!(scores[1].1.parts, [100.0, colour[1]]);
        assert_eq!(sum.parts(), ["first-byte", "colourfulness"]);
        assert_eq!(
            sum.version(),
            "2 × first-byte (1) + -0.5 × colourfulness (1)"
        );
    }

    #[test]
    fn no_part_and_no_weight_are_refused() {
        assert!(Composite::new(Vec::new()).is_err());
        for weight in [0.0, f64::NAN, f64::INFINITY] {
            let error = Composite::new(vec![part(FirstByte, weight)]).unwrap_err();
            assert!(
                error.to_string().starts_with("weight of first-byte"),
                "{error}"
            );
        }
    }
}
