//! Where the files of a model are: a folder, or the program itself.

use std::borrow::Cow;
use std::path::PathBuf;

use ddpo_torch::Store;
use ddpo_torch::weights::Aliases;
use serde::de::DeserializeOwned;
use tch::{Device, Kind};

use crate::{Error, Result};

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

    /// The weights of a component: the first of the usual file names that is there.
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
        let stem = if component == "text_encoder" {
            "model"
        } else {
            "diffusion_pytorch_model"
        };
        let names = ["safetensors", "fp16.safetensors"]
            .map(|suffix| format!("{component}/{stem}.{suffix}"));
        let Some(file) = names.iter().find(|name| self.contains(name)) else {
            return Err(self.missing(&names[0]));
        };
        let store = match self {
            Self::Folder(folder) => Store::open(&folder.join(file), device, kind)?,
            Self::Embedded { name, files } => {
                let bytes = files
                    .iter()
                    .find(|(path, _)| path == file)
                    .map(|(_, bytes)| *bytes)
                    .unwrap_or_default();
                Store::embedded(&format!("{name}/{file}"), bytes, device, kind)?
            }
        };
        Ok(store.with_aliases(aliases))
    }

    fn missing(&self, file: &str) -> Error {
        Error::Missing {
            file: file.to_owned(),
            folder: PathBuf::from(self.name()),
        }
    }
}
