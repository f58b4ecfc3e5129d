//! What claims speak about, by name.

use serde::{Deserialize, Serialize};

/// A quantity that claims speak about; in files a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Metric {
    /// `reward/mean`: mean reward of an epoch's samples, from the rows of `samples.csv`. Prompts and noise differ
    /// from epoch to epoch, and so the samples are independent.
    Reward,
    /// `eval/SET`: mean reward on a prompt set, from the rows of `eval.csv`. Prompts and noise are the same every
    /// time, and so the samples are paired.
    Eval(String),
}

impl Metric {
    /// As in files.
    pub fn name(&self) -> String {
        match self {
            Self::Reward => "reward/mean".to_owned(),
            Self::Eval(set) => format!("eval/{set}"),
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.strip_prefix("eval/") {
            Some(set) if !set.is_empty() => Ok(Self::Eval(set.to_owned())),
            _ if name == "reward/mean" => Ok(Self::Reward),
            _ => Err(format!(
                "metric `{name}` is unknown: expected `reward/mean`, or `eval/` with the name of a prompt set"
            )),
        }
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_refused() {
        for metric in [Metric::Reward, Metric::Eval("animals".to_owned())] {
            assert_eq!(Metric::try_from(metric.name()), Ok(metric));
        }
        for name in ["eval/", "reward", ""] {
            assert!(Metric::try_from(name.to_owned()).is_err(), "{name}");
        }
    }
}
