//! The shipped judges have the accuracy that the model card states.

use ddpo_pocket::accuracy::{Drawings, JudgeAccuracy};
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::judge::{Judge, Role};
use tch::Device;

/// The card's rates are over 200 scenes per question; fewer here, so the limits leave three standard errors of a rate.
const N_SCENES: u64 = 60;

#[test]
fn shipped_judges_see_what_the_card_says() {
    let pack = Pack::embedded().unwrap();
    for role in [Role::Reward, Role::HeldOut] {
        let judge = Judge::embedded(role, Device::Cpu).unwrap();
        let own = JudgeAccuracy::of(&judge, role, Drawings::Own, None, &pack, N_SCENES).unwrap();
        for (question, rate, least) in [
            ("entity", own.entity, 0.83),
            ("entity, active", own.entity_active, 0.81),
            ("entity, counted", own.entity_counted, 0.65),
            ("activity", own.activity, 0.93),
            ("no activity", own.no_activity, 0.95),
            ("count", own.count, 0.62),
            ("one", own.one, 0.93),
            ("tint", own.tint, 0.74),
            ("place", own.place, 0.93),
        ] {
            assert_eq!(rate.n as u64, N_SCENES, "{question}");
            assert!(rate.first >= least, "{role:?}, {question}: {rate:?}");
        }
    }
}

#[test]
fn no_drawing_taught_both_judges() {
    let both = Role::Reward
        .sets()
        .iter()
        .filter(|set| Role::HeldOut.sets().contains(set));
    assert_eq!(both.count(), 0);
    let pack = Pack::embedded().unwrap();
    assert_ne!(
        Role::Reward.config(&pack).channels,
        Role::HeldOut.config(&pack).channels
    );
}
