//! Metrics of pixels alone: how busy images are, and how much they differ from each other.

use ddpo_reward::Images;

/// Mean absolute difference of the luminance of neighbouring pixels, across and down: 0 for a plain image, near 85 for
/// independent noise of all 256 levels.
///
/// Luminance is that of ITU-R BT.601, as in JPEG.
pub fn edges(images: &Images) -> Vec<f64> {
    let (height, width) = (images.height(), images.width());
    let of_one = |bytes: &[u8]| {
        let luminance: Vec<f64> = bytes
            .chunks_exact(3)
            .map(|p| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]))
            .collect();
        let across = luminance
            .chunks_exact(width)
            .flat_map(|row| row.windows(2).map(|pair| (pair[1] - pair[0]).abs()));
        let down = luminance
            .iter()
            .zip(luminance.iter().skip(width))
            .map(|(above, below)| (below - above).abs());
        let n = height * (width - 1) + (height - 1) * width;
        across.chain(down).sum::<f64>() / n.max(1) as f64
    };
    images.iter_bytes().map(of_one).collect()
}

/// For each image, the mean over all others of the root mean square difference of their pixels: 0 if all are
/// equal, 255 at most. Near 0 after mode collapse, where a policy draws the same image for every prompt.
///
/// Quadratic in the number of images. NaN for a single image.
pub fn diversity(images: &Images) -> Vec<f64> {
    let all: Vec<&[u8]> = images.iter_bytes().collect();
    let mut sums = vec![0.0; all.len()];
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all.iter().enumerate().skip(i + 1) {
            let squares: u64 = a
                .iter()
                .zip(*b)
                .map(|(x, y)| u64::from(x.abs_diff(*y)).pow(2))
                .sum();
            let distance = (squares as f64 / a.len() as f64).sqrt();
            sums[i] += distance;
            sums[j] += distance;
        }
    }
    let others = all.len() as f64 - 1.0;
    sums.into_iter().map(|sum| sum / others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2x2 images of grey pixels.
    fn grey(images: &[[u8; 4]]) -> Images {
        let bytes = images.iter().flatten().flat_map(|v| [*v; 3]).collect();
        Images::from_bytes(images.len(), 2, 2, bytes).unwrap()
    }

    #[test]
    fn edges_are_the_mean_difference_of_neighbours() {
        // Differences across: 10 and 30; down: 20 and 40.
        let found = edges(&grey(&[[0, 10, 20, 50], [7, 7, 7, 7]]));
        assert!((found[0] - 25.0).abs() < 1e-9 && found[1].abs() < 1e-9);
    }

    #[test]
    fn diversity_is_the_mean_distance_to_the_others() {
        let found = diversity(&grey(&[[0; 4], [10; 4], [40; 4]]));
        assert_eq!(found, [25.0, 20.0, 35.0]);
        assert!(diversity(&grey(&[[0; 4]]))[0].is_nan());
    }
}
