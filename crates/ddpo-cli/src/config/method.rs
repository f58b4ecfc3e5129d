//! Which algorithm trains, and its own numbers.

use super::ddpo::{self, DdpoPlan};
use super::guidance::{self, GuidancePlan};
use super::reader::Reader;
use super::rwr::{self, RwrPlan};

/// How the policy is improved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// DDPO by importance sampling with clipping, several updates an epoch.
    DdpoIs,
    /// DDPO by the score function, one update an epoch.
    DdpoSf,
    /// Reward-weighted regression, weights by softmax.
    Rwr,
    /// Reward-weighted regression on the best samples.
    RwrSparse,
    /// Sampling by the gradient of the reward; nothing is trained.
    UniversalGuidance,
}

impl Algorithm {
    /// Names in configurations.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("ddpo-is", Self::DdpoIs),
        ("ddpo-sf", Self::DdpoSf),
        ("rwr", Self::Rwr),
        ("rwr-sparse", Self::RwrSparse),
        ("universal-guidance", Self::UniversalGuidance),
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::DdpoIs => "ddpo-is",
            Self::DdpoSf => "ddpo-sf",
            Self::Rwr => "rwr",
            Self::RwrSparse => "rwr-sparse",
            Self::UniversalGuidance => "universal-guidance",
        }
    }
}

/// The numbers of the algorithm that trains. Keys of the others may be in the configuration, and are not read.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    /// Both estimators of DDPO.
    Ddpo(DdpoPlan),
    /// RWR and sparse RWR.
    Rwr(RwrPlan),
    /// Universal guidance.
    Guidance(GuidancePlan),
}

pub(super) fn read(r: &mut Reader, algorithm: Algorithm) -> Method {
    match algorithm {
        Algorithm::DdpoIs | Algorithm::DdpoSf => Method::Ddpo(ddpo::read(r, algorithm)),
        Algorithm::Rwr => Method::Rwr(rwr::read(r, rwr::softmax)),
        Algorithm::RwrSparse => Method::Rwr(rwr::read(r, rwr::percentile)),
        Algorithm::UniversalGuidance => Method::Guidance(guidance::read(r)),
    }
}

impl Method {
    /// Samples, and so reward queries, of one outer iteration.
    pub fn samples_per_epoch(&self) -> usize {
        match self {
            Self::Ddpo(ddpo) => ddpo.samples_per_epoch,
            Self::Rwr(rwr) => rwr.samples_per_round,
            Self::Guidance(guidance) => guidance.samples,
        }
    }

    /// Optimiser steps of one outer iteration.
    pub fn updates_per_epoch(&self) -> usize {
        match self {
            Self::Ddpo(ddpo) => ddpo.updates_per_epoch,
            Self::Rwr(rwr) => rwr.updates_per_round,
            Self::Guidance(_) => 0,
        }
    }

    /// Whether training uses the guided ε as sampling does.
    pub fn train_guidance(&self) -> bool {
        match self {
            Self::Ddpo(ddpo) => ddpo.train_guidance,
            Self::Rwr(rwr) => rwr.train_guidance,
            Self::Guidance(_) => true,
        }
    }
}
