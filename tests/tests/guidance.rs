//! `ddpo run` with universal guidance: nothing is trained, and the sampler before and after is compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ddpo_tests::runs::metrics;
use ddpo_tests::{ddpo, text};

/// Rewards by epoch, in the order of sample ids.
type Evaluated = BTreeMap<u64, Vec<f64>>;

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A short run on pocket.
    fn arguments(out: &Path, set: &[&str]) -> Vec<String> {
        let short = [
            "rl.algorithm=universal-guidance",
            "prompts.set=wolf",
            "eval.sets=[\"wolf\"]",
            "eval.samples=3",
            "guidance.samples=2",
            "sampler.n_steps=3",
            "guidance.steps=3",
            "progress.prompts=[\"wolf\"]",
        ];
        let mut args = vec!["run".to_owned(), "configs/aesthetic.toml".to_owned()];
        let set = short.iter().chain(set);
        args.extend(set.flat_map(|pair| ["--set".to_owned(), (*pair).to_owned()]));
        args.extend(["--out".to_owned(), text(out).to_owned()]);
        args
    }

    fn run(&self, name: &str, set: &[&str]) -> Evaluated {
        let out = self.out(name);
        ddpo(Self::arguments(&out, set)).expect(0, &[]);
        let table = fs::read_to_string(out.join("eval.csv")).expect("eval.csv");
        let mut evaluated = Evaluated::new();
        for row in table.lines().skip(1) {
            let cells: Vec<&str> = row.split(',').collect();
            let epoch = cells[0].parse().expect("an epoch");
            let reward = cells[5].parse().expect("a reward");
            evaluated.entry(epoch).or_default().push(reward);
        }
        evaluated
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn guidance_raises_the_reward_and_trains_nothing() {
    let case = Case::new();
    let strong = ["guidance.weight=1", "guidance.repeats=2"];
    let evaluated = case.run("strong", &strong);
    let [plain, guided] = [0, 1].map(|epoch| &evaluated[&epoch]);
    assert_eq!((plain.len(), guided.len()), (3, 3));
    assert!(mean(guided) > mean(plain) + 10.0, "{plain:?}, {guided:?}");
    let out = case.out("strong");
    for file in [
        "manifest.json",
        "report.html",
        "claims.json",
        "samples/epoch-000001.png",
    ] {
        assert!(out.join(file).exists(), "{file}");
    }
    let table = fs::read_to_string(out.join("metrics.csv")).expect("metrics.csv");
    assert!(table.starts_with("epoch,reward_queries,reward/mean,reward/std,guidance/"));
    assert_eq!(table.lines().count(), 2);

    // A run that is complete has nothing left to do.
    let again = case.out("again");
    ddpo(Case::arguments(&again, &strong)).expect(0, &[]);
    let mut args = Case::arguments(&again, &strong);
    args.push("--resume".to_owned());
    ddpo(args).expect(0, &[]);
    assert_eq!(metrics(&out), metrics(&again));
    for file in [
        "eval.csv",
        "samples.csv",
        "checkpoints/epoch-000001/policy.safetensors",
    ] {
        let [a, b] = [&out, &again].map(|run| fs::read(run.join(file)).expect(file));
        assert!(a == b, "{file} differs");
    }
}

#[test]
fn without_weight_and_with_the_sampler_s_numbers_the_images_are_those_of_the_plain_sampler() {
    let case = Case::new();
    let set = [
        "guidance.weight=0",
        "guidance.repeats=1",
        "guidance.eta=1.0",
        "guidance.guidance_scale=3.0",
    ];
    let evaluated = case.run("plain", &set);
    assert_eq!(evaluated[&0], evaluated[&1]);
    let strips = [0, 1].map(|epoch| {
        let path = case
            .out("plain")
            .join(format!("samples/epoch-{epoch:06}.png"));
        fs::read(path).expect("a strip")
    });
    assert_eq!(strips[0], strips[1]);
}

#[test]
fn a_reward_without_a_gradient_is_refused_before_anything_is_read() {
    let case = Case::new();
    let set = ["reward.kind=jpeg-compressibility"];
    ddpo(Case::arguments(&case.out("refused"), &set)).expect(
        2,
        &["`reward.kind` is jpeg-compressibility, which has no gradient"],
    );
}
