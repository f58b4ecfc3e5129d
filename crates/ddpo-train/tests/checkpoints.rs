//! What is on disk is whole or not there.
use std::fs;
use std::path::Path;

use ddpo_testkit::World;
use ddpo_train::{
    Algorithm, Boundary, Checkpoints, Error, Event, Meter, Observer, Outcome, Persist, Result,
    RolloutRequest, RolloutSink, ScoredSample, StateReader, StateWriter, TrainContext, TrainPlan,
    UpdateIndex, train,
};
use tch::{Kind, Tensor};

/// Adds one to a weight each epoch and counts.
#[derive(Default)]
struct Counts {
    collected: u64,
    stop_at: Option<u64>,
    sink: (),
}

impl Algorithm for Counts {
    fn request(&self, ctx: &TrainContext<'_>, epoch: u64) -> Result<RolloutRequest> {
        if self.stop_at == Some(epoch) {
            ctx.stop.request();
        }
        Ok(RolloutRequest::new(ctx.ids_of_rank(10), 10))
    }

    fn sink(&mut self) -> &mut dyn RolloutSink {
        &mut self.sink
    }

    fn prepare(
        &mut self,
        _: &mut TrainContext<'_>,
        _: u64,
        _: &mut [ScoredSample],
        _: &mut Meter,
    ) -> Result<()> {
        self.collected += 1;
        Ok(())
    }

    fn n_updates(&self) -> usize {
        1
    }

    fn update(&mut self, ctx: &mut TrainContext<'_>, at: UpdateIndex, _: &mut Meter) -> Result<()> {
        let mut weight = ctx.policy.params().tensors()[0].shallow_clone();
        tch::no_grad(|| weight += (at.epoch + 1) as f64);
        Ok(())
    }

    fn stats(&self) -> Meter {
        Meter::default()
    }
}

impl Persist for Counts {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("collected", &self.collected)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.collected = from.value("collected")?;
        Ok(())
    }
}

/// One line per event.
#[derive(Default)]
struct Log(Vec<String>);

impl Observer for Log {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        self.0.push(match event {
            Event::EpochStarted { epoch, .. } => format!("start {epoch}"),
            Event::EpochDone {
                epoch,
                reward_queries,
                ..
            } => format!("done {epoch} after {reward_queries}"),
            Event::CheckpointWritten { path, .. } => {
                format!("wrote {}", path.file_name().unwrap().to_string_lossy())
            }
            Event::Resumed { epochs_done, .. } => format!("resume {epochs_done}"),
            _ => return Ok(()),
        });
        Ok(())
    }

    fn at_boundary(&mut self, boundary: &Boundary<'_>) -> Result<()> {
        let last = if boundary.last { ", last" } else { "" };
        self.0
            .push(format!("boundary {}{last}", boundary.epochs_done));
        Ok(())
    }
}

fn run(
    algorithm: &mut Counts,
    folder: &Path,
    plan: TrainPlan,
    keep: usize,
) -> (Outcome, Vec<String>, f64) {
    let checkpoints = Checkpoints::open(folder, keep).unwrap();
    let plan = TrainPlan {
        resume: checkpoints.latest().unwrap(),
        checkpoints: Some(checkpoints),
        ..plan
    };
    let (mut world, mut log) = (World::new().unwrap(), Log::default());
    let outcome = train(algorithm, &mut world.context(vec![&mut log]), &plan).unwrap();
    let weight = world.policy.params().tensors()[0].double_value(&[0]);
    (outcome, log.0, weight)
}

fn epochs(epochs: u64) -> TrainPlan {
    TrainPlan {
        epochs,
        checkpoint_every: 2,
        ..TrainPlan::default()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_says_what_it_does_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (outcome, log, weight) = run(&mut Counts::default(), folder.path(), epochs(3), 5);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(weight, 6.0);
    assert_eq!(
        log,
        [
            "boundary 0",
            "start 0",
            "done 0 after 10",
            "boundary 1",
            "start 1",
            "done 1 after 20",
            "boundary 2",
            "wrote epoch-000002",
            "start 2",
            "done 2 after 30",
            "boundary 3, last",
            "wrote epoch-000003",
        ]
    );
    let mut again = Counts::default();
    let (outcome, log, weight) = run(&mut again, folder.path(), epochs(4), 5);
    assert_eq!((outcome, weight, again.collected), (Outcome::Done, 10.0, 4));
    assert_eq!(log[..2], ["resume 3", "start 3"]);
}

#[test]
fn a_request_to_stop_leaves_a_checkpoint_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let mut algorithm = Counts {
        stop_at: Some(1),
        ..Counts::default()
    };
    let (outcome, _, weight) = run(&mut algorithm, folder.path(), epochs(3), 5);
    let Outcome::Interrupted { checkpoint } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(checkpoint.unwrap().ends_with("epoch-000001-partial"));
    assert_eq!(weight, 1.0);
    let (outcome, _, weight) = run(&mut Counts::default(), folder.path(), epochs(3), 5);
    assert_eq!((outcome, weight), (Outcome::Done, 6.0));
}

#[test]
fn time_ends_a_run_at_an_epoch_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let plan = TrainPlan {
        max_time: Some(std::time::Duration::ZERO),
        ..epochs(3)
    };
    let (outcome, log, _) = run(&mut Counts::default(), folder.path(), plan, 5);
    assert_eq!(outcome, Outcome::TimeUp { epochs_done: 1 });
    assert_eq!(log.last().unwrap(), "wrote epoch-000001");
}

#[test]
fn the_newest_checkpoints_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let plan = TrainPlan {
        checkpoint_every: 1,
        ..epochs(5)
    };
    run(&mut Counts::default(), folder.path(), plan, 2);
    assert_eq!(names(folder.path()), ["epoch-000004", "epoch-000005"]);
}

#[test]
fn damage_of_any_file_falls_back_to_the_checkpoint_before() {
    let folder = tempfile::tempdir().unwrap();
    run(&mut Counts::default(), folder.path(), epochs(4), 5);
    let newest = folder.path().join("epoch-000004");
    for name in names(&newest) {
        let path = newest.join(&name);
        let whole = fs::read(&path).unwrap();
        let truncated = whole[..whole.len() - 1].to_vec();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [Some(truncated), Some(flipped), None] {
            match &damaged {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let found = Checkpoints::open(folder.path(), 5).unwrap().latest();
            let found = found.unwrap().unwrap();
            assert_eq!(found.epochs_done, 2, "{name}");
            let reason = found.passed_over[0].to_string();
            assert!(reason.contains("epoch-000004"), "{reason}");
        }
        fs::write(&path, &whole).unwrap();
    }
    let found = Checkpoints::open(folder.path(), 5).unwrap().latest();
    assert_eq!(found.unwrap().unwrap().epochs_done, 4);
}

#[test]
fn nothing_whole_is_an_error_and_nothing_at_all_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path(), 5).unwrap();
    assert!(checkpoints.latest().unwrap().is_none());
    fs::create_dir(folder.path().join("epoch-000001")).unwrap();
    let error = checkpoints.latest().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("manifest.json"), "{error}");
}

#[test]
fn what_a_killed_run_left_half_written_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join(".epoch-000002.tmp");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("policy.safetensors"), b"half").unwrap();
    let checkpoints = Checkpoints::open(folder.path(), 5).unwrap();
    assert!(checkpoints.latest().unwrap().is_none());
    assert!(!half.exists());
}

proptest::proptest! {
    #[test]
    fn values_survive_exactly(
        floats in proptest::collection::vec(-1e300..1e300_f64, 0..20),
        small in proptest::collection::vec(0.0..1e-300_f64, 0..20),
        single: f32,
        count: u64,
    ) {
        struct Values(Vec<f64>, Vec<f64>, f32, u64);
        impl Persist for Values {
            fn save(&self, out: &mut StateWriter) -> Result<()> {
                out.value("floats", &self.0)?;
                out.value("small", &self.1)?;
                out.tensor("single", &Tensor::from_slice(&[self.2]));
                out.value("count", &self.3)
            }
            fn load(&mut self, from: &StateReader) -> Result<()> {
                self.0 = from.value("floats")?;
                self.1 = from.value("small")?;
                self.2 = from.tensor("single")?.to_kind(Kind::Float).double_value(&[0]) as f32;
                self.3 = from.value("count")?;
                Ok(())
            }
        }
        let mut state = StateWriter::new();
        state.nested("x", &Values(floats.clone(), small.clone(), single, count)).unwrap();
        let text = serde_json::to_string(&(&floats, &small)).unwrap();
        let (read_floats, read_small): (Vec<f64>, Vec<f64>) = serde_json::from_str(&text).unwrap();
        proptest::prop_assert_eq!(&read_floats, &floats);
        proptest::prop_assert_eq!(&read_small, &small);
        let mut loaded = Values(vec![], vec![], 0.0, 0);
        state.into_reader().nested("x", &mut loaded).unwrap();
        proptest::prop_assert_eq!(loaded.0, floats);
        proptest::prop_assert_eq!(loaded.1, small);
        proptest::prop_assert_eq!(loaded.2.to_bits(), single.to_bits());
        proptest::prop_assert_eq!(loaded.3, count);
    }
}
