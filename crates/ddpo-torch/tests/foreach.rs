//! The list operations and the fused optimiser against their formulas.
use ddpo_torch::{
    AdamWConfig, CudaStatus, Error, Tf32, device, foreach_lerp_, foreach_mul_, foreach_norm,
    fused_adamw, global_norm, load_cuda, set_deterministic, set_tf32, tf32,
};
use tch::{Device, Kind, Tensor};

const ARGS: AdamWConfig = AdamWConfig {
    lr: 3e-3,
    beta1: 0.9,
    beta2: 0.999,
    weight_decay: 1e-2,
    eps: 1e-8,
};

/// A fixed, uneven sequence in about ±1; no global generator.
fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 37 + seed * 101 + 11) as f32 * 0.731).sin())
        .collect()
}

fn to_vec(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor.contiguous().view([-1])).unwrap()
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, Device::Cpu))
}

struct State {
    params: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
}

impl State {
    fn new(shapes: &[Vec<i64>]) -> Self {
        let param = |(i, shape): (usize, &Vec<i64>)| {
            let n = shape.iter().product::<i64>() as usize;
            Tensor::from_slice(&values(n, i))
                .view(shape.as_slice())
                .set_requires_grad(true)
        };
        Self {
            params: shapes.iter().enumerate().map(param).collect(),
            exp_avgs: shapes.iter().map(|s| zeros(s)).collect(),
            exp_avg_sqs: shapes.iter().map(|s| zeros(s)).collect(),
            steps: shapes.iter().map(|_| zeros(&[])).collect(),
        }
    }

    fn step(&self, grads: &[Tensor]) -> ddpo_torch::Result<()> {
        fused_adamw(
            &self.params,
            grads,
            &self.exp_avgs,
            &self.exp_avg_sqs,
            &self.steps,
            ARGS,
        )
    }
}

#[test]
fn twenty_fused_steps_follow_the_closed_form() {
    let shapes = [vec![3, 5], vec![7], vec![2, 3, 1, 2]];
    let state = State::new(&shapes);
    let mut expected: Vec<Vec<f64>> = state
        .params
        .iter()
        .map(|p| to_vec(p).iter().map(|&v| f64::from(v)).collect())
        .collect();
    let mut m: Vec<Vec<f64>> = expected.iter().map(|p| vec![0.0; p.len()]).collect();
    let mut v = m.clone();
    for step in 1..=20 {
        let raw: Vec<Vec<f32>> = expected
            .iter()
            .enumerate()
            .map(|(i, p)| values(p.len(), 10 * step + i))
            .collect();
        let grads: Vec<Tensor> = raw
            .iter()
            .zip(&shapes)
            .map(|(g, shape)| Tensor::from_slice(g).view(shape.as_slice()))
            .collect();
        state.step(&grads).unwrap();
        for (i, grad) in raw.iter().enumerate() {
            for (j, &g) in grad.iter().enumerate() {
                let g = f64::from(g);
                let p = &mut expected[i][j];
                *p *= 1.0 - ARGS.lr * ARGS.weight_decay;
                m[i][j] += (1.0 - ARGS.beta1) * (g - m[i][j]);
                v[i][j] = ARGS.beta2 * v[i][j] + (1.0 - ARGS.beta2) * g * g;
                let m_hat = m[i][j] / (1.0 - ARGS.beta1.powi(step as i32));
                let v_hat = v[i][j] / (1.0 - ARGS.beta2.powi(step as i32));
                *p -= ARGS.lr * m_hat / (v_hat.sqrt() + ARGS.eps);
            }
        }
    }
    for (i, param) in state.params.iter().enumerate() {
        assert!(
            param.requires_grad(),
            "the step must not change what is trained"
        );
        assert_eq!(state.steps[i].double_value(&[]), 20.0);
        for (j, actual) in to_vec(param).into_iter().enumerate() {
            let difference = (f64::from(actual) - expected[i][j]).abs();
            assert!(
                difference <= 1e-6,
                "params[{i}][{j}] is {difference:e} from the closed form"
            );
        }
    }
}

#[test]
fn a_transposed_gradient_is_read_by_its_indices() {
    let (plain, transposed) = (State::new(&[vec![3, 5]]), State::new(&[vec![3, 5]]));
    let grad = Tensor::from_slice(&values(15, 4)).view([5, 3]).tr();
    assert!(!grad.is_contiguous());
    plain.step(&[grad.contiguous()]).unwrap();
    transposed.step(&[grad]).unwrap();
    assert_eq!(plain.params[0], transposed.params[0]);
}

#[test]
fn lists_that_do_not_fit_are_refused_before_anything_changes() {
    let refused = |grads: &[Tensor], needle: &str| {
        let state = State::new(&[vec![3, 5], vec![7]]);
        let before = state.params[0].copy();
        let error = state.step(grads).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error:?}");
        assert!(error.to_string().contains(needle), "{error}");
        assert_eq!(before, state.params[0]);
        assert_eq!(state.steps[0].double_value(&[]), 0.0);
    };
    refused(&[zeros(&[3, 5])], "grads has 1 tensors, expected 2");
    refused(
        &[zeros(&[3, 5]), zeros(&[8])],
        "grads[1] has shape [8], expected [7]",
    );
    refused(
        &[zeros(&[3, 5]), zeros(&[7]).to_kind(Kind::Double)],
        "grads[1] is (Double",
    );
    let mut state = State::new(&[vec![4]]);
    state.steps[0] = zeros(&[2]);
    let error = state.step(&[zeros(&[4])]).unwrap_err().to_string();
    assert!(error.contains("steps[0] is Float [2]"), "{error}");
}

#[test]
fn the_global_norm_is_that_of_all_elements() {
    let lists = [values(15, 1), values(7, 2)];
    let tensors: Vec<Tensor> = lists.iter().map(|v| Tensor::from_slice(v)).collect();
    let squares: Vec<f64> = lists
        .iter()
        .map(|v| v.iter().map(|&x| f64::from(x).powi(2)).sum())
        .collect();
    for (norm, square) in foreach_norm(&tensors).unwrap().iter().zip(&squares) {
        assert!((norm.double_value(&[]) - square.sqrt()).abs() <= 1e-6);
    }
    let expected = squares.iter().sum::<f64>().sqrt();
    assert!((global_norm(&tensors).unwrap() - expected).abs() <= 1e-6);
    assert_eq!(global_norm(&[]).unwrap(), 0.0);
    let spoilt = Tensor::from_slice(&[1.0f32, f32::NAN]);
    assert!(global_norm(&[spoilt]).unwrap().is_nan());
}

#[test]
fn half_precision_gradients_do_not_overflow_their_norm() {
    let large = Tensor::full([64], 3e4, (Kind::Half, Device::Cpu));
    let norm = global_norm(&[large]).unwrap();
    assert!((norm / (3e4 * 8.0) - 1.0).abs() <= 1e-3, "{norm}");
}

#[test]
fn multiplication_and_interpolation_change_leaves_in_place() {
    let tensors: Vec<Tensor> = [values(6, 3), values(4, 5)]
        .iter()
        .map(|v| Tensor::from_slice(v).set_requires_grad(true))
        .collect();
    let before: Vec<Vec<f32>> = tensors.iter().map(to_vec).collect();
    foreach_mul_(&tensors, 0.5).unwrap();
    let ends: Vec<Tensor> = tensors.iter().map(|t| t.detach().ones_like()).collect();
    foreach_lerp_(&tensors, &ends, 0.1).unwrap();
    for (tensor, before) in tensors.iter().zip(before) {
        for (actual, before) in to_vec(tensor).into_iter().zip(before) {
            let half = 0.5 * before;
            assert!((actual - (half + 0.1 * (1.0 - half))).abs() <= 1e-6);
        }
    }
}

#[test]
fn what_libtorch_throws_becomes_an_error() {
    let ids = [Tensor::from_slice(&[1i64, 2])];
    let error = foreach_norm(&ids).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Libtorch {
                op: "foreach_norm",
                ..
            }
        ),
        "{error:?}"
    );
    let error = foreach_lerp_(&[zeros(&[2])], &[zeros(&[3])], 0.5).unwrap_err();
    assert!(
        error.to_string().contains("ends[0] has shape [3]"),
        "{error}"
    );
}

#[test]
fn the_missing_gradient_of_an_unused_parameter_is_an_error() {
    let state = State::new(&[vec![4]]);
    let missing = [state.params[0].grad()];
    assert!(!missing[0].defined());
    let error = state.step(&missing).unwrap_err().to_string();
    assert!(error.contains("grads[0] is undefined"), "{error}");
    assert!(global_norm(&missing).is_err());
    assert!(foreach_mul_(&missing, 2.0).is_err());
    assert!(foreach_lerp_(&state.params, &missing, 0.5).is_err());
}

#[test]
fn a_device_is_found_or_refused_with_its_name() {
    assert_eq!(device("cpu").unwrap(), Device::Cpu);
    for name in ["gpu", "cuda:", "cuda:+1", "cuda:x", "CPU", ""] {
        let error = device(name).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`{name}`")) && error.contains("cuda:N"),
            "{error}"
        );
    }
    match load_cuda() {
        CudaStatus::Loaded => assert_eq!(device("cuda:0").unwrap(), Device::Cuda(0)),
        status => {
            let error = device("cuda:0").unwrap_err().to_string();
            assert!(error.contains(&status.to_string()), "{error}");
        }
    }
}

#[test]
fn precision_switches_work_without_cuda() {
    for on in [true, false] {
        set_tf32(on).unwrap();
        let (products, convolutions) = (on, on);
        let expected = Tf32 {
            products,
            convolutions,
        };
        assert_eq!(tf32().unwrap(), expected);
        set_deterministic(on).unwrap();
    }
}
