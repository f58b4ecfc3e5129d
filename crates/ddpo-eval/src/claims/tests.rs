use super::*;
use crate::evals::EvalRow;
use crate::runs::{MetricsTable, SampleRecord};

fn run(algorithm: &str, seed: u64, epochs: &[&[f64]]) -> Run {
    let samples = (0..).zip(epochs).flat_map(|(epoch, rewards)| {
        rewards.iter().map(move |&reward| SampleRecord {
            epoch,
            sample_id: 0,
            prompt: "cat".to_owned(),
            reward,
            advantage: 0.0,
        })
    });
    Run {
        algorithm: algorithm.to_owned(),
        seed,
        metrics: MetricsTable::default(),
        samples: samples.collect(),
        evals: Vec::new(),
    }
}

fn rises(standard_errors: f64) -> Claim {
    Claim::Rises {
        source: "Fig. 4".to_owned(),
        metric: Metric::Reward,
        standard_errors,
        epochs: 1,
    }
}

fn exceeds(standard_errors: f64) -> Claim {
    Claim::Exceeds {
        source: "Fig. 4".to_owned(),
        metric: Metric::Reward,
        better: "ddpo-is".to_owned(),
        worse: "ddpo-sf".to_owned(),
        standard_errors,
        epochs: 1,
    }
}

/// Standard errors by hand: both sides have std sqrt(2) over 2 values, so 1 each, sqrt(2) together.
#[test]
fn a_rise_is_measured_in_combined_standard_errors() {
    let r = run("ddpo-is", 3, &[&[0.0, 2.0], &[9.0, 9.0], &[5.0, 7.0]]);
    let v = rises(3.0).check(std::slice::from_ref(&r)).remove(0);
    let c = v.comparison.as_ref().unwrap();
    assert_eq!((c.first.mean, c.second.mean, c.difference), (1.0, 6.0, 5.0));
    assert!((c.standard_error - 2.0_f64.sqrt()).abs() < 1e-12);
    assert!((c.standard_errors.unwrap() - 5.0 / 2.0_f64.sqrt()).abs() < 1e-12);
    assert!(v.met);
    assert_eq!(
        v.numbers(),
        "1.000 ± 1.000 → 6.000 ± 1.000, 3.5 standard errors"
    );
    assert!(!rises(3.6).check(&[r])[0].met);
}

#[test]
fn a_fall_is_not_a_rise_however_small_the_margin() {
    assert!(!rises(0.0).check(&[run("ddpo-is", 0, &[&[1.0, 1.0], &[0.5, 0.5]])])[0].met);
    assert!(!rises(0.0).check(&[run("ddpo-is", 0, &[&[1.0, 1.0], &[1.0, 1.0]])])[0].met);
}

#[test]
fn without_spread_any_rise_counts_and_the_file_has_no_infinity() {
    let v = rises(3.0).check(&[run("ddpo-is", 0, &[&[1.0, 1.0], &[1.5, 1.5]])]);
    assert!(v[0].met);
    assert_eq!(v[0].comparison.as_ref().unwrap().standard_errors, None);
    assert!(
        ClaimsFile::new("x", v)
            .to_json()
            .contains("\"standard_errors\": null")
    );
}

#[test]
fn what_cannot_be_decided_is_not_met_and_says_why() {
    let note = |epochs: &[&[f64]]| {
        let v = rises(1.0).check(&[run("ddpo-is", 0, epochs)]).remove(0);
        assert!(!v.met && v.comparison.is_none());
        v.note.unwrap()
    };
    assert_eq!(note(&[]), "2 epochs are needed, the run has 0");
    assert_eq!(note(&[&[1.0, 2.0]]), "2 epochs are needed, the run has 1");
    assert_eq!(
        note(&[&[1.0, f64::NAN], &[1.0, 2.0]]),
        "1 of 2 rewards of epoch 0 are not finite"
    );
    assert!(note(&[&[1.0], &[2.0]]).starts_with("two samples"));
}

#[test]
fn every_seed_has_its_own_result() {
    let runs = [
        run("ddpo-is", 0, &[&[0.0, 0.1], &[5.0, 5.1]]),
        run("ddpo-is", 1, &[&[0.0, 0.1], &[0.0, 0.1]]),
    ];
    let verdicts = check(&[rises(3.0)], &runs);
    let met: Vec<_> = verdicts.iter().map(|v| (v.seed, v.met)).collect();
    assert_eq!(met, [(0, true), (1, false)]);
    assert!(!ClaimsFile::new("x", verdicts).all_met());
}

#[test]
fn the_order_of_algorithms_is_checked_seed_by_seed_at_the_same_epoch() {
    let runs = [
        run("ddpo-is", 0, &[&[0.0, 0.1], &[5.0, 5.1]]),
        run("ddpo-sf", 0, &[&[0.0, 0.1], &[3.0, 3.1], &[9.0, 9.1]]),
        run("ddpo-is", 1, &[&[1.0, 1.1]]),
    ];
    let verdicts = exceeds(3.0).check(&runs);
    assert_eq!(verdicts.len(), 1);
    assert!(verdicts[0].met);
    assert_eq!(verdicts[0].comparison.as_ref().unwrap().first.mean, 3.05);

    let note = |runs: &[Run]| exceeds(3.0).check(runs).remove(0).note.unwrap();
    assert_eq!(note(&runs[..1]), "there is no run of ddpo-sf");
    assert_eq!(note(&runs[1..2]), "there is no run of ddpo-is");
    assert_eq!(
        note(&runs[1..]),
        "no seed was run with both ddpo-is and ddpo-sf"
    );
}

#[test]
fn claims_json_survives_a_round_trip_and_refuses_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("claims.json");
    let r = run("ddpo-is", 0, &[&[0.1, 0.2], &[5.0, 1.0 / 3.0]]);
    let file = ClaimsFile::new("compressibility", check(&[rises(3.0), exceeds(1.0)], &[r]));
    std::fs::write(&path, file.to_json()).unwrap();
    assert_eq!(ClaimsFile::read(&path).unwrap(), file);

    std::fs::write(&path, file.to_json().replacen(": 2,", ": 1,", 1)).unwrap();
    let error = ClaimsFile::read(&path).unwrap_err().to_string();
    assert!(error.ends_with("version: expected 2, got 1"), "{error}");
    std::fs::write(&path, "{}").unwrap();
    assert!(ClaimsFile::read(&path).is_err());
    assert!(ClaimsFile::read(&dir.path().join("none.json")).is_err());
}

#[test]
fn a_claim_in_a_configuration_is_checked_key_by_key() {
    let parse = |text: &str| serde_json::from_str::<Claim>(text);
    let good =
        r#"{"kind": "rises", "source": "Fig. 4", "metric": "reward/mean", "standard_errors": 3.0}"#;
    assert_eq!(parse(good).unwrap(), rises(3.0));
    assert!(parse(&good.replace("source", "sauce")).is_err());
    assert!(parse(&good.replace("3.0}", "3.0, \"epoch\": 1}")).is_err());
    let error = parse(&good.replace("reward/mean", "loss")).unwrap_err();
    assert!(
        error.to_string().contains("expected `reward/mean`"),
        "{error}"
    );
}

/// Rows of one set: `rewards[evaluation][sample]`, evaluated every 64 reward queries.
fn evaluated(algorithm: &str, rewards: &[&[f64]]) -> Run {
    let rows = (0..).zip(rewards).flat_map(|(epoch, rewards)| {
        (0..)
            .zip(*rewards)
            .map(move |(sample_id, &reward)| EvalRow {
                epoch,
                reward_queries: 64 * epoch,
                set: "animals".to_owned(),
                sample_id,
                prompt: "cat".to_owned(),
                reward,
                metrics: [("judge".to_owned(), -reward)].into(),
            })
    });
    Run {
        evals: rows.collect(),
        ..run(algorithm, 3, &[])
    }
}

fn on_animals(mut claim: Claim) -> Claim {
    match &mut claim {
        Claim::Rises { metric, .. }
        | Claim::Falls { metric, .. }
        | Claim::Exceeds { metric, .. } => {
            *metric = Metric::Eval("animals".to_owned());
        }
    }
    claim
}

/// By hand: differences 1, 2, 3 have mean 2, std 1, standard error 1/√3; unpaired it would be 0.08 of the spread.
#[test]
fn evaluations_are_compared_image_by_image() {
    let r = evaluated(
        "ddpo-is",
        &[&[0.0, 50.0, 100.0], &[9.0, 9.0, 9.0], &[1.0, 52.0, 103.0]],
    );
    let v = on_animals(rises(3.0))
        .check(std::slice::from_ref(&r))
        .remove(0);
    let c = v.comparison.as_ref().unwrap();
    assert!(c.paired && v.met);
    assert!((c.difference - 2.0).abs() < 1e-12);
    assert!((c.standard_error - 1.0 / 3.0_f64.sqrt()).abs() < 1e-12);
    assert_eq!(
        v.numbers(),
        "50.00 ± 28.87 → 52.00 ± 29.44, paired +2.000 ± 0.577, 3.5 standard errors"
    );
    assert!(!on_animals(rises(3.6)).check(&[r])[0].met);
}

#[test]
fn algorithms_are_compared_after_the_same_number_of_reward_queries() {
    let long = evaluated("ddpo-is", &[&[0.0, 1.0], &[2.0, 3.1], &[0.0, 0.0]]);
    let short = evaluated("ddpo-sf", &[&[0.0, 1.0], &[1.0, 2.0]]);
    let v = on_animals(exceeds(3.0)).check(&[long, short]).remove(0);
    assert!((v.comparison.unwrap().difference - 1.05).abs() < 1e-12);
}

#[test]
fn what_cannot_be_paired_is_not_met_and_says_why() {
    let note = |run: Run, claim: Claim| on_animals(claim).check(&[run])[0].note.clone().unwrap();
    assert_eq!(
        note(evaluated("ddpo-is", &[&[0.0, 1.0]]), rises(3.0)),
        "two evaluations of `animals` are needed, the run has 1"
    );
    let mut other = evaluated("ddpo-is", &[&[0.0, 1.0], &[0.0, 1.0]]);
    other
        .evals
        .iter_mut()
        .for_each(|row| row.set = "objects".to_owned());
    assert_eq!(
        note(other, rises(3.0)),
        "two evaluations of `animals` are needed, the run evaluated objects"
    );
    let one = evaluated("ddpo-is", &[&[0.0], &[1.0]]);
    assert!(
        note(one, rises(3.0)).contains("at least 2"),
        "one pair has no spread"
    );
    let only_start = |name| evaluated(name, &[&[0.0, 1.0]]);
    let v = on_animals(exceeds(3.0)).check(&[only_start("ddpo-is"), only_start("ddpo-sf")]);
    assert!(
        v[0].note
            .as_ref()
            .unwrap()
            .contains("the same number of reward queries")
    );
}

#[test]
fn falls_mirror_rises_and_other_metrics_are_compared_like_the_reward() {
    let run = evaluated("ddpo-is", &[&[1.0, 2.0, 3.0], &[2.0, 3.1, 4.2]]);
    let falls = |metric: &str, standard_errors| Claim::Falls {
        source: "Fig. 7".to_owned(),
        metric: Metric::try_from(metric.to_owned()).unwrap(),
        standard_errors,
        epochs: 1,
    };
    let met = |claim: Claim| claim.check(std::slice::from_ref(&run))[0].met;
    assert!(met(falls("eval/animals/judge", 3.0)));
    assert!(!met(falls("eval/animals/judge", 1e3)));
    assert!(!met(falls("eval/animals", 3.0)));
    let unknown = falls("eval/animals/size", 3.0).check(std::slice::from_ref(&run));
    assert!(unknown[0].note.as_ref().unwrap().contains("no `size`"));
}
