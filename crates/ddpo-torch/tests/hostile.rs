//! Whatever bytes it is given, the reader neither panics nor takes memory for what they promise.

mod reading;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ddpo_torch::weights::{read_all, save};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// The system's memory, with the most that this thread ever had at once.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is; counting touches two cells that need no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get().wrapping_add(layout.size());
        NOW.set(now);
        MOST.set(MOST.get().max(now));
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.set(NOW.get().saturating_sub(layout.size()));
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory of ours that `call` had at once, beyond what was there before.
fn most<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    MOST.set(before);
    let result = call();
    (result, MOST.get().saturating_sub(before))
}

/// Bytes that reading a file of `n` bytes may take in addition to its tensors: a dimension has eight for two of its text, in a
/// list that doubles while it grows, and a name is kept three times.
fn bound(n: usize) -> usize {
    (1 << 14) + 16 * n
}

/// [`reading::survives`], within memory.
fn survives(contents: &[u8]) -> Result<(), TestCaseError> {
    let (outcome, taken) = most(|| reading::survives(contents));
    prop_assert!(
        taken <= bound(contents.len()),
        "{taken} bytes for {}",
        contents.len()
    );
    outcome.map_err(TestCaseError::fail)
}

fn good() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.safetensors");
    let a = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
    let b = Tensor::arange(4, (Kind::Half, Device::Cpu));
    save(&path, [("a", &a), ("b", &b)]).unwrap();
    std::fs::read(&path).unwrap()
}

/// A length, a header and data that have nothing to do with each other.
fn framed() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        any::<u64>(),
        0..300_u64,
        Just(1 << 40),
        Just(100_000_000),
        Just(u64::MAX - 7)
    ];
    let text = "[\\[\\]{}:,\"a-z0-9_]{0,200}";
    (length, text, prop::collection::vec(any::<u8>(), 0..64)).prop_map(|(length, text, data)| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend(data);
        bytes
    })
}

/// A header in the right form with numbers from anywhere.
fn promising() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        0..40_u64,
        Just(1 << 31),
        Just(1 << 40),
        Just(1 << 62),
        Just(u64::MAX)
    ];
    let dtype = prop::sample::select(vec![
        "F32", "F16", "BF16", "I64", "BOOL", "F4", "F8_E5M2", "Q",
    ]);
    let entry = (
        dtype,
        prop::collection::vec(number.clone(), 0..4),
        number.clone(),
        number,
    );
    let entries = prop::collection::vec(entry, 0..4);
    (entries, 0..64_usize).prop_map(|(entries, n_data)| {
        let entries = entries.into_iter().enumerate().map(|(i, (dtype, shape, start, end))| {
            let name = (b'a' + i as u8) as char;
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
        });
        let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend((0..n_data).map(|i| i as u8));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes(contents in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&contents)?;
    }

    #[test]
    fn any_frame(contents in framed()) {
        survives(&contents)?;
    }

    #[test]
    fn any_promise(contents in promising()) {
        survives(&contents)?;
    }

    #[test]
    fn any_damage_to_a_good_file(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        removed in any::<(prop::sample::Index, u8)>(),
        repeated in any::<prop::sample::Index>(),
    ) {
        let mut contents = good();
        for (at, value) in edits {
            let at = at.index(contents.len());
            contents[at] = value;
        }
        let from = removed.0.index(contents.len());
        let to = contents.len().min(from + usize::from(removed.1 % 9));
        contents.drain(from..to);
        let again = contents[repeated.index(contents.len())..].to_vec();
        if removed.1 > 127 {
            contents.extend(again);
        }
        survives(&contents)?;
    }
}

/// The counter counts, or the properties above prove nothing.
#[test]
fn memory_is_counted() {
    let (kept, taken) = most(|| vec![1_u8; 1 << 20]);
    assert!(taken >= kept.len() && taken < 2 * kept.len(), "{taken}");
    assert!(survives(&good()).is_ok());
}

#[test]
fn a_long_header_of_nothing_takes_no_more_than_itself() {
    let header = format!("{{\"a\":{}", "[".repeat(3 << 20));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    let numbers = format!("{{\"a\":[{}0]}}", "0,".repeat(3 << 20));
    let mut long = (numbers.len() as u64).to_le_bytes().to_vec();
    long.extend_from_slice(numbers.as_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let shape = format!(
        "{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{}0]",
        "0,".repeat(3 << 20)
    );
    let mut dimensions = (shape.len() as u64).to_le_bytes().to_vec();
    dimensions.extend_from_slice(shape.as_bytes());
    for contents in [bytes, long, dimensions] {
        std::fs::write(&path, &contents).unwrap();
        let (result, taken) = most(|| read_all(&path));
        assert!(result.is_err());
        assert!(
            taken <= bound(contents.len()),
            "{taken} bytes for {}",
            contents.len()
        );
    }
}
