//! Where the files of a model are: a folder, or the program itself.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use ddpo_torch::Store;
use ddpo_torch::weights::{Aliases, shard_files};
use serde::de::DeserializeOwned;
use tch::{Device, Kind};

use crate::{Error, Result};

/// Files without which no model loads, weights apart.
pub const REQUIRED: [&str; 6] = [
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
];

/// Files that are read, or copied to where the model is saved, if they are there.
pub const OPTIONAL: [&str; 3] = [
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "model_index.json",
];

/// The folders that have weights.
pub const COMPONENTS: [&str; 3] = ["text_encoder", "vae", "unet"];

/// A model in the diffusers layout.
#[derive(Clone, Debug)]
pub enum Files {
    /// A folder with `unet/`, `vae/`, `text_encoder/`, `tokenizer/` and `scheduler/`.
    Folder(PathBuf),
    /// Files compiled into the program, by their path in such a folder.
    Embedded {
        /// What errors call it.
        name: &'static str,
        /// Path and content.
        files: &'static [(&'static str, &'static [u8])],
    },
}

impl Files {
    /// What errors and manifests call the model.
    pub fn name(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Embedded { name, .. } => (*name).to_owned(),
        }
    }

    /// Whether the model has this file.
    pub fn contains(&self, file: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(file).is_file(),
            Self::Embedded { files, .. } => files.iter().any(|(path, _)| *path == file),
        }
    }

    /// The whole of a small file.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Io`].
    pub fn read(&self, file: &str) -> Result<Cow<'static, [u8]>> {
        if !self.contains(file) {
            return Err(self.missing(file));
        }
        match self {
            Self::Folder(folder) => {
                let path = folder.join(file);
                let io = |source| Error::Io {
                    action: "read",
                    path: path.clone(),
                    source,
                };
                Ok(std::fs::read(&path).map_err(io)?.into())
            }
            Self::Embedded { files, .. } => {
                let found = files.iter().find(|(path, _)| *path == file);
                Ok(found
                    .map(|(_, bytes)| Cow::Borrowed(*bytes))
                    .unwrap_or_default())
            }
        }
    }

    /// A JSON file of the model.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Io`], or [`Error::Config`] with what the parser says.
    pub fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T> {
        serde_json::from_slice(&self.read(file)?).map_err(|e| Error::Config {
            file: format!("{}/{file}", self.name()),
            reason: e.to_string(),
        })
    }

    /// The weights of a component, in one file or several with an index.
    ///
    /// Among the variants of diffusers, the one in `kind` itself is preferred, then the one without a name; what
    /// is read is converted to `kind`.
    ///
    /// # Errors
    /// [`Error::Missing`], or what the reader says of a damaged file.
    pub fn weights(
        &self,
        component: &str,
        device: Device,
        kind: Kind,
        aliases: Aliases,
    ) -> Result<Store> {
        let candidates = candidates(component, kind);
        let Some(found) = candidates.iter().find(|c| self.contains(&c.file)) else {
            return Err(self.missing(&plain(component)));
        };
        let store = match self {
            Self::Folder(folder) if found.is_index => {
                Store::sharded(&folder.join(&found.file), device, kind)?
            }
            Self::Folder(folder) => Store::open(&folder.join(&found.file), device, kind)?,
            Self::Embedded { name, files } => {
                let bytes = files
                    .iter()
                    .find(|(path, _)| *path == found.file)
                    .map(|(_, bytes)| *bytes)
                    .unwrap_or_default();
                Store::embedded(&format!("{name}/{}", found.file), bytes, device, kind)?
            }
        };
        Ok(store.with_aliases(aliases))
    }

    /// What is not there of all that a model needs whose UNet is to be in `kind`, with weights that are exactly
    /// that, or those that every other variant is made of.
    pub fn lacking(&self, kind: Kind) -> Vec<String> {
        self.without(kind, Candidate::is_exact)
    }

    /// As [`lacking`](Self::lacking), content with weights in any kind.
    pub fn lacking_any(&self, kind: Kind) -> Vec<String> {
        self.without(kind, |_| true)
    }

    fn without(&self, kind: Kind, serves: impl Fn(&Candidate) -> bool) -> Vec<String> {
        let required = REQUIRED.iter().map(|file| (*file).to_owned());
        let mut lacking: Vec<String> = required.filter(|file| !self.contains(file)).collect();
        for component in COMPONENTS {
            let mut candidates = candidates(component, kind_of(component, kind)).into_iter();
            let found = candidates.find(|c| serves(c) && self.contains(&c.file));
            match found {
                None => lacking.push(plain(component)),
                Some(found) if found.is_index => lacking.extend(self.lacking_shards(&found)),
                Some(_) => {}
            }
        }
        lacking
    }

    /// An index that cannot be read is lacking itself.
    fn lacking_shards(&self, index: &Candidate) -> Vec<String> {
        let Self::Folder(folder) = self else {
            return vec![index.file.clone()];
        };
        let Ok(files) = shards(&folder.join(&index.file)) else {
            return vec![index.file.clone()];
        };
        let beside = index.file.split('/').next().unwrap_or_default();
        let files = files.into_iter().map(|file| format!("{beside}/{file}"));
        files.filter(|file| !self.contains(file)).collect()
    }

    fn missing(&self, file: &str) -> Error {
        Error::Missing {
            file: file.to_owned(),
            folder: PathBuf::from(self.name()),
        }
    }
}

/// A file that may have the weights of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its path in the model's folder.
    pub file: String,
    /// Whether it lists other files beside it that have them.
    pub is_index: bool,
    /// diffusers' name of what the weights are in; none for those that variants are made of.
    variant: &'static str,
    /// Place in the order of preference, counted in variants.
    rank: usize,
}

impl Candidate {
    /// Whether nothing better can be: weights in the kind asked for, or those that variants are made of.
    fn is_exact(&self) -> bool {
        self.variant.is_empty() || self.rank == 0
    }
}

/// The files that an index of weights names, which lie beside it.
///
/// # Errors
/// What the reader says of an index that it cannot read.
pub fn shards(index: &Path) -> Result<Vec<String>> {
    Ok(shard_files(index)?)
}

/// What the weights of `component` are computed in, if the UNet's are in `kind`.
pub fn kind_of(component: &str, kind: Kind) -> Kind {
    match component {
        "unet" => kind,
        _ => Kind::Float,
    }
}

/// Where the weights of `component` may be, best first, if they are wanted in `kind`.
///
/// The names are those of diffusers' `save_pretrained` with and without `variant` (`diffusers/utils/constants.py`,
/// `_add_variant` in `diffusers/models/model_loading_utils.py`), and for the text encoder transformers'.
pub fn candidates(component: &str, kind: Kind) -> Vec<Candidate> {
    let variants = match kind {
        Kind::Half => ["fp16", "", "bf16"],
        Kind::BFloat16 => ["bf16", "", "fp16"],
        _ => ["", "fp16", "bf16"],
    };
    let stem = stem(component);
    let mut found = Vec::new();
    for (rank, variant) in variants.into_iter().enumerate() {
        let dotted = match variant {
            "" => String::new(),
            name => format!(".{name}"),
        };
        for (file, is_index) in [
            (format!("{stem}{dotted}.safetensors"), false),
            (format!("{stem}.safetensors.index{dotted}.json"), true),
        ] {
            found.push(Candidate {
                file: format!("{component}/{file}"),
                is_index,
                variant,
                rank,
            });
        }
    }
    found
}

fn plain(component: &str) -> String {
    format!("{component}/{}.safetensors", stem(component))
}

fn stem(component: &str) -> &'static str {
    match component {
        "text_encoder" => "model",
        _ => "diffusion_pytorch_model",
    }
}
