//! What the reader does with files that are damaged, hostile, or of another model.
use std::path::{Path, PathBuf};

use ddpo_torch::weights::{read_all, read_all_with_metadata, save, save_with_metadata};
use ddpo_torch::{Error, Init, Store};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// A safetensors file of this header and this many data bytes.
fn bytes(header: &str, n_data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend((0..n_data).map(|i| i as u8));
    bytes
}

/// Two tensors: `a` `[2, 3]` f32 and `b` `[4]` f16.
fn good() -> Vec<u8> {
    bytes(
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"F16","shape":[4],"data_offsets":[24,32]}}"#,
        32,
    )
}

fn written(folder: &Path, contents: &[u8]) -> PathBuf {
    let path = folder.join("weights.safetensors");
    std::fs::write(&path, contents).unwrap();
    path
}

fn open(path: &Path) -> ddpo_torch::Result<Store> {
    Store::open(path, Device::Cpu, Kind::Float)
}

/// Both ways in refuse the file with one message, which names it.
#[track_caller]
fn refused(contents: &[u8], needle: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), contents);
    for error in [open(&path).err(), read_all(&path).err()] {
        let error = error.expect("a damaged file was accepted");
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("weights.safetensors"), "{message}");
        assert!(message.contains(needle), "{needle:?} is not in: {message}");
    }
}

#[test]
fn a_good_file_is_read_in_the_kind_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&written(folder.path(), &good())).unwrap();
    let root = store.root();
    let a = root.tensor("a", &[2, 3], Init::Zeros);
    let b = root.tensor("b", &[4], Init::Zeros);
    assert_eq!((a.kind(), b.kind()), (Kind::Float, Kind::Float));
    assert_eq!(
        a.double_value(&[0, 1]),
        f64::from(f32::from_le_bytes([4, 5, 6, 7]))
    );
    assert_eq!(store.finish().unwrap().len(), 2);
}

#[test]
fn a_truncated_file_names_the_tensor_that_is_cut_off() {
    let whole = good();
    for keep in 0..whole.len() {
        refused(&whole[..keep], "weights.safetensors");
    }
    refused(&[], "it has only 0 bytes");
    refused(&whole[..40], "it claims a header of");
    refused(
        &whole[..whole.len() - 1],
        "it is cut off: `b` ends at byte 32 of 31",
    );
    refused(
        &whole[..whole.len() - 9],
        "it is cut off: `a` ends at byte 24 of 23",
    );
}

#[test]
fn bytes_after_the_last_tensor_are_refused() {
    let mut long = good();
    long.extend_from_slice(&[0; 5]);
    refused(&long, "its tensors take 32 bytes, but 37 follow the header");
}

#[test]
fn a_header_length_beyond_the_file_is_refused_before_it_is_read() {
    for length in [
        33,
        1 << 20,
        u64::from(u32::MAX),
        1 << 40,
        u64::MAX - 7,
        u64::MAX,
    ] {
        let mut contents = length.to_le_bytes().to_vec();
        contents.extend_from_slice(&[b' '; 32]);
        refused(&contents, &format!("it claims a header of {length} bytes"));
    }
}

#[test]
fn a_header_that_is_no_header_is_refused() {
    for header in [
        "",
        "{",
        "[]",
        "null",
        "\u{0}\u{0}",
        "{\"a\":1}",
        "{\"a\":{}}",
    ] {
        refused(&bytes(header, 8), "weights.safetensors");
    }
    refused(&bytes(&"[".repeat(100_000), 8), "weights.safetensors");
    refused(
        &bytes(
            r#"{"a":{"dtype":"Q7","shape":[2],"data_offsets":[0,8]}}"#,
            8,
        ),
        "`a`: unknown variant `Q7`",
    );
    refused(
        &bytes(
            r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
            8,
        ),
        "`a`: invalid value",
    );
    let mut not_utf8 = bytes(r#"{"a":1}"#, 0);
    not_utf8[10] = 0xff;
    refused(&not_utf8, "weights.safetensors");
}

#[test]
fn shapes_and_offsets_that_contradict_each_other_name_their_tensor() {
    for (entry, needle) in [
        (
            r#""shape":[3],"data_offsets":[0,8]"#,
            "`a` claims bytes 0 to 8, but F32 [3] takes 12",
        ),
        (
            r#""shape":[2],"data_offsets":[8,0]"#,
            "`a` claims bytes 8 to 0",
        ),
        (
            r#""shape":[2],"data_offsets":[8,16]"#,
            "`a` starts at byte 8",
        ),
        (
            r#""shape":[4],"data_offsets":[0,16]"#,
            "`a` ends at byte 16 of 8",
        ),
        (
            r#""shape":[1099511627776],"data_offsets":[0,4398046511104]"#,
            "`a` ends at byte 4398046511104 of 8",
        ),
        (
            r#""shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]"#,
            "`a` has an impossible shape",
        ),
        (
            r#""shape":[1099511627776],"data_offsets":[0,8]"#,
            "`a` claims bytes 0 to 8",
        ),
    ] {
        let header = format!(r#"{{"a":{{"dtype":"F32",{entry}}}}}"#);
        refused(&bytes(&header, 8), needle);
    }
}

#[test]
fn overlapping_tensors_are_refused_by_name() {
    refused(
        &bytes(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
        ),
        "`b` starts at byte 4, the tensor before it ends at 8",
    );
}

#[test]
fn an_empty_tensor_with_a_huge_dimension_takes_no_memory_and_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    for d in ["9223372036854775808", "18446744073709551615"] {
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":[0,{d}],"data_offsets":[0,0]}}}}"#);
        let path = written(folder.path(), &bytes(&header, 0));
        let error = read_all(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`a` has a dimension of {d}")),
            "{error}"
        );
    }
    let header = r#"{"a":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]}}"#;
    let path = written(folder.path(), &bytes(header, 0));
    assert_eq!(read_all(&path).unwrap()["a"].size(), [0, 4]);
}

#[test]
fn everything_that_does_not_fit_the_model_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"extra":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"ids":{"dtype":"I64","shape":[1],"data_offsets":[4,12]},"position_ids":{"dtype":"I64","shape":[1],"data_offsets":[12,20]},"wide":{"dtype":"F32","shape":[2],"data_offsets":[20,28]},"odd":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[28,32]}}"#;
    let store = open(&written(folder.path(), &bytes(header, 32))).unwrap();
    let root = store.root();
    let _ = root.tensor("wide", &[3], Init::Zeros);
    let _ = root.tensor("gone", &[5, 7], Init::Zeros);
    let _ = root.tensor("scalar", &[], Init::Zeros);
    let _ = root.tensor("ids", &[1], Init::Zeros);
    let _ = root.tensor("odd", &[4], Init::Zeros);
    let error = store.finish().unwrap_err();
    let Error::Misfit { file, faults } = &error else {
        panic!("{error:?}")
    };
    assert!(file.contains("weights.safetensors"));
    assert_eq!(
        faults.as_slice(),
        [
            "`wide` has shape [2], expected [3]",
            "`gone` is missing (expected shape [5, 7])",
            "`scalar` is missing (expected shape [])",
            "`ids` is of kind Int64, expected a floating-point one",
            "`odd` has dtype F8_E4M3, which is not supported",
            "`extra` is in the file, but the model has no such tensor",
        ]
    );
}

#[test]
fn random_weights_depend_on_seed_and_name_and_not_on_order() {
    let draw = |seed, names: [&str; 2]| {
        let store = Store::random(seed, Device::Cpu, Kind::Float);
        for name in names {
            let _ = store.root().tensor(name, &[64], Init::Normal(2.0));
        }
        store.finish().unwrap()
    };
    let (one, two) = (draw(5, ["a", "b"]), draw(5, ["b", "a"]));
    assert_eq!(one["a"], two["a"]);
    assert_eq!(one["b"], two["b"]);
    assert_ne!(one["a"], one["b"]);
    assert_ne!(one["a"], draw(6, ["a", "b"])["a"]);
    let all = Store::random(1, Device::Cpu, Kind::Double);
    let normal = all.root().tensor("n", &[10_000], Init::Normal(2.0));
    let uniform = all.root().tensor("u", &[10_000], Init::Uniform(0.5));
    // Five standard errors: 2/√(2·10⁴) of the deviation, 0.29/10² of the mean.
    assert!((normal.std(true).double_value(&[]) - 2.0).abs() < 0.071);
    assert!(uniform.mean(Kind::Double).double_value(&[]).abs() < 0.015);
    assert!(uniform.abs().max().double_value(&[]) <= 0.5);
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        folder.path().join("none.safetensors"),
        folder.path().to_owned(),
    ] {
        let error = open(&path).err().expect("opened what is no file");
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()));
    }
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("there");
    // A folder with something in it cannot be replaced by a file.
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("kept"), "1").unwrap();
    let tensor = Tensor::from_slice(&[1.0f32]);
    let error = save(&path, [("a", &tensor)]).unwrap_err();
    assert!(error.to_string().contains("there"), "{error}");
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["there"]);
}

#[test]
fn texts_beside_the_tensors_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.safetensors");
    let tensor = Tensor::from_slice(&[1.0f32]);
    let text = (
        "shape".to_owned(),
        "{\"rank\": 4, \"é\": \"\\n\"}".to_owned(),
    );
    save_with_metadata(&path, [("a", &tensor)], [text.clone()]).unwrap();
    let (tensors, texts) = read_all_with_metadata(&path).unwrap();
    assert_eq!(tensors["a"], tensor);
    let format = ("format".to_owned(), "pt".to_owned());
    assert!(texts.into_iter().eq([format, text]));
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![
        Kind::Float,
        Kind::Half,
        Kind::BFloat16,
        Kind::Double,
        Kind::Int64,
        Kind::Int,
        Kind::Uint8,
        Kind::Bool,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_saved_is_read_back(
        tensors in prop::collection::btree_map(
            "[a-z]{1,6}(\\.[a-z0-9]{1,6}){0,2}",
            (prop::collection::vec(0i64..4, 0..4), kind(), any::<bool>()),
            0..6,
        )
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let tensors: Vec<(String, Tensor)> = tensors
            .into_iter()
            .map(|(name, (shape, kind, transposed))| {
                let n: i64 = shape.iter().product();
                let t = Tensor::arange(n, (Kind::Float, Device::Cpu)).view(shape.as_slice()).to_kind(kind);
                (name, if transposed && shape.len() > 1 { t.transpose(0, 1) } else { t })
            })
            .collect();
        save(&path, tensors.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
        let read = read_all(&path).unwrap();
        prop_assert_eq!(read.len(), tensors.len());
        for (name, tensor) in &tensors {
            prop_assert_eq!(read[name].kind(), tensor.kind());
            prop_assert_eq!(read[name].size(), tensor.size());
            prop_assert!(read[name].equal(tensor));
        }
    }

    #[test]
    fn no_damage_to_a_file_makes_the_reader_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut contents = good();
        for (at, value) in edits {
            let at = at.index(contents.len());
            contents[at] = value;
        }
        if cut {
            contents.truncate(keep.index(contents.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), &contents);
        match read_all(&path) {
            Ok(tensors) => {
                let n_bytes: usize = tensors
                    .values()
                    .map(|t| t.numel() * t.kind().elt_size_in_bytes())
                    .sum();
                prop_assert!(n_bytes <= contents.len());
            }
            Err(error) => prop_assert!(error.to_string().contains("weights.safetensors")),
        }
        if let Ok(store) = open(&path) {
            let _ = store.root().tensor("a", &[2, 3], Init::Zeros);
            let _ = store.root().tensor("b", &[4], Init::Zeros);
            if let Err(error) = store.finish() {
                prop_assert!(error.to_string().contains("weights.safetensors"));
            }
        }
    }

    #[test]
    fn no_header_makes_the_reader_panic(
        dtype in prop::sample::select(vec!["F32", "F16", "I64", "BOOL", "F4", "U8"]),
        shape in prop::collection::vec(prop::sample::select(vec![0u64, 1, 2, 3, 1 << 31, 1 << 33, 1 << 62, u64::MAX]), 0..5),
        start in prop::sample::select(vec![0u64, 1, 8, 1 << 40, u64::MAX]),
        end in prop::sample::select(vec![0u64, 1, 2, 4, 8, 16, 1 << 40, u64::MAX]),
    ) {
        let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}}}"#);
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), &bytes(&header, 16));
        if let Err(error) = read_all(&path) {
            prop_assert!(error.to_string().contains("weights.safetensors"));
        }
    }
}
