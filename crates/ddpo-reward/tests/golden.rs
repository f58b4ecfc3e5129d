//! Against Pillow and numpy; `tests/golden/jpeg.py` generates images and expected values.
#![cfg(feature = "jpeg")]

use std::path::Path;

use ddpo_reward::{
    Colourfulness, Images, JpegCompressibility, JpegIncompressibility, Prompt, Reward,
    jpeg::{JpegSize, QUALITY},
};

struct Case {
    name: String,
    images: Images,
    jpeg_bytes: usize,
    jpeg_crc32: u32,
    colourfulness: f64,
}

fn cases() -> Vec<Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/jpeg");
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
    let stored = std::fs::read(dir.join("images.bin")).unwrap();
    let mut at = 0;
    let cases: Vec<Case> = expected
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let number = |key: &str| entry[key].as_u64().unwrap() as usize;
            let end = at + number("stored");
            let pixels = image::load_from_memory(&stored[at..end]).unwrap().to_rgb8();
            at = end;
            let (height, width) = (number("height"), number("width"));
            Case {
                name: entry["name"].as_str().unwrap().to_owned(),
                images: Images::from_bytes(1, height, width, pixels.into_raw()).unwrap(),
                jpeg_bytes: number("jpeg_bytes"),
                jpeg_crc32: number("jpeg_crc32") as u32,
                colourfulness: entry["colourfulness"].as_f64().unwrap(),
            }
        })
        .collect();
    assert_eq!(
        at,
        stored.len(),
        "images.bin and expected.json belong together"
    );
    cases
}

#[test]
fn jpeg_files_are_pillow_s_byte_for_byte() {
    let cases = cases();
    assert!(cases.len() >= 200, "{} images", cases.len());
    let mut size = JpegSize::new(QUALITY).unwrap();
    for case in &cases {
        let (height, width) = (case.images.height(), case.images.width());
        let file = size.encode(case.images.bytes(), height, width).unwrap();
        assert_eq!(file.len(), case.jpeg_bytes, "size of {}", case.name);
        assert_eq!(
            crc32fast::hash(file),
            case.jpeg_crc32,
            "bytes of {}",
            case.name
        );
    }
}

#[test]
fn jpeg_rewards_are_the_size_in_kilobytes_and_its_opposite() {
    let mut more = JpegIncompressibility::new().unwrap();
    let mut less = JpegCompressibility::new().unwrap();
    let prompt = [Prompt::new(0, "cat")];
    for case in cases() {
        let kb = (case.jpeg_bytes as f64 / 1000.0) as f32;
        assert_eq!(
            more.score(&case.images, &prompt).unwrap(),
            [kb],
            "{}",
            case.name
        );
        assert_eq!(
            less.score(&case.images, &prompt).unwrap(),
            [-kb],
            "{}",
            case.name
        );
    }
}

/// Relative error at most 1e-6: the score is f32.
#[test]
fn colourfulness_is_numpy_s() {
    let prompt = [Prompt::new(0, "cat")];
    for case in cases() {
        let score = Colourfulness.score(&case.images, &prompt).unwrap()[0];
        let error = (f64::from(score) - case.colourfulness).abs();
        assert!(
            error <= 1e-6 * case.colourfulness.max(1e-3),
            "{}: {score}, numpy {}, off by {error:e}",
            case.name,
            case.colourfulness
        );
    }
}
