//! Conformance suites (feature `dev`): what every denoiser and every sampler promises.

use tch::{Kind, Tensor};

use crate::{DenoiseInput, Denoiser};

/// Checks the contract of [`Denoiser`] on one input of at least two samples.
///
/// # Panics
/// With the broken promise.
pub fn denoiser_conforms(net: &dyn Denoiser, input: DenoiseInput<'_>) {
    let shape = input.x_t.size();
    assert!(shape[0] >= 2, "the suite needs two samples or more");
    let plain = tch::no_grad(|| net.predict(input)).expect("a prediction");
    assert_eq!(plain.size(), shape, "shape of the output");
    assert!(!plain.requires_grad(), "no gradient under no_grad");

    let x_t = input.x_t.detach().copy().set_requires_grad(true);
    let output = net
        .predict(DenoiseInput { x_t: &x_t, ..input })
        .expect("a prediction");
    assert!(output.requires_grad(), "a gradient in grad mode");
    let total = output.square().sum(Kind::Float);
    let grads = Tensor::f_run_backward(&[total], &[&x_t], false, false).expect("a gradient");
    assert_eq!(grads[0].size(), shape, "gradient in x_t");
    let close = |name: &str, a: &Tensor, b: &Tensor| {
        let difference = (a.detach() - b.detach()).abs().max().double_value(&[]);
        let largest = b.detach().abs().max().double_value(&[]);
        assert!(
            difference <= 1e-5 * largest.max(1.0),
            "{name}: differs by {difference:.2e}"
        );
    };
    close("with and without gradients", &output, &plain);

    let conditioned = net.conditioned(input.cond).expect("conditioning");
    let again = conditioned(input.x_t, input.t).expect("a prediction");
    assert!(!again.requires_grad(), "no gradient once conditioned");
    close("conditioned", &again, &plain);

    let (one, cond) = (|t: &Tensor| t.narrow(0, 1, 1), input.cond.narrow(1, 1));
    let alone = tch::no_grad(|| {
        net.predict(DenoiseInput {
            x_t: &one(input.x_t),
            t: &one(input.t),
            cond: &cond,
        })
    });
    close("a row alone", &alone.expect("a prediction"), &one(&plain));
}
