//! Visual question answering.

use super::alignment::key;
use super::chat::{Ask, Chat};
use super::{Encoding, counting_questions, fan};
use crate::reward::{check_batch, collect};
use crate::{Images, Prompt, Result, Reward, RewardError, RewardInfo, Score};

/// A question about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The question.
    pub ask: String,
    /// What the answer must contain, verbatim.
    pub expect: String,
}

/// The questions about an image, by its prompt.
type Questions = dyn Fn(&Prompt) -> Result<Vec<Question>> + Send;

/// The share of questions whose answer contains the expected text: 0 to 1.
///
/// Case-sensitive, no partial credit for near answers (ddpo-pytorch `rewards.py`,
/// `llava_strict_satisfaction`; jannerm/ddpo `llava_vqa`). Verbose models score higher, and so do images
/// that contain the words as text: this is the exploit that the paper's Fig. 7 shows.
pub struct Vqa {
    name: String,
    chat: Chat,
    encoding: Encoding,
    questions: Box<Questions>,
    /// The questions as part of the version.
    asked: String,
}

impl Vqa {
    /// Kind of [`counting`](Self::counting) in configurations.
    pub const COUNTING: &'static str = "vlm-counting";
    /// Kind of [`of_every_prompt`](Self::of_every_prompt) in configurations.
    pub const OF_EVERY_PROMPT: &'static str = "vlm-vqa";
    /// Placeholder of the prompt's text in questions of [`of_every_prompt`](Self::of_every_prompt).
    pub const PROMPT: &'static str = "{prompt}";

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
            asked: String::new(),
        }
    }

    /// How many, and which animal: 0, ½ or 1, for prompts such as "six monkeys".
    pub fn counting(chat: Chat, encoding: Encoding) -> Self {
        Self::new(Self::COUNTING, chat, encoding, counting_questions)
    }

    /// The same questions about every image, with `{prompt}` in them replaced by its prompt.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] without a question, or with an empty expected answer, which every answer contains.
    pub fn of_every_prompt(
        chat: Chat,
        encoding: Encoding,
        questions: Vec<Question>,
    ) -> Result<Self> {
        if questions.is_empty() {
            return Err(RewardError::bad_input("questions", "at least 1", 0));
        }
        if let Some(question) = questions.iter().find(|q| q.expect.trim().is_empty()) {
            let what = format!("question \"{}\"", question.ask);
            return Err(RewardError::bad_input(what, "an expected answer", "none"));
        }
        let version: Vec<String> = (questions.iter())
            .map(|q| format!("{:?} -> {:?}", q.ask, q.expect))
            .collect();
        let with = |text: &str, prompt: &str| text.replace(Self::PROMPT, prompt);
        let of_prompt = move |prompt: &Prompt| -> Result<Vec<Question>> {
            let ask = |question: &Question| Question {
                ask: with(&question.ask, &prompt.text),
                expect: with(&question.expect, &prompt.text),
            };
            let asked: Vec<Question> = questions.iter().map(ask).collect();
            match asked.iter().all(|q| !q.expect.trim().is_empty()) {
                true => Ok(asked),
                false => Err(RewardError::bad_input(
                    "prompt",
                    "a text, since an answer is to contain it",
                    "an empty one",
                )),
            }
        };
        let mut reward = Self::new(Self::OF_EVERY_PROMPT, chat, encoding, of_prompt);
        reward.asked = version.join("; ");
        Ok(reward)
    }

    /// Quantity and unit of the score.
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
        // All questions first, so that unsupported prompts are found before the first request.
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
            "1 model={} max_tokens={} encoding={} questions={}",
            config.model,
            config.max_tokens,
            self.encoding.name(),
            self.asked
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

    #[test]
    fn questions_of_every_prompt_carry_it_and_expect_something() {
        let chat = || Chat::new(super::super::ChatConfig::new("http://h", "m")).unwrap();
        let make = |ask: &str, expect: &str| {
            let question = Question {
                ask: ask.to_owned(),
                expect: expect.to_owned(),
            };
            Vqa::of_every_prompt(chat(), Encoding::Jpeg, vec![question])
        };
        let reward = make("Is there a {prompt}?", "{prompt}").unwrap();
        let asked = (reward.questions)(&Prompt::new(0, "cat")).unwrap();
        assert_eq!(
            (asked[0].ask.as_str(), asked[0].expect.as_str()),
            ("Is there a cat?", "cat")
        );
        let error = (reward.questions)(&Prompt::new(0, " ")).unwrap_err();
        assert!(error.to_string().starts_with("prompt: expected"), "{error}");
        let other = make("Is there a {prompt}?", "yes").unwrap();
        assert_ne!(reward.version(), other.version());
        assert!(
            make("Is there a cat?", " ")
                .unwrap_err()
                .to_string()
                .contains("Is there a cat?")
        );
        assert!(Vqa::of_every_prompt(chat(), Encoding::Jpeg, Vec::new()).is_err());
    }
}
