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
    /// `eval/SET/MEASURE`: the same images by a measure of the panel, such as the held-out judge.
    Panel(String, String),
}

impl Metric {
    /// As in files.
    pub fn name(&self) -> String {
        match self {
            Self::Reward => "reward/mean".to_owned(),
            Self::Eval(set) => format!("eval/{set}"),
            Self::Panel(set, measure) => format!("eval/{set}/{measure}"),
        }
    }
}

impl Metric {
    /// Set and measure of an evaluation; none for what training saw.
    pub(super) fn evaluated(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Reward => None,
            Self::Eval(set) => Some((set, None)),
            Self::Panel(set, measure) => Some((set, Some(measure))),
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            ["eval", set] if !set.is_empty() => Ok(Self::Eval(set.to_owned())),
            ["eval", set, measure] if !(set.is_empty() || measure.is_empty()) => {
                Ok(Self::Panel(set.to_owned(), measure.to_owned()))
            }
            ["reward", "mean"] => Ok(Self::Reward),
            _ => Err(format!(
                "metric `{name}` is unknown: expected `reward/mean`, `eval/` with the name of a prompt set, or that \
                 and `/` with the name of a measure"
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
        let (set, measure) = ("animals".to_owned(), "edges".to_owned());
        for metric in [
            Metric::Reward,
            Metric::Eval(set.clone()),
            Metric::Panel(set, measure),
        ] {
            assert_eq!(Metric::try_from(metric.name()), Ok(metric));
        }
        for name in ["eval/", "eval/animals/", "eval/a/b/c", "reward", ""] {
            assert!(Metric::try_from(name.to_owned()).is_err(), "{name}");
        }
    }
}
