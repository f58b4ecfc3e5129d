//! Scores of composed scenes with their captions, and prompts that the judges refuse.

use ddpo_guidance::DifferentiableReward;
use ddpo_pocket::artwork::{ArtworkSet, Pack};
use ddpo_pocket::content::{JudgeReward, PromptScorer};
use ddpo_pocket::judge::{Judge, Role};
use ddpo_pocket::pretrain::batch::{Scenes, compose};
use ddpo_pocket::scene::{Composer, Mixture, SceneKind};
use ddpo_reward::prompts::{PromptSet, numbered};
use ddpo_reward::{Images, Prompt, Reward, RewardError, dev};
use tch::{Device, Kind, Tensor};

/// Scenes of every kind with captions that the reward judge can score, as bytes and as tensors.
fn scenes(n: u64) -> (Scenes, Images, Vec<Prompt>) {
    let pack = Pack::embedded().unwrap();
    let mixture = Mixture {
        plain_caption: 1.0,
        ..Role::Reward.mixture()
    };
    let made = compose(&Composer::new(&pack, mixture).unwrap(), 11, 0..n);
    let bytes = ((&made.images + 1.0) * 127.5).round().to_kind(Kind::Uint8);
    let bytes = bytes.permute([0, 2, 3, 1]).contiguous().flatten(0, -1);
    let images = Images::from_bytes(n as usize, 64, 64, Vec::try_from(bytes).unwrap()).unwrap();
    let prompts = numbered(made.captions.clone());
    (made, images, prompts)
}

#[test]
fn the_reward_keeps_the_contract_of_rewards() {
    let mut reward = JudgeReward::embedded(Device::Cpu).unwrap();
    dev::conforms(&mut reward);
    // More than are looked at together.
    let (_, images, prompts) = scenes(19);
    dev::conforms_on(&mut reward, &images, &prompts);
}

#[test]
fn the_score_is_the_sum_over_what_the_prompt_mentions_and_nothing_else() {
    let (made, images, prompts) = scenes(40);
    let output = Judge::embedded(Role::Reward, Device::Cpu)
        .unwrap()
        .forward_all(&made.images, None);
    let found = JudgeReward::embedded(Device::Cpu)
        .unwrap()
        .score(&images, &prompts)
        .unwrap();
    let (mut pairs, mut numbers, mut activities) = (0, 0, 0);
    for (i, (scene, caption)) in made.scenes.iter().zip(&made.captions).enumerate() {
        let of = |head: &Tensor, answer: usize| head.double_value(&[i as i64, answer as i64]);
        let mut expected = of(&output.entity, scene.entity());
        if scene.kind == SceneKind::Pair {
            expected += of(&output.entity, scene.other_entity()) + 4_f64.ln();
            pairs += 1;
        }
        if scene.count() > 1 {
            expected += of(&output.count, scene.count() - 1);
            numbers += 1;
        }
        if let Some(activity) = scene.kind.activity() {
            expected += of(&output.activity, 1 + activity.index());
            activities += 1;
        }
        if let SceneKind::Tinted(color) = scene.kind {
            let tints = ddpo_pocket::scene::Color::TINTS;
            expected += of(
                &output.tint,
                1 + tints.iter().position(|it| *it == color).unwrap(),
            );
        }
        if let Some(place) = scene.kind.location() {
            expected += of(&output.place, 1 + place.index());
        }
        // A ground is part of a tenth of the captions.
        if caption.contains("background") {
            let ground = &scene.ground;
            let colors = ddpo_pocket::scene::Color::GROUNDS;
            let patterns = ddpo_pocket::scene::Pattern::ALL;
            expected += of(
                &output.color,
                colors.iter().position(|it| *it == ground.color).unwrap(),
            );
            expected += of(
                &output.pattern,
                patterns
                    .iter()
                    .position(|it| *it == ground.pattern)
                    .unwrap(),
            );
        }
        let found = f64::from(found[i]);
        assert!(
            (found - expected).abs() < 1e-4,
            "{caption}: {found}, expected {expected}"
        );
        assert!(found <= 1e-4, "{caption}: {found}");
    }
    assert!(
        pairs > 0 && numbers > pairs && activities > 0,
        "{pairs} {numbers} {activities}"
    );
}

#[test]
fn a_pair_counts_in_any_order_and_a_thing_twice_is_one_entity() {
    let (_, images, _) = scenes(1);
    let mut reward = JudgeReward::embedded(Device::Cpu).unwrap();
    let mut of = |prompt: &str| reward.score(&images, &numbered([prompt])).unwrap()[0];
    assert_eq!(of("a dog and a cat"), of("a cat and a dog"));
    assert_eq!(of("a dog and a dog"), of("two dogs"));
    assert_eq!(of("A Cat"), of("cat"));
    assert_eq!(of("a cat washing dishes"), of("a cat washing the dishes"));
    assert!(of("one cat") < of("a cat"));
}

#[test]
fn composed_scenes_score_higher_with_their_own_captions_by_both_judges() {
    let (_, images, prompts) = scenes(60);
    let mut others = prompts.clone();
    others.rotate_left(7);
    for role in [Role::Reward, Role::HeldOut] {
        let scorer = PromptScorer::embedded(role, Device::Cpu).unwrap();
        let [own, other] = [&prompts, &others].map(|p| scorer.score(&images, p).unwrap());
        let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
        let [of_own, of_other] = [&own, &other].map(|it| mean(&it.log_prob));
        println!(
            "{role:?}: {of_own:.2} against {of_other:.2} nats, top-1 {:.2} against {:.2}",
            own.top1_accuracy(),
            other.top1_accuracy()
        );
        assert!(of_own > of_other + 4.0, "{role:?}: {of_own}, {of_other}");
        let rates = [own.top1_accuracy(), other.top1_accuracy()];
        assert!(rates[0] > rates[1] + 0.3, "{role:?}: {rates:?}");
    }
}

#[test]
fn the_gradient_is_that_of_finite_differences_and_stays_with_its_image() {
    let (made, _, prompts) = scenes(3);
    let scorer = PromptScorer::embedded(Role::Reward, Device::Cpu).unwrap();
    let parsed = scorer.read(&prompts).unwrap();
    let images = made.images.copy().set_requires_grad(true);
    let scores = scorer.log_prob(&images, &parsed);
    scores.get(1).backward();
    let grad = images.grad();
    for other in [0, 2] {
        assert_eq!(grad.get(other).abs().max().double_value(&[]), 0.0);
    }
    let direction = grad.get(1) / grad.get(1).square().sum(Kind::Float).sqrt();
    let slope = |h: f64| {
        let moved = |h: f64| (made.images.get(1) + &direction * h).unsqueeze(0);
        let at = |h: f64| scorer.log_prob(&moved(h), &parsed[1..2]).double_value(&[0]);
        (at(h) - at(-h)) / (2.0 * h)
    };
    let expected = (grad.get(1) * &direction)
        .sum(Kind::Float)
        .double_value(&[]);
    let found = slope(0.02);
    assert!(
        (found / expected - 1.0).abs() < 0.05,
        "{found}, expected {expected}"
    );
}

#[test]
fn guidance_by_the_judge_follows_the_reward_itself() {
    let (made, images, prompts) = scenes(19);
    let mut reward = JudgeReward::embedded(Device::Cpu).unwrap();
    let expected = reward.score(&images, &prompts).unwrap();
    let of_tensors: &dyn DifferentiableReward = &reward;
    let images = (&made.images + 1.0) / 2.0;
    let found = of_tensors.scores(&images, &prompts).unwrap();
    for (found, expected) in Vec::<f32>::try_from(found).unwrap().iter().zip(&expected) {
        assert!(
            (found - expected).abs() < 1e-3,
            "{found}, expected {expected}"
        );
    }
    let small = images.narrow(2, 0, 32);
    assert!(of_tensors.scores(&small, &prompts).is_err());
    assert!(of_tensors.scores(&images, &prompts[1..]).is_err());
}

#[test]
fn prompts_without_a_drawing_or_a_head_are_refused_by_name() {
    let check = |set: PromptSet| JudgeReward::check(&set.prompts());
    for set in [
        PromptSet::Animals,
        PromptSet::PocketUnseenAnimals,
        PromptSet::PocketObjects,
        PromptSet::Activities,
        PromptSet::ActivitiesPaper,
        PromptSet::Counting,
        PromptSet::Dpok,
    ] {
        check(set).unwrap_or_else(|error| unreachable!("{}: {error}", set.name()));
    }
    for (set, reason) in [
        (PromptSet::UnseenAnimals, "no drawing of `ostrich`"),
        (PromptSet::Objects, "no drawing of `toaster`"),
        (PromptSet::UnseenScenarios, "capybara"),
    ] {
        let error = check(set).expect_err(set.name()).to_string();
        assert!(error.contains(reason), "{error}");
    }
    let of_style = |set: ArtworkSet| format!("a {} picture of a cat", set.style_word().unwrap());
    for (prompt, reason) in [
        (
            "a small cat".to_owned(),
            "no judge has learned what `small` is",
        ),
        (
            of_style(ArtworkSet::FluentFlat),
            "has not learned what a `flat` image is",
        ),
    ] {
        let error = JudgeReward::check(&numbered([prompt]))
            .expect_err(reason)
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
    JudgeReward::check(&numbered([of_style(ArtworkSet::Fluent3d)])).expect("its own drawings");
}

#[test]
fn images_of_another_size_are_bad_input() {
    let mut reward = JudgeReward::embedded(Device::Cpu).unwrap();
    let images = Images::from_bytes(1, 32, 64, vec![0; 32 * 64 * 3]).unwrap();
    let error = reward.score(&images, &numbered(["cat"])).unwrap_err();
    assert!(matches!(error, RewardError::BadInput { .. }));
    assert!(
        error.to_string().contains("64x64 pixels, got 64x32"),
        "{error}"
    );
}
