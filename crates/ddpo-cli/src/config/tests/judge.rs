//! The reward judge: what it cannot look at is found before work.

use super::*;

#[test]
fn the_judge_reads_every_prompt_that_pocket_can_draw() {
    for set in ["animals", "wolf", "activities", "counting", "dpok"] {
        let plan = load(&["reward.kind=judge", &format!("prompts.set={set}")]).expect(set);
        assert_eq!(plan.reward.name(), "judge");
        assert!(plan.reward.kind.computes() && !plan.reward.kind.has_answers());
    }
}

#[test]
fn what_the_judge_cannot_read_or_see_is_refused_with_the_key() {
    refused(
        &["reward.kind=judge", "prompts.set=unseen-animals"],
        &[
            "`prompts.set` has unseen-animals",
            "no drawing of `ostrich`",
        ],
    );
    refused(
        &[
            "reward.kind=judge",
            "eval.sets=[\"animals\", \"unseen-scenarios\"]",
        ],
        &["`eval.sets` has unseen-scenarios", "capybara"],
    );
    refused(
        &["reward.kind=judge", "progress.prompts=[\"a small cat\"]"],
        &["`progress.prompts`", "what `small` is"],
    );
    let elsewhere = "model.path=CompVis/stable-diffusion-v1-4";
    let seen = ["`model.path` is \"CompVis/", "64x64", "expected \"pocket\""];
    refused(&["reward.kind=judge", elsewhere], &seen);
    let parts = "reward.parts={ judge = 1.0, colourfulness = 0.1 }";
    refused(&["reward.kind=composite", parts, elsewhere], &seen);
    load(&["reward.kind=composite", parts]).expect("a sum of both");
}
