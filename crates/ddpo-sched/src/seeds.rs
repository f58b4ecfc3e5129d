//! Where every random number of the workspace comes from.
//!
//! There is no generator whose state would have to be saved: each number is a function of a key
//! (seed, stream, epoch, index) and of its place under that key. What a sample looks like therefore does
//! not depend on the batch or rank that it was drawn in, nor on a restart.
//!
//! Derivation: the four 64-bit words of the key, little-endian and in that order, *are* the 256-bit key of
//! ChaCha8; the sub-stream (for noise: which denoising step) is its 64-bit nonce. Two different keys can
//! therefore not collide, and streams under different keys are as independent as the cipher is good.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What random numbers are for. Each purpose has numbers of its own.
///
/// Codes are part of the format: changing one changes every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stream {
    /// Initial latents and the noise of denoising steps; index = sample id.
    Noise,
    /// Which prompt a sample gets; index = sample id.
    Prompts,
    /// The order in which samples are trained on; index = inner epoch.
    Shuffle,
    /// The order in which a sample's time steps are trained on; index = sample id.
    Timesteps,
    /// Initial weights; index = tensor.
    Weights,
    /// Images for evaluation, apart from those for training; index = sample id.
    Evaluation,
    /// Training data that is composed or drawn; index = example.
    Data,
    /// Denoising losses: timesteps and noise; index = example.
    Diffusion,
    /// A purpose of the caller's.
    Other(u32),
}

impl Stream {
    fn code(self) -> u64 {
        match self {
            Self::Noise => 1,
            Self::Prompts => 2,
            Self::Shuffle => 3,
            Self::Timesteps => 4,
            Self::Weights => 5,
            Self::Evaluation => 6,
            Self::Data => 7,
            Self::Diffusion => 8,
            Self::Other(code) => (1 << 32) | u64::from(code),
        }
    }
}

/// The seed of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seeds {
    seed: u64,
}

impl Seeds {
    /// All randomness of a run from one number.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The number that the run was given.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The key for one purpose in one epoch and one sample (or whatever `index` counts in that stream).
    pub fn derive(&self, stream: Stream, epoch: u64, index: u64) -> Key {
        let mut key = [0; 32];
        for (bytes, word) in key
            .chunks_exact_mut(8)
            .zip([self.seed, stream.code(), epoch, index])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Key(key)
    }
}

/// A place in the space of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The numbers under this key, from the start.
    pub fn draws(&self) -> Draws {
        self.sub(0)
    }

    /// One of 2⁶⁴ independent sequences under this key, from its start.
    pub fn sub(&self, stream: u64) -> Draws {
        let mut rng = ChaCha8Rng::from_seed(self.0);
        rng.set_stream(stream);
        Draws(rng)
    }

    /// 0, 1, …, n − 1 in random order.
    pub fn permutation(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.draws().shuffle(&mut order);
        order
    }

    /// A 64-bit seed for a generator of someone else's.
    pub fn seed_u64(&self) -> u64 {
        self.draws().next_u64()
    }
}

/// A sequence of random numbers. Its algorithms are written out here, so that no update of a dependency
/// changes what a seed means.
#[derive(Debug, Clone)]
pub struct Draws(ChaCha8Rng);

impl Draws {
    /// Uniform over all 64-bit numbers.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..n without bias (Lemire 2019); 0 if n is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let reject_below = n.wrapping_neg().checked_rem(n).unwrap_or(0);
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= reject_below {
                return (product >> 64) as u64;
            }
        }
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }

    /// Fills with independent standard normals (Box and Muller 1958, in f64).
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * self.unit()).sin_cos();
            pair[0] = (radius * cos) as f32;
            if let Some(second) = pair.get_mut(1) {
                *second = (radius * sin) as f32;
            }
        }
    }
}
