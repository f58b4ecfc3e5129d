//! A conformance suite (feature `dev`): what every [`Collective`] promises.

use std::time::Duration;

use tch::Tensor;

use crate::Collective;

/// Checks the contract of [`Collective`] on the ranks of one group, each on a thread of its own.
///
/// # Panics
/// With the broken promise.
pub fn collective_conforms<C: Collective + Send>(group: Vec<C>) {
    let world = group.len();
    std::thread::scope(|scope| {
        for (rank, member) in group.into_iter().enumerate() {
            scope.spawn(move || one_rank_conforms(&member, rank, world));
        }
    });
}

fn one_rank_conforms(member: &dyn Collective, rank: usize, world: usize) {
    assert_eq!((member.rank(), member.world()), (rank, world), "places");
    let mine = || Tensor::from_slice(&[rank as f32, 1.0]);
    // Often enough for a rank that runs ahead to be noticed.
    for _ in 0..20 {
        let reduced = [mine(), mine() * 2.0];
        member.all_reduce_mean(&reduced).expect("all_reduce_mean");
        let mean = (world as f64 - 1.0) / 2.0;
        for (tensor, factor) in reduced.iter().zip([1.0, 2.0]) {
            assert_eq!(tensor.double_value(&[0]), factor * mean, "mean of ranks");
            assert_eq!(tensor.double_value(&[1]), factor, "mean of ones");
        }
        if rank % 2 == 1 {
            std::thread::sleep(Duration::from_micros(50));
        }
        let gathered = member.all_gather(&mine()).expect("all_gather");
        assert_eq!(gathered.size(), [2 * world as i64], "gathered");
        for other in 0..world {
            let place = [2 * other as i64];
            assert_eq!(
                gathered.double_value(&place),
                other as f64,
                "order of ranks"
            );
        }
        let sent = [mine()];
        member.broadcast(&sent).expect("broadcast");
        assert_eq!(sent[0].double_value(&[0]), 0.0, "that of rank 0");
    }
}
