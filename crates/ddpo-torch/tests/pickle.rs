//! What the reader of `torch.save` files lets through, and what it refuses. No pickle is kept as a file: they are written here.
use std::io::{Cursor, Write};

use ddpo_torch::{Error, Init, Result, Store};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Writes the opcodes of protocol 2.
#[derive(Default, Clone)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    fn text(self, text: &str) -> Self {
        let n = text.len() as u32;
        self.raw(b"X").raw(&n.to_le_bytes()).raw(text.as_bytes())
    }

    fn int(self, n: i64) -> Self {
        self.raw(&[0x8a, 8]).raw(&n.to_le_bytes())
    }

    fn ints(self, list: &[i64]) -> Self {
        list.iter().fold(self.raw(b"("), |p, n| p.int(*n)).raw(b"t")
    }

    /// `collections.OrderedDict()`.
    fn dict(self) -> Self {
        self.global("collections", "OrderedDict").raw(b")R")
    }

    /// A tensor of `storage`, which claims `n` floats.
    fn tensor(self, storage: &str, n: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", "FloatStorage")
            .text(storage)
            .text("cpu")
            .int(n)
            .raw(b"tQ")
            .int(offset)
            .ints(shape)
            .ints(strides)
            .raw(&[0x89])
            .dict()
            .raw(b"tR")
    }

    /// As `state_dict()` ends: `_metadata` is set on the dictionary.
    fn end(self) -> Self {
        self.raw(b"}").text("_metadata").dict().raw(b"sb.")
    }
}

/// An archive as torch writes it: this pickle, and 0, 1, 2, … as the twelve floats of storage "0".
fn archive(pickle: &[u8]) -> Vec<u8> {
    archive_with(pickle, CompressionMethod::Stored, b"little")
}

fn archive_with(pickle: &[u8], method: CompressionMethod, order: &[u8]) -> Vec<u8> {
    let data: Vec<u8> = (0..12_u8)
        .flat_map(|i| f32::from(i).to_le_bytes())
        .collect();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = FileOptions::default().compression_method(method);
    for (name, bytes) in [
        ("archive/data.pkl", pickle),
        ("archive/byteorder", order),
        ("archive/data/0", &data),
        ("archive/version", b"3\n"),
    ] {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn good() -> Vec<u8> {
    let pickle = Pickle::new().dict().raw(b"(");
    let pickle = pickle.text("plain").tensor("0", 12, 0, &[3, 4], &[4, 1]);
    let pickle = pickle.text("turned").tensor("0", 12, 1, &[2, 3], &[1, 4]);
    pickle.raw(b"u").end().0
}

fn open(bytes: &[u8]) -> Result<Store> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    std::fs::write(&path, bytes).unwrap();
    Store::open(&path, Device::Cpu, Kind::Float)
}

#[track_caller]
fn refused(bytes: &[u8], needle: &str) {
    let error = open(bytes).err().expect("it was let through");
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("weights.pth") && message.contains(needle),
        "{needle:?} is not in: {message}"
    );
}

/// A dictionary with the one tensor `w`.
fn one(tensor: impl FnOnce(Pickle) -> Pickle) -> Vec<u8> {
    archive(&tensor(Pickle::new().dict().text("w")).raw(b"s").end().0)
}

#[test]
fn tensors_are_read_contiguous_and_transposed() {
    let store = open(&archive(&good())).unwrap();
    let root = store.root();
    let plain = root.tensor("plain", &[3, 4], Init::Zeros);
    let turned = root.tensor("turned", &[2, 3], Init::Zeros);
    let counted = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]);
    assert_eq!(plain, counted);
    assert_eq!(turned, counted.narrow(1, 1, 2).transpose(0, 1).contiguous());
    assert!(turned.is_contiguous());
    assert_eq!(store.finish().unwrap().len(), 2);
}

#[test]
fn what_does_not_fit_the_model_is_named_as_for_safetensors() {
    let store = open(&archive(&good())).unwrap();
    let _ = store.root().tensor("plain", &[4, 3], Init::Zeros);
    let _ = store.root().tensor("bias", &[4], Init::Zeros);
    let error = store.finish().unwrap_err().to_string();
    for needle in [
        "`plain` has shape [3, 4], expected [4, 3]",
        "`bias` is missing (expected shape [4])",
        "`turned` is in the file, but the model has no such tensor",
    ] {
        assert!(error.contains(needle), "{needle} is not in: {error}");
    }
}

#[test]
fn any_other_global_is_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_tensor"),
        ("collections", "defaultdict"),
        ("torch.FloatStorage", "x"),
    ] {
        let call = Pickle::new()
            .global(module, name)
            .text("id")
            .raw(&[0x85])
            .raw(b"R.");
        refused(
            &archive(&call.0),
            &format!("it names the global `{module}.{name}`"),
        );
        // Named and never called: refused all the same.
        let named = Pickle::new()
            .dict()
            .text("w")
            .global(module, name)
            .raw(b"s")
            .end();
        refused(&archive(&named.0), &format!("`{module}.{name}`"));
    }
    // What the other ways to a global need: STACK_GLOBAL, INST, OBJ, NEWOBJ, EXT1.
    for opcode in [0x93, b'i', b'o', 0x81, 0x82] {
        let code = Pickle::new().text("os").text("system").raw(&[opcode, b'.']);
        refused(
            &archive(&code.0),
            &format!("opcode {opcode:#04x} is not one"),
        );
    }
}

#[test]
fn a_dictionary_in_itself_is_refused() {
    let direct = Pickle::new()
        .dict()
        .raw(b"q\x01")
        .text("w")
        .raw(b"h\x01s")
        .end();
    refused(&archive(&direct.0), "a dictionary refers to itself");
    // a = {}; b = {"a": a}; a["b"] = b is the same in two steps; b is older than what it is put into.
    let b = Pickle::new()
        .raw(b"}q\x01")
        .text("a")
        .raw(b"}q\x02")
        .text("b")
        .raw(b"h\x01ss.");
    refused(&archive(&b.0), "a dictionary refers to itself");
    let tuple = Pickle::new().raw(b"}q\x01").text("w").raw(b"h\x01\x85s.");
    refused(&archive(&tuple.0), "a dictionary holds a tuple");
    // Four million tuples inside each other: read without recursion.
    let deep = Pickle::new()
        .raw(b")")
        .raw(&vec![0x85; 4_000_000])
        .raw(b".");
    refused(
        &archive(&deep.0),
        "it does not hold a dictionary of tensors",
    );
}

#[test]
fn sizes_that_lie_are_refused() {
    let claims = |needle: &str, tensor: &dyn Fn(Pickle) -> Pickle| refused(&one(tensor), needle);
    claims(
        "claims a storage of 13 Float, the archive has 48 bytes",
        &|p| p.tensor("0", 13, 0, &[2], &[1]),
    );
    for n in [-1, i64::MAX, i64::MIN, 1 << 62] {
        claims("claims a storage of", &|p| p.tensor("0", n, 0, &[2], &[1]));
    }
    for (offset, shape, strides) in [
        (0, vec![13], vec![1]),
        (1, vec![12], vec![1]),
        (-1, vec![2], vec![1]),
        (0, vec![-1], vec![1]),
        (0, vec![4], vec![-1]),
        (0, vec![2, 2], vec![1]),
        (0, vec![13], vec![0]),
        (0, vec![1 << 40, 1 << 40], vec![0, 0]),
        (0, vec![2, 2], vec![i64::MAX, i64::MAX]),
        (i64::MAX, vec![2], vec![1]),
        (13, vec![0], vec![1]),
    ] {
        claims("claims shape", &|p| {
            p.tensor("0", 12, offset, &shape, &strides)
        });
    }
    claims("has no data in the archive", &|p| {
        p.tensor("1", 12, 0, &[2], &[1])
    });
    claims("has no data in the archive", &|p| {
        p.tensor("../0", 12, 0, &[2], &[1])
    });
    claims("a tensor of 9 dimensions", &|p| {
        p.tensor("0", 12, 0, &[1; 9], &[1; 9])
    });
    claims("name has 40 bytes", &|p| {
        p.tensor(&"0".repeat(40), 12, 0, &[1], &[1])
    });
}

#[test]
fn anything_but_a_dictionary_of_tensors_is_refused() {
    refused(&one(|p| p.int(7)), "`w` is no tensor");
    refused(&one(|p| p.text("code")), "`w` is no tensor");
    refused(&one(Pickle::dict), "`w` is no tensor");
    refused(
        &archive(&Pickle::new().int(1).raw(b".").0),
        "not hold a dictionary of tensors",
    );
    refused(
        &archive(&[0x80, 4, b'}', b'.']),
        "pickle protocol 4, expected 2",
    );
    let state = Pickle::new()
        .dict()
        .raw(b"}")
        .text("__class__")
        .dict()
        .raw(b"sb.");
    refused(&archive(&state.0), "it sets the state of an object");
    let twice = Pickle::new().dict().raw(b"(");
    let twice = ["w", "w"]
        .iter()
        .fold(twice, |p, name| p.text(name).tensor("0", 12, 0, &[1], &[1]));
    refused(&archive(&twice.raw(b"u").end().0), "`w` is there twice");
    for keep in 2..good().len() {
        refused(&archive(&good()[..keep]), "weights.pth");
    }
}

#[test]
fn an_archive_that_torch_would_not_write_is_refused() {
    let deflated = archive_with(&good(), CompressionMethod::Deflated, b"little");
    refused(&deflated, "is compressed, which torch never does");
    let big = archive_with(&good(), CompressionMethod::Stored, b"big");
    refused(&big, "not in little-endian order");
    let whole = archive(&good());
    for keep in (4..whole.len()).step_by(7) {
        refused(&whole[..keep], "its archive is damaged");
    }
    // torch 1.5 begins with a pickle of its magic number.
    let old = Pickle::new()
        .raw(&[0x8a, 10])
        .raw(b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.");
    refused(&old.0, "it is from before torch 1.6");
    let long = Pickle::new().raw(&vec![b'N'; 5 << 20]).raw(b".");
    refused(&archive(&long.0), "bytes, at most");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is changed, the reader comes back: with an error, or with tensors that lie within the file.
    #[test]
    fn a_mutated_pickle_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut pickle = good();
        for (at, byte) in &changes {
            let at = at.index(pickle.len());
            pickle[at] = *byte;
        }
        read_through(&archive(&pickle));
    }

    #[test]
    fn a_mutated_archive_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = archive(&good());
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        read_through(&bytes);
    }
}

fn read_through(bytes: &[u8]) {
    if let Ok(store) = open(bytes) {
        let _ = store.root().tensor("plain", &[3, 4], Init::Zeros);
        let _ = store.root().tensor("turned", &[2, 3], Init::Zeros);
        if let Ok(tensors) = store.finish() {
            assert!(tensors.values().all(|t| t.numel() <= 12));
        }
    }
}
