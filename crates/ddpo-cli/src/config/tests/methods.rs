//! Algorithms and their own numbers.

use super::*;

#[test]
fn algorithms_are_compared_at_equal_reward_queries() {
    for (preset, name) in [
        ("pocket", "compressibility"),
        ("pocket", "incompressibility"),
        ("pocket", "aesthetic"),
        ("lora", "compressibility"),
        ("lora", "incompressibility"),
        ("paper", "compressibility"),
        ("paper", "incompressibility"),
    ] {
        let queries = ["ddpo-is", "ddpo-sf", "rwr", "rwr-sparse"].map(|algorithm| {
            let plan = under(name, preset, algorithm).expect(name);
            let an_epoch = plan.method.samples_per_epoch() as u64;
            (plan.run.epochs * an_epoch, plan.eval.every * an_epoch)
        });
        let (all, between) = queries[0];
        for (other, rounds) in queries {
            assert_eq!(other, all, "{preset} {name}");
            // Evaluations of the one are at reward queries of the other.
            assert_eq!(rounds % between, 0, "{preset} {name}");
        }
    }
}

#[test]
fn keys_of_weighted_regression_are_read_for_it_only() {
    let rwr = load(&["rl.algorithm=rwr", "rwr.beta=0.2"]).expect("a plan");
    let beta = |plan: &Plan| plan.entries.iter().any(|entry| entry.key == "rwr.beta");
    assert!(beta(&rwr) && !beta(&load(&[]).expect("a plan")));
    refused(
        &["rwr.bet=1"],
        &["`rwr.bet` is no key: did you mean `rwr.beta`?"],
    );
    refused(
        &["rl.algorithm=rwr", "rwr.samples_per_prompt=10"],
        &["`rwr.samples_per_prompt` is 10", "128 = 12 * 10 + 8"],
    );
}

#[test]
fn counts_that_do_not_fit_show_the_arithmetic() {
    refused(
        &["rl.updates_per_epoch=5"],
        &["--set: `rl.updates_per_epoch` is 5", "64 = 12 * 5 + 4"],
    );
    refused(
        &["rl.algorithm=ddpo-sf", "rl.updates_per_epoch=2"],
        &["`rl.updates_per_epoch` is 2: must be 1"],
    );
    refused(
        &["rl.stats.min_count=64"],
        &[
            "`rl.stats.min_count` is 64",
            "between 1 and buffer_size = 32",
        ],
    );
}

#[test]
fn universal_guidance_has_one_epoch_and_needs_a_reward_with_a_gradient() {
    let guided = "rl.algorithm=universal-guidance";
    let plan = load(&[guided, "reward.kind=colourfulness", "prompts.set=wolf"]).expect("a plan");
    let Method::Guidance(guidance) = plan.method else {
        unreachable!("{:?}", plan.method);
    };
    assert_eq!((plan.run.epochs, plan.method.updates_per_epoch()), (1, 0));
    let read = |key: &str| plan.entries.iter().any(|entry| entry.key == key);
    assert!(read("guidance.weight") && !read("run.epochs") && !read("rl.clip_range"));
    assert!(guidance.repeats >= 1 && guidance.weight > 0.0);
    load(&[guided, "reward.kind=judge"]).expect("the judge has a gradient");
    refused(
        &[guided],
        &[
            "`reward.kind` is jpeg-compressibility, which has no gradient",
            "expected one of colourfulness, aesthetic, judge",
        ],
    );
    refused(
        &["guidance.repeat=2"],
        &["did you mean `guidance.repeats`?"],
    );
}

#[test]
fn stable_diffusion_is_guided_as_the_official_code_does_style_transfer() {
    for preset in ["lora", "paper"] {
        let plan = under("aesthetic", preset, "universal-guidance").expect(preset);
        let Method::Guidance(guidance) = plan.method else {
            unreachable!("{:?}", plan.method);
        };
        let numbers = (guidance.steps, guidance.repeats, guidance.weight);
        assert_eq!(numbers, (500, 6, 6.0));
        assert_eq!((guidance.eta, guidance.guidance_scale), (0.0, 3.0));
    }
}
