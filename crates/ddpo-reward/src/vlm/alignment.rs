//! Agreement of a description of the image with its prompt.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::chat::{Ask, Chat};
use super::{Encoding, fan};
use crate::reward::{check_batch, collect};
use crate::{Images, Prompt, Result, Reward, RewardError, RewardInfo, Score};

/// Similarity of two texts.
///
/// It must only depend on the pair: an implementation that pads must give the same number in any batch, so that
/// repeated runs have the same scores.
pub trait TextSimilarity: Send {
    /// Recall of `reference` in `candidate`: at most 1, higher if more of the reference is in the candidate.
    ///
    /// # Errors
    /// [`RewardError::Permanent`] if the model fails.
    fn recall(&mut self, candidate: &str, reference: &str) -> Result<f32>;

    /// Model and layer, for [`Reward::version`].
    fn version(&self) -> String;
}

/// The question to the model, and the reference that its answer is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wording {
    /// "what is happening in this image?", compared with the prompt (Black et al. 2023, section 5.3, Fig. 2).
    #[default]
    Paper,
    /// "Answer concisely: what is going on in this image?", compared with "The image contains {prompt}"
    /// (jannerm/ddpo `training/callbacks.py`, ddpo-pytorch `rewards.py`): what the published runs used.
    Code,
}

impl Wording {
    /// Names in configurations.
    pub const NAMES: [(&'static str, Self); 2] = [("paper", Self::Paper), ("code", Self::Code)];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Code => "code",
        }
    }

    /// The question.
    pub fn question(self) -> &'static str {
        match self {
            Self::Paper => "what is happening in this image?",
            Self::Code => "Answer concisely: what is going on in this image?",
        }
    }

    /// The reference that the answer is compared with.
    pub fn reference(self, prompt: &str) -> String {
        match self {
            Self::Paper => prompt.to_owned(),
            Self::Code => format!("The image contains {prompt}"),
        }
    }
}

/// BERTScore recall of the prompt in a vision-language model's description of the image: about 0.7 to 0.85
/// with the paper's models, at most 1, higher is better.
pub struct VlmBertScore {
    chat: Chat,
    similarity: Box<dyn TextSimilarity>,
    wording: Wording,
    encoding: Encoding,
}

impl VlmBertScore {
    /// The value of `reward.kind`.
    pub const NAME: &'static str = "vlm-bertscore";

    /// Asks `chat`, and compares with `similarity`.
    pub fn new(
        chat: Chat,
        similarity: Box<dyn TextSimilarity>,
        wording: Wording,
        encoding: Encoding,
    ) -> Self {
        Self {
            chat,
            similarity,
            wording,
            encoding,
        }
    }

    /// Quantity and unit of the score.
    pub fn quantity() -> RewardInfo {
        RewardInfo {
            quantity: "BERTScore recall of the prompt".to_owned(),
            unit: String::new(),
        }
    }
}

impl std::fmt::Debug for VlmBertScore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VlmBertScore")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl Reward for VlmBertScore {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        collect(self, images, prompts)
    }

    fn score_each(
        &mut self,
        images: &Images,
        prompts: &[Prompt],
        known: &mut dyn FnMut(usize, Score),
    ) -> Result<()> {
        check_batch(images, prompts)?;
        let urls = self.encoding.data_urls(images)?;
        let (chat, wording, similarity) = (&self.chat, self.wording, &mut self.similarity);
        let ask = |i: usize, stop: &_| {
            chat.ask(Ask {
                reward: Self::NAME,
                image: &urls[i],
                question: wording.question(),
                key: key(&prompts[i], i, 0),
                stop,
            })
        };
        // Texts are compared one by one as answers arrive: this overlaps with the requests, and scores do not
        // depend on padding.
        fan::each(
            images.len(),
            chat.config().in_flight,
            ask,
            &mut |i, answer| {
                let value = similarity.recall(&answer, &wording.reference(&prompts[i].text))?;
                if !value.is_finite() {
                    let reason = format!("similarity {value} of \"{answer}\"");
                    return Err(RewardError::bad_answer(Self::NAME, reason));
                }
                known(
                    i,
                    Score {
                        value,
                        parts: Vec::new(),
                        answer,
                    },
                );
                Ok(())
            },
        )
    }

    fn version(&self) -> String {
        let config = self.chat.config();
        format!(
            "1 model={} max_tokens={} wording={} encoding={} similarity={}",
            config.model,
            config.max_tokens,
            self.wording.name(),
            self.encoding.name(),
            self.similarity.version()
        )
    }

    fn info(&self) -> RewardInfo {
        Self::quantity()
    }
}

/// Identifies requests, the same in every run.
pub(super) fn key(prompt: &Prompt, image: usize, question: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&prompt.text, image, question).hash(&mut hasher);
    hasher.finish()
}
