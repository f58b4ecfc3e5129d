//! Variants: variants of an algorithm under names of their own.

use super::*;

fn variant(name: &str, preset: &str, variant: &str) -> Result<Plan, Failure> {
    under(name, preset, variant)
}

#[test]
fn every_variant_of_every_experiment_is_whole_under_every_preset() {
    for name in WITH_VARIANTS {
        for preset in ["pocket", "lora", "paper"] {
            let whole = Plan::load(&Source {
                preset: Some(preset.to_owned()),
                on_paper: true,
                set: services(preset),
                ..source(name, &[])
            })
            .unwrap_or_else(|failure| unreachable!("{preset} {name}: {failure}"));
            assert_eq!(whole.experiment, name);
            let variants = &whole.reproduce.algorithms;
            assert!(!variants.is_empty());
            for variant in variants {
                let plan = Plan::load(&Source {
                    preset: Some(preset.to_owned()),
                    variant: Some(variant.clone()),
                    on_paper: true,
                    set: services(preset),
                    ..source(name, &[])
                })
                .unwrap_or_else(|failure| unreachable!("{preset} {name} {variant}: {failure}"));
                assert_eq!(plan.label(), variant);
            }
        }
    }
}

/// Presets of Stable Diffusion ask a server whose address nobody but the user knows.
fn services(preset: &str) -> Vec<String> {
    match preset {
        "pocket" => Vec::new(),
        _ => [
            "url=\"http://localhost:1/v1\"",
            "model=\"a-model\"",
            "encoder=\"an-encoder\"",
        ]
        .map(|pair| format!("reward.vlm.{pair}"))
        .into(),
    }
}

#[test]
fn a_variant_lies_over_its_algorithm_and_the_preset_s_variant_over_the_variant() {
    let plan = variant("interleaving", "pocket", "rounds-16x").expect("a plan");
    assert_eq!(plan.rl.algorithm, Algorithm::Rwr);
    let Method::Rwr(rwr) = plan.method else {
        unreachable!("rwr");
    };
    assert_eq!((rwr.samples_per_round, plan.run.epochs), (32, 16));
    // Of the preset's section of RWR, which the variant does not mention.
    assert_eq!((plan.rl.lr, plan.eval.every), (1e-4, 4));
    let plan = variant("interleaving", "pocket", "ddpo-is").expect("a plan");
    assert_eq!((plan.variant.as_deref(), plan.label()), (None, "ddpo-is"));
}

#[test]
fn a_resolved_variant_gives_the_same_run_again() {
    let plan = variant("cfg-ablation", "pocket", "unguided").expect("a plan");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml");
    std::fs::write(&file, crate::config::resolved::render(&plan.entries)).expect("written");
    let again = Plan::load(&Source {
        file: Some(file),
        ..Source::default()
    })
    .expect("a plan");
    let keys = |plan: &Plan| -> Vec<_> {
        let entries = plan.entries.iter();
        entries
            .map(|it| (it.key.clone(), it.value.clone()))
            .collect()
    };
    assert_eq!(keys(&plan), keys(&again));
    assert_eq!(again.label(), "unguided");
}

#[test]
fn what_tells_the_runs_of_a_queue_apart_counts_more_than_a_pair() {
    let source = Source {
        variant: Some("unguided".to_owned()),
        seed: Some(44),
        ..source("cfg-ablation", &["run.seed=43", "variant=guided"])
    };
    let plan = Plan::load(&source).expect("a plan");
    assert_eq!((plan.run.seed, plan.label()), (44, "unguided"));
}

#[test]
fn an_unknown_variant_is_refused_by_name() {
    let failure =
        Plan::load(&source("cfg-ablation", &["variant=unguide"])).expect_err("no variant");
    let text = failure.to_string();
    assert!(text.contains("`variant` is \"unguide\""), "{text}");
    assert!(text.contains("did you mean \"unguided\"?"), "{text}");
}

#[test]
fn the_held_out_judge_is_left_out_where_it_cannot_look_and_says_why() {
    let plan = load(&[]).expect("a plan");
    assert!(plan.eval.stop_rule.is_some() && plan.eval.left_out.is_none());
    assert!(plan.eval.panel.iter().any(|measure| measure.is_judged()));
    for set in ["model.path=elsewhere", "eval.sets=[\"objects\"]"] {
        let plan = load(&[set]).expect("a plan");
        assert!(!plan.eval.panel.iter().any(|measure| measure.is_judged()));
        assert!(plan.eval.stop_rule.is_none());
        assert!(
            plan.eval
                .left_out
                .is_some_and(|why| why.contains("held-out judge"))
        );
    }
    refused(&["eval.panel=[\"edge\"]"], &["did you mean \"edges\"?"]);
    refused(
        &["eval.panel=[\"edges\"]"],
        &["`eval.stop_rule.judge` is \"held-out-judge\", which is not in eval.panel"],
    );
}
