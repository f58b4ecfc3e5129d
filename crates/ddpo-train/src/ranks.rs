//! What the ranks of a run must do together when a reward fails on one of them.
//!
//! All of them end the epoch, and the one checkpoint that rank 0 writes has the drawn and scored part of every rank.

use ddpo_torch::weights;
use tch::{Device, Kind, Tensor};

use crate::{Collective, Error, Persist, Result, StateReader, StateWriter};

/// Bytes that are exchanged at a time, since a collective may want them on its device.
const PIECE: i64 = 1 << 26;

/// The component of a checkpoint that has another rank's state.
fn component(rank: usize) -> String {
    format!("rank-{rank}")
}

/// The state of `algorithm` on every rank but this one, on rank 0; nothing on the others, and with one rank.
pub(crate) fn others(
    collective: &dyn Collective,
    device: Device,
    algorithm: &(impl Persist + ?Sized),
) -> Result<Vec<StateReader>> {
    if collective.world() == 1 {
        return Ok(Vec::new());
    }
    let mut state = StateWriter::new();
    algorithm.save(&mut state)?;
    let bytes = gather(collective, device, &Tensor::from_slice(&pack(&state)?))?;
    let others = bytes.iter().enumerate().skip(1);
    others.map(|(rank, bytes)| unpack(rank, bytes)).collect()
}

/// Adds the states of [`others`] to a checkpoint.
pub(crate) fn save(others: &[StateReader], out: &mut StateWriter) -> Result<()> {
    let mut ranks = others.iter().zip(1..);
    ranks.try_for_each(|(state, rank)| out.nested(&component(rank), state))
}

/// Restores an algorithm on this rank, from its own state if ranks differed when the checkpoint was written.
pub(crate) fn restore(
    collective: &dyn Collective,
    state: &StateReader,
    algorithm: &mut (impl Persist + ?Sized),
) -> Result<()> {
    let (rank, world) = (collective.rank(), collective.world());
    let kept = (1..).take_while(|&rank| state.contains(&component(rank)));
    let kept = 1 + kept.count();
    if kept > 1 && kept != world {
        let reason = format!(
            "is the epoch of {kept} ranks that a reward failed in: go on with {kept}, not {world}"
        );
        return Err(state.refuse(&component(1), &reason));
    }
    match rank {
        rank if rank > 0 && kept > 1 => state.nested(&component(rank), algorithm),
        _ => state.nested("algorithm", algorithm),
    }
}

/// `mine`, or the error that another rank's reward has failed: then all ranks end the epoch.
///
/// # Errors
/// The rank's own comes first. One that is not of the reward ends this rank at once, and the others when they next
/// wait for it.
pub(crate) fn agree<T>(collective: &dyn Collective, device: Device, mine: Result<T>) -> Result<T> {
    if collective.world() == 1 || mine.as_ref().is_err_and(|error| !error.is_of_reward()) {
        return mine;
    }
    let votes = Tensor::from_slice(&[f32::from(u8::from(mine.is_err()))]).to_device(device);
    collective.all_reduce_mean(std::slice::from_ref(&votes))?;
    match votes.double_value(&[0]) > 0.0 {
        true => mine.and(Err(Error::RewardElsewhere {
            rank: collective.rank(),
        })),
        false => mine,
    }
}

/// Values in the metadata of a safetensors file.
const VALUES: &str = "values";

fn pack(state: &StateWriter) -> Result<Vec<u8>> {
    let values = serde_json::to_string(&state.values).map_err(Error::model)?;
    let tensors = state
        .tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor));
    Ok(weights::to_bytes(tensors, [(VALUES.to_owned(), values)])?)
}

fn unpack(rank: usize, bytes: &Tensor) -> Result<StateReader> {
    let bytes = Vec::<u8>::try_from(bytes).map_err(Error::model)?;
    let (tensors, texts) = weights::from_bytes(&component(rank), bytes)?;
    let values = texts.get(VALUES).map_or("", String::as_str);
    let values = serde_json::from_str(values).map_err(Error::model)?;
    Ok(StateReader::new(component(rank), tensors, values))
}

/// The bytes of all ranks, which may be of different lengths.
fn gather(collective: &dyn Collective, device: Device, mine: &Tensor) -> Result<Vec<Tensor>> {
    let length = Tensor::from_slice(&[mine.numel() as i64]).to_device(device);
    let lengths = collective.all_gather(&length)?.to_device(Device::Cpu);
    let lengths = Vec::<i64>::try_from(&lengths).map_err(Error::model)?;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut parts: Vec<Vec<Tensor>> = lengths.iter().map(|_| Vec::new()).collect();
    let mut at = 0;
    while at < longest {
        let size = PIECE.min(longest - at);
        let piece = Tensor::zeros([size], (Kind::Uint8, Device::Cpu));
        let there = (mine.numel() as i64 - at).clamp(0, size);
        if there > 0 {
            piece.narrow(0, 0, there).copy_(&mine.narrow(0, at, there));
        }
        let all = collective.all_gather(&piece.to_device(device))?;
        // Only rank 0 needs them; the others have helped.
        if collective.rank() == 0 {
            let all = all.to_device(Device::Cpu);
            for (rank, part) in parts.iter_mut().enumerate() {
                part.push(all.narrow(0, rank as i64 * size, size).copy());
            }
        }
        at += size;
    }
    if collective.rank() != 0 {
        return Ok(Vec::new());
    }
    let whole = parts.into_iter().zip(lengths).map(|(part, length)| {
        let empty = Tensor::zeros([0], (Kind::Uint8, Device::Cpu));
        let all: Vec<Tensor> = std::iter::once(empty).chain(part).collect();
        Tensor::cat(&all, 0).narrow(0, 0, length)
    });
    Ok(whole.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;

    const KINDS: [(Kind, &str); 8] = [
        (Kind::Float, "f32"),
        (Kind::Double, "f64"),
        (Kind::Half, "f16"),
        (Kind::BFloat16, "bf16"),
        (Kind::Int64, "i64"),
        (Kind::Int, "i32"),
        (Kind::Uint8, "u8"),
        (Kind::Bool, "bool"),
    ];

    /// A state that no two ranks have alike, of every kind that is exchanged, and of different lengths.
    fn state(rank: usize) -> StateReader {
        let mut state = StateWriter::new();
        for (i, (kind, name)) in KINDS.into_iter().enumerate() {
            let values = Tensor::arange((rank * 5 + i) as i64, (Kind::Int64, Device::Cpu));
            state.tensor(name, &(values + rank as i64).to_kind(kind));
        }
        state.tensor("square", &Tensor::ones([2, 3], (Kind::Float, Device::Cpu)));
        state
            .value("answers", &vec!["é".repeat(rank); rank])
            .unwrap();
        state.into_reader()
    }

    #[test]
    fn rank_zero_gets_the_states_of_the_others_to_the_byte() {
        let gathered: Vec<Vec<StateReader>> = std::thread::scope(|scope| {
            let spawn = |rank: Threads| {
                scope.spawn(move || others(&rank, Device::Cpu, &state(rank.rank())).unwrap())
            };
            let ranks: Vec<_> = Threads::group(3).into_iter().map(spawn).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert!(gathered[1].is_empty() && gathered[2].is_empty());
        assert_eq!(gathered[0].len(), 2);
        for (got, rank) in gathered[0].iter().zip(1..) {
            let expected = state(rank);
            for name in KINDS.map(|(_, name)| name).into_iter().chain(["square"]) {
                let [got, expected] = [got, &expected].map(|state| state.tensor(name).unwrap());
                assert_eq!((got.kind(), got.size()), (expected.kind(), expected.size()));
                assert_eq!(got, expected, "{name} of rank {rank}");
            }
            let answers = |state: &StateReader| state.value::<Vec<String>>("answers").unwrap();
            assert_eq!(answers(got), answers(&expected));
        }
    }
}
