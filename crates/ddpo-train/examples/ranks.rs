//! Two ranks train as one, and a restart changes no bit: `cargo run -p ddpo-train --example ranks`.
//!
//! A line is fitted by AdamW: by one rank with all points, and by two threads with half of them each, which exchange
//! nothing but gradients. One of the runs is saved midway, forgotten, and goes on from what was saved.

use std::thread;

use ddpo_train::{
    AdamW, AdamWConfig, Collective, Error, Optimizer, ParamSet, Persist, Result, Solo, StateReader,
    StateWriter, Threads,
};
use tch::{Device, Kind, Tensor};

const STEPS: usize = 200;
const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// What a rank has.
struct Run {
    params: ParamSet,
    adamw: AdamW,
}

impl Run {
    fn new() -> Result<Self> {
        let zero = |name: &str| {
            (
                name.to_owned(),
                Tensor::zeros([1], CPU).set_requires_grad(true),
            )
        };
        let params = ParamSet::new(vec![zero("slope"), zero("offset")])?;
        let config = AdamWConfig {
            lr: 0.05,
            ..AdamWConfig::default()
        };
        let adamw = AdamW::new(config, &params)?;
        Ok(Self { params, adamw })
    }

    /// Updates with this rank's share of `y = 3 x − 1`.
    fn train(&mut self, steps: usize, ranks: &dyn Collective) -> Result<()> {
        let all = Tensor::linspace(-1.0, 1.0, 64, CPU);
        let x = all.chunk(ranks.world() as i64, 0).swap_remove(ranks.rank());
        let y = &x * 3.0 - 1.0;
        for _ in 0..steps {
            let [offset, slope] = self.params.tensors() else {
                unreachable!("two parameters, sorted by name");
            };
            (&x * slope + offset - &y)
                .square()
                .mean(Kind::Float)
                .backward();
            ranks.all_reduce_mean(&self.params.grads()?)?;
            self.adamw.step(&self.params, f64::INFINITY)?;
        }
        Ok(())
    }

    fn line(&self) -> [f64; 2] {
        ["slope", "offset"].map(|name| {
            self.params
                .get(name)
                .map_or(f64::NAN, |t| t.double_value(&[0]))
        })
    }
}

impl Persist for Run {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.nested("params", &self.params)?;
        out.nested("adamw", &self.adamw)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        from.nested("params", &mut self.params)?;
        from.nested("adamw", &mut self.adamw)
    }
}

/// Ends with the first rank's line.
fn in_threads(world: usize) -> Result<[f64; 2]> {
    let of_rank = |rank: Threads| {
        thread::spawn(move || {
            let mut run = Run::new()?;
            run.train(STEPS, &rank)?;
            Ok(run.line())
        })
    };
    let threads: Vec<_> = Threads::group(world).into_iter().map(of_rank).collect();
    let lines = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|_| Err(lost())));
    let lines = lines.collect::<Result<Vec<_>>>()?;
    assert!(
        lines.iter().all(|line| *line == lines[0]),
        "ranks agree to the bit: {lines:?}"
    );
    Ok(lines[0])
}

fn lost() -> Error {
    Error::Collective { rank: 0 }
}

/// Stops halfway, and goes on in another run from what was saved.
fn resumed() -> Result<[f64; 2]> {
    let (mut first, mut second) = (Run::new()?, Run::new()?);
    first.train(STEPS / 2, &Solo)?;
    let mut state = StateWriter::new();
    first.save(&mut state)?;
    second.load(&state.into_reader())?;
    second.train(STEPS - STEPS / 2, &Solo)?;
    Ok(second.line())
}

fn main() -> Result<()> {
    let mut alone = Run::new()?;
    alone.train(STEPS, &Solo)?;
    let (alone, two, resumed) = (alone.line(), in_threads(2)?, resumed()?);
    println!("one rank:  slope {:.6}, offset {:.6}", alone[0], alone[1]);
    println!("two ranks: slope {:.6}, offset {:.6}", two[0], two[1]);
    println!(
        "resumed:   slope {:.6}, offset {:.6}",
        resumed[0], resumed[1]
    );
    // Two halves are summed in another order than the whole.
    let apart = (alone[0] - two[0]).abs().max((alone[1] - two[1]).abs());
    assert!(apart < 1e-4, "two ranks are one, to rounding: {apart}");
    assert_eq!(alone, resumed, "a restart changes no bit");
    Ok(())
}
