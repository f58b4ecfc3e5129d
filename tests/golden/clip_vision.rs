//! The images of clip_vision.py, made again by the tests that read what became of them.

/// The bytes of image `i`, `image()` there.
#[allow(dead_code)] // not by every test that includes this
pub fn image(i: u32, height: u32, width: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((height * width * 3) as usize);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3_u32 {
                let hashed = x.wrapping_mul(73_856_093)
                    ^ y.wrapping_mul(19_349_663)
                    ^ c.wrapping_mul(83_492_791)
                    ^ (i * 2_654_435 + 1);
                let noise = hashed.wrapping_mul(2_654_435_761) >> 24;
                let value = match i % 4 {
                    0 => (x * 255 / width + y * 255 / height + c * 40) / 2 % 256,
                    1 if (x / 3 + y / 5 + c) % 2 == 0 => 255,
                    1 => 20,
                    2 => noise,
                    _ => (x * 255 / width / 2 + noise / 2) % 256,
                };
                bytes.push(value as u8);
            }
        }
    }
    bytes
}

/// Height and width of image `i`, `size()` there.
#[allow(dead_code)] // not by every test that includes this
pub fn size(i: u32) -> (u32, u32) {
    let (height, width) = (17 + (i * 97) % 480 / 2 * 2, 19 + (i * 61) % 340 / 2 * 2);
    match i % 5 {
        4 => (2 * height + 1, width),
        _ => (height, width),
    }
}
