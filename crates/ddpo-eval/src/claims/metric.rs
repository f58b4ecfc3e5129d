//! The metrics that claims are about, by name.

use serde::{Deserialize, Serialize};

/// A metric that claims are about; a string in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Metric {
    /// `reward/mean`: mean reward of an epoch's samples, from the rows of `samples.csv`. Prompts and noise differ
    /// from epoch to epoch, so the samples are independent.
    Reward,
    /// `eval/SET`: mean reward on a prompt set, from the rows of `eval.csv`. Prompts and noise are the same every
    /// time, so the samples are paired.
    Eval(String),
    /// `eval/SET/METRIC`: another metric of the same images, such as the held-out judge.
    Panel(String, String),
}

impl Metric {
    /// The name used in files.
    pub fn name(&self) -> String {
        match self {
            Self::Reward => "reward/mean".to_owned(),
            Self::Eval(set) => format!("eval/{set}"),
            Self::Panel(set, name) => format!("eval/{set}/{name}"),
        }
    }
}

impl Metric {
    /// Prompt set and metric of an evaluation; `None` for the reward during training.
    pub(super) fn evaluated(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Reward => None,
            Self::Eval(set) => Some((set, None)),
            Self::Panel(set, name) => Some((set, Some(name))),
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            ["eval", set] if !set.is_empty() => Ok(Self::Eval(set.to_owned())),
            ["eval", set, name] if !(set.is_empty() || name.is_empty()) => {
                Ok(Self::Panel(set.to_owned(), name.to_owned()))
            }
            ["reward", "mean"] => Ok(Self::Reward),
            _ => Err(format!(
                "metric `{name}` is unknown: expected `reward/mean`, `eval/SET` with the name of a prompt set, or \
                 `eval/SET/METRIC` with the name of an evaluation metric as well"
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
    fn names_survive_a_round_trip_and_unknown_ones_are_refused() {
        let (set, edges) = ("animals".to_owned(), "edges".to_owned());
        for metric in [
            Metric::Reward,
            Metric::Eval(set.clone()),
            Metric::Panel(set, edges),
        ] {
            assert_eq!(Metric::try_from(metric.name()), Ok(metric));
        }
        for name in ["eval/", "eval/animals/", "eval/a/b/c", "reward", ""] {
            assert!(Metric::try_from(name.to_owned()).is_err(), "{name}");
        }
    }
}
