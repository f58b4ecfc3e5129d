//! Questions with a right answer.

use super::alignment::key;
use super::chat::{Ask, Chat};
use super::{Encoding, counting_questions, fan};
use crate::reward::{check_batch, collect};
use crate::{Images, Prompt, Result, Reward, RewardInfo, Score};

/// A question about a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub ask: String,
    /// What the answer must contain, letter by letter.
    pub expect: String,
}

/// What is asked about a picture of a prompt.
type Questions = dyn Fn(&Prompt) -> Result<Vec<Question>> + Send;

/// The part of a prompt's questions whose answer contains the expected text: 0 to 1.
///
/// Case-sensitive, no partial credit for near answers (ddpo-pytorch `rewards.py`,
/// `llava_strict_satisfaction`; jannerm/ddpo `llava_vqa`). A model that talks much scores better, and a picture
/// that shows the words does too: this is what the paper's Fig. 7 shows being exploited.
pub struct Vqa {
    name: String,
    chat: Chat,
    encoding: Encoding,
    questions: Box<Questions>,
}

impl Vqa {
    /// Kind of [`counting`](Self::counting) in configurations.
    pub const COUNTING: &'static str = "vlm-counting";

    /// A reward called `name` that asks `questions` of each prompt.
    pub fn new(
        name: impl Into<String>,
        chat: Chat,
        encoding: Encoding,
        questions: impl Fn(&Prompt) -> Result<Vec<Question>> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            chat,
            encoding,
            questions: Box::new(questions),
        }
    }

    /// How many, and which animal: 0, ½ or 1, for prompts such as "six monkeys".
    pub fn counting(chat: Chat, encoding: Encoding) -> Self {
        Self::new(Self::COUNTING, chat, encoding, counting_questions)
    }

    /// What it measures.
    pub fn quantity() -> RewardInfo {
        RewardInfo {
            quantity: "questions answered as expected".to_owned(),
            unit: String::new(),
        }
    }
}

impl std::fmt::Debug for Vqa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vqa")
            .field("name", &self.name)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl Reward for Vqa {
    fn name(&self) -> &str {
        &self.name
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
        // All questions first: a prompt that cannot be asked about is found before the first request.
        let questions: Vec<Vec<Question>> =
            prompts.iter().map(&self.questions).collect::<Result<_>>()?;
        let urls = self.encoding.data_urls(images)?;
        let (chat, name) = (&self.chat, self.name.as_str());
        let jobs: Vec<(usize, usize)> = (0..images.len())
            .flat_map(|i| (0..questions[i].len()).map(move |q| (i, q)))
            .collect();
        let ask = |job: usize, stop: &_| {
            let (i, q) = jobs[job];
            chat.ask(Ask {
                reward: name,
                image: &urls[i],
                question: &questions[i][q].ask,
                key: key(&prompts[i], i, q),
                stop,
            })
        };
        let mut answers: Vec<Vec<Option<String>>> = questions
            .iter()
            .map(|asked| vec![None; asked.len()])
            .collect();
        fan::each(
            jobs.len(),
            chat.config().in_flight,
            ask,
            &mut |job, answer| {
                let (i, q) = jobs[job];
                answers[i][q] = Some(answer);
                if let Some(all) = answers[i].iter().cloned().collect::<Option<Vec<String>>>() {
                    known(i, judge(&questions[i], &all));
                }
                Ok(())
            },
        )
    }

    fn version(&self) -> String {
        let config = self.chat.config();
        format!(
            "1 model={} max_tokens={} encoding={}",
            config.model,
            config.max_tokens,
            self.encoding.name()
        )
    }

    fn info(&self) -> RewardInfo {
        Self::quantity()
    }
}

fn judge(questions: &[Question], answers: &[String]) -> Score {
    let pairs = questions.iter().zip(answers);
    let n_right = pairs
        .filter(|(question, answer)| answer.contains(&question.expect))
        .count();
    Score {
        value: n_right as f32 / questions.len() as f32,
        parts: Vec::new(),
        answer: answers.join(" | "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_the_part_of_right_answers_and_case_counts() {
        let questions = counting_questions(&Prompt::new(0, "six monkeys")).unwrap();
        let score = |answers: [&str; 2]| judge(&questions, &answers.map(str::to_owned)).value;
        assert_eq!(score(["There are six.", "a monkey"]), 1.0);
        assert_eq!(score(["There are Six.", "a monkey"]), 0.5);
        assert_eq!(score(["6", "an ape"]), 0.0);
        // A substring, as in the reference: "sixty" has "six".
        assert_eq!(score(["sixty", "monkeys"]), 1.0);
    }
}
