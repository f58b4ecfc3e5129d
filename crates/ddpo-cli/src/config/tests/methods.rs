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
        &["128 samples = 12 × 10 + 8"],
    );
}

#[test]
fn counts_that_do_not_fit_show_the_arithmetic() {
    refused(&["rl.updates_per_epoch=5"], &["64 samples = 12 × 5 + 4"]);
    refused(
        &["rl.algorithm=ddpo-sf", "rl.updates_per_epoch=2"],
        &["is 2: expected 1"],
    );
    refused(
        &["rl.stats.min_count=64"],
        &["a buffer of 32 never holds so many"],
    );
}
