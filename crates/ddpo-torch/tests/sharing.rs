//! Weights that share a file's memory: what that costs, and that the file and the tensors do not notice each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ddpo_torch::weights::{read_all, save};
use ddpo_torch::{Error, Init, Store};
use tch::{Device, Kind, Tensor};

/// Three tensors of some pages each, numbered from zero.
fn numbers(kind: Kind) -> BTreeMap<String, Tensor> {
    let one = |i: i64| {
        let all = Tensor::arange(6000, (Kind::Float, Device::Cpu)).view([60, 100]);
        // Whole numbers that bf16 holds too.
        all.remainder(100) + i
    };
    (0..3)
        .map(|i| (format!("w{i}"), one(i).to_kind(kind)))
        .collect()
}

fn written(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    save(path, tensors.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
}

fn load(store: Store, names: &[&str]) -> ddpo_torch::Result<BTreeMap<String, Tensor>> {
    for name in names {
        let _ = store.root().tensor(name, &[60, 100], Init::Zeros);
    }
    store.finish()
}

const NAMES: [&str; 3] = ["w0", "w1", "w2"];

fn open(path: &Path, kind: Kind) -> BTreeMap<String, Tensor> {
    load(Store::open(path, Device::Cpu, kind).unwrap(), &NAMES).unwrap()
}

/// Whether the kernel says that this memory is a file's.
fn is_mapped(tensor: &Tensor, file: &Path) -> bool {
    let address = tensor.data_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut lines = maps
        .lines()
        .filter(|line| line.ends_with(file.to_str().unwrap()));
    lines.any(|line| {
        let range = line.split(' ').next().unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|n| usize::from_str_radix(n, 16).unwrap());
        (start..end).contains(&address)
    })
}

#[test]
fn weights_in_the_files_own_kind_are_the_files_memory_and_converted_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for kind in [Kind::Float, Kind::Half, Kind::BFloat16] {
        let expected = numbers(kind);
        written(&path, &expected);
        let shared = open(&path, kind);
        assert!(shared.values().all(|tensor| is_mapped(tensor, &path)));
        assert_eq!(shared, expected);
        let converted = open(&path, Kind::Double);
        assert!(!converted.values().any(|tensor| is_mapped(tensor, &path)));
        assert!(
            converted
                .iter()
                .all(|(n, t)| *t == expected[n].to_kind(Kind::Double))
        );
    }
}

#[test]
fn changing_a_weight_changes_neither_the_file_nor_another_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    written(&path, &numbers(Kind::Float));
    let before = std::fs::read(&path).unwrap();
    let (mut first, second) = (open(&path, Kind::Float), open(&path, Kind::Float));
    let _ = tch::no_grad(|| first.get_mut("w1").unwrap().fill_(7.0));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(second, numbers(Kind::Float));
    assert_eq!(first["w0"], second["w0"]);
    assert_eq!(first["w1"].sum(Kind::Float).double_value(&[]), 7.0 * 6000.0);
}

#[test]
fn weights_outlive_their_file_and_its_replacement() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    written(&path, &numbers(Kind::Float));
    let weights = open(&path, Kind::Float);
    written(&path, &numbers(Kind::Half));
    assert_eq!(weights, numbers(Kind::Float));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(weights, numbers(Kind::Float));
}

/// They lie in one piece of memory, but autograd must not take a change to one for a change to all.
#[test]
fn a_weight_can_be_changed_between_forward_and_backward_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    written(&path, &numbers(Kind::Float));
    let mut weights = open(&path, Kind::Float);
    let learned = weights["w0"].set_requires_grad(true);
    let loss = (&learned * &weights["w1"]).sum(Kind::Float);
    let _ = tch::no_grad(|| weights.get_mut("w2").unwrap().fill_(1.0));
    loss.backward();
    assert_eq!(learned.grad(), weights["w1"]);
}

#[test]
fn an_element_across_its_natural_boundary_is_read_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.push(9);
    bytes.extend([1.5_f32, -2.5].iter().flat_map(|x| x.to_le_bytes()));
    std::fs::write(&path, bytes).unwrap();
    let tensors = ddpo_torch::weights::share_all(&path).unwrap();
    assert_eq!(tensors["w"], Tensor::from_slice(&[1.5_f32, -2.5]));
    assert_eq!(tensors, read_all(&path).unwrap());
}

#[test]
fn values_that_are_not_finite_are_named_with_their_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for kind in [Kind::Float, Kind::Half, Kind::BFloat16, Kind::Double] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let tensors = numbers(kind);
            let _ = tensors["w0"].get(59).get(99).fill_(bad);
            let _ = tensors["w2"].get(0).get(0).fill_(bad);
            written(&path, &tensors);
            for asked in [kind, Kind::Float] {
                let store = Store::open(&path, Device::Cpu, asked).unwrap();
                let error = load(store, &NAMES).unwrap_err();
                let Error::Misfit { file, faults } = &error else {
                    panic!("{error:?}")
                };
                assert!(file.ends_with("weights.safetensors"));
                let expected =
                    ["w0", "w2"].map(|n| format!("`{n}` has values that are not finite"));
                assert_eq!(faults.as_slice(), expected, "{kind:?} as {asked:?}, {bad}");
            }
        }
    }
}

#[test]
fn values_beyond_f16_are_named_where_f16_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let tensors = numbers(Kind::Float);
    let _ = tensors["w1"].get(3).get(4).fill_(-1e5);
    written(&path, &tensors);
    let error = load(Store::open(&path, Device::Cpu, Kind::Half).unwrap(), &NAMES).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`w1` has values up to 1.000e5, f16 ends at 65504"),
        "{message}"
    );
    assert!(!message.contains("`w0`"), "{message}");
    assert!(
        open(&path, Kind::BFloat16)["w1"]
            .isfinite()
            .all()
            .int64_value(&[])
            == 1
    );
}

/// Two files and an index; returns the index.
fn shards(folder: &Path, map: &[(&str, &str)]) -> PathBuf {
    let mut all = numbers(Kind::Float);
    let last = BTreeMap::from([("w2".to_owned(), all.remove("w2").unwrap())]);
    written(&folder.join("m-00001-of-00002.safetensors"), &all);
    written(&folder.join("m-00002-of-00002.safetensors"), &last);
    let entries: Vec<String> = map
        .iter()
        .map(|(n, f)| format!("\"{n}\": \"{f}\""))
        .collect();
    let text = format!(
        "{{\"metadata\": {{\"total_size\": 72000}}, \"weight_map\": {{{}}}}}",
        entries.join(", ")
    );
    let index = folder.join("m.safetensors.index.json");
    std::fs::write(&index, text).unwrap();
    index
}

const MAP: [(&str, &str); 3] = [
    ("w0", "m-00001-of-00002.safetensors"),
    ("w1", "m-00001-of-00002.safetensors"),
    ("w2", "m-00002-of-00002.safetensors"),
];

#[test]
fn weights_in_several_files_load_as_from_one() {
    let folder = tempfile::tempdir().unwrap();
    let index = shards(folder.path(), &MAP);
    let sharded = |names: &[&str]| {
        load(
            Store::sharded(&index, Device::Cpu, Kind::Float).unwrap(),
            names,
        )
    };
    let loaded = sharded(&NAMES).unwrap();
    assert_eq!(loaded, numbers(Kind::Float));
    assert!(is_mapped(&loaded["w2"], &folder.path().join(MAP[2].1)));
    let message = sharded(&["w0", "w2", "w3"]).unwrap_err().to_string();
    for part in [
        "m.safetensors.index.json",
        "`w3` is missing",
        "`w1` is in the file",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn an_index_that_lies_is_refused_with_what_is_where() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |map: &[(&str, &str)], parts: &[&str]| {
        let index = shards(folder.path(), map);
        let error = Store::sharded(&index, Device::Cpu, Kind::Float)
            .err()
            .unwrap();
        let message = error.to_string();
        for part in parts {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    };
    refused(
        &[MAP[0], MAP[1], ("w2", MAP[0].1)],
        &["index.json", "`w2` is not in m-00001-of-00002.safetensors"],
    );
    refused(
        &[MAP[0], MAP[2]],
        &["`w1` in m-00001-of-00002.safetensors is not listed"],
    );
    refused(
        &[MAP[0], ("w1", "none.safetensors"), MAP[2]],
        &["none.safetensors"],
    );
    for path in [
        "../m.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "",
        ".",
    ] {
        refused(&[MAP[0], ("w1", path)], &["`w1`", "in the same folder"]);
    }
    let index = folder.path().join("m.safetensors.index.json");
    for text in [
        "",
        "[]",
        "{\"weight_map\": 3}",
        "{\"weight_map\": {\"a\": 1}}",
    ] {
        std::fs::write(&index, text).unwrap();
        let error = Store::sharded(&index, Device::Cpu, Kind::Float)
            .err()
            .unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    }
}
