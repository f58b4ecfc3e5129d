//! Stable Diffusion as its five components, from the diffusers layout and back to it.

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_clip::{ClipTextConfig, ClipTextModel, ClipTokenizer, TokenizerFiles};
use ddpo_sched::{Conditioning, ScheduleConfig};
use ddpo_torch::{Store, weights};
use ddpo_train::Prompt;
use tch::{Device, Kind, Tensor};

use crate::{Error, Files, ImageCodec, Result, Unet, UnetConfig, Vae, VaeConfig};

/// The files of the tokenizer, of which the first two must be there.
const TOKENIZER: [&str; 4] = [
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// A network together with its tensors by name.
pub struct Named<N> {
    /// The network.
    pub net: N,
    /// Its tensors (shared with it), under diffusers' names.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Prompts to embeddings.
pub struct PromptEncoder {
    /// Text to ids.
    pub tokenizer: ClipTokenizer,
    /// Ids to embeddings.
    pub text: Named<ClipTextModel>,
    device: Device,
}

impl PromptEncoder {
    /// Without gradient.
    ///
    /// # Shapes
    /// - returns: `[prompts, tokens, dim]`
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn encode(&self, prompts: &[&str]) -> Result<Tensor> {
        let ids = self.tokenizer.encode(prompts)?.to_device(self.device);
        let _guard = tch::no_grad_guard();
        Ok(self.text.net.forward(&ids))
    }
}

impl ddpo_train::Conditioner for PromptEncoder {
    fn embed(&self, prompts: &[Prompt]) -> ddpo_train::Result<Conditioning> {
        let texts: Vec<&str> = prompts.iter().map(|p| p.text.as_str()).collect();
        let tokens = self.encode(&texts).map_err(ddpo_train::Error::model)?;
        Ok(tokens.into())
    }
}

/// A whole text-to-image model.
pub struct StableDiffusion {
    /// Predicts noise.
    pub unet: Named<Unet>,
    /// Prompts to embeddings.
    pub prompts: PromptEncoder,
    /// Latents to images, and back.
    pub images: ImageCodec,
    /// The noise schedule that it was trained with.
    pub schedule: ScheduleConfig,
    text_config: ClipTextConfig,
    tokenizer_files: Vec<(&'static str, Vec<u8>)>,
}

impl StableDiffusion {
    /// Reads all components; the UNet in `kind`, text encoder and VAE in f32, which cost little.
    ///
    /// # Errors
    /// The first file that is missing or damaged, or every tensor of all components that does not fit.
    pub fn load(files: &Files, device: Device, kind: Kind) -> Result<Self> {
        // All small files first: a bad one is found before gigabytes are read.
        let unet_config: UnetConfig = files.json("unet/config.json")?;
        let vae_config: VaeConfig = files.json("vae/config.json")?;
        let schedule: ScheduleConfig = files.json("scheduler/scheduler_config.json")?;
        let text_config = ClipTextConfig::from_json(
            "text_encoder/config.json",
            &files.read("text_encoder/config.json")?,
        )?;
        let tokenizer_files = tokenizer_files(files)?;
        let tokenizer = tokenizer(&tokenizer_files)?;
        agree(&unet_config, &vae_config, &text_config)?;

        let plain = |_: &str| Vec::new();
        let mut misfits = Vec::new();
        let store = files.weights("text_encoder", device, Kind::Float, plain)?;
        let net = ClipTextModel::new(&store.root(), &text_config)?;
        let text = settled(net, store, &mut misfits);
        if misfits.is_empty() {
            text.net.check(&tokenizer)?;
        }
        let store = files.weights("vae", device, Kind::Float, Vae::aliases)?;
        let net = Vae::new(&store.root(), &vae_config)?;
        let vae = settled(net, store, &mut misfits);
        let store = files.weights("unet", device, kind, plain)?;
        let net = Unet::new(&store.root(), &unet_config)?;
        let unet = settled(net, store, &mut misfits);
        if !misfits.is_empty() {
            return Err(Error::Misfits(misfits));
        }
        let prompts = PromptEncoder {
            tokenizer,
            text,
            device,
        };
        Ok(Self {
            unet,
            prompts,
            images: ImageCodec::new(vae),
            schedule,
            text_config,
            tokenizer_files,
        })
    }

    /// Puts together components that were built apart, such as freshly trained ones.
    ///
    /// `tokenizer_files` are `vocab.json`, `merges.txt` and, where there are, `tokenizer_config.json` and
    /// `special_tokens_map.json`.
    ///
    /// # Errors
    /// [`Error::Config`] if widths do not agree, or what the tokenizer's files are reported for.
    pub fn assemble(
        unet: Named<Unet>,
        vae: Named<Vae>,
        text: Named<ClipTextModel>,
        text_config: ClipTextConfig,
        tokenizer_files: Vec<(&'static str, Vec<u8>)>,
        schedule: ScheduleConfig,
    ) -> Result<Self> {
        agree(unet.net.config(), &vae.net.config, &text_config)?;
        let tokenizer = tokenizer(&tokenizer_files)?;
        text.net.check(&tokenizer)?;
        let device = text
            .tensors
            .values()
            .next()
            .map_or(Device::Cpu, Tensor::device);
        let prompts = PromptEncoder {
            tokenizer,
            text,
            device,
        };
        let images = ImageCodec::new(vae);
        Ok(Self {
            unet,
            prompts,
            images,
            schedule,
            text_config,
            tokenizer_files,
        })
    }

    /// Shape of one latent: `[channels, height, width]`.
    pub fn latent_shape(&self) -> [i64; 3] {
        let UnetConfig {
            in_channels,
            sample_size,
            ..
        } = *self.unet.net.config();
        [in_channels, sample_size, sample_size]
    }

    /// Writes the diffusers layout, weights in `kind`; Python's `StableDiffusionPipeline` reads it.
    ///
    /// # Errors
    /// [`Error::Io`] with the file.
    pub fn save(&self, folder: &Path, kind: Kind) -> Result<()> {
        for (component, tensors, file) in [
            (
                "unet",
                &self.unet.tensors,
                "diffusion_pytorch_model.safetensors",
            ),
            (
                "vae",
                &self.images.vae.tensors,
                "diffusion_pytorch_model.safetensors",
            ),
            (
                "text_encoder",
                &self.prompts.text.tensors,
                "model.safetensors",
            ),
        ] {
            make(&folder.join(component))?;
            let cast: Vec<(&str, Tensor)> = tensors
                .iter()
                .map(|(n, t)| (n.as_str(), t.to_kind(kind)))
                .collect();
            weights::save(
                &folder.join(component).join(file),
                cast.iter().map(|(n, t)| (*n, t)),
            )?;
        }
        make(&folder.join("tokenizer"))?;
        for (name, bytes) in &self.tokenizer_files {
            write(&folder.join("tokenizer").join(name), bytes)?;
        }
        make(&folder.join("scheduler"))?;
        for (file, text) in [
            (
                "unet/config.json",
                crate::layout::unet(self.unet.net.config()),
            ),
            (
                "vae/config.json",
                crate::layout::vae(&self.images.vae.net.config),
            ),
            ("text_encoder/config.json", self.text_config.to_json()),
            (
                "scheduler/scheduler_config.json",
                crate::layout::scheduler(&self.schedule),
            ),
            ("model_index.json", crate::layout::index()),
        ] {
            write(&folder.join(file), text.as_bytes())?;
        }
        Ok(())
    }
}

/// A network with the tensors that it took; what does not fit is put to what did not fit before.
fn settled<N>(net: N, store: Store, misfits: &mut Vec<ddpo_torch::Error>) -> Named<N> {
    let tensors = store.finish().unwrap_or_else(|misfit| {
        misfits.push(misfit);
        BTreeMap::new()
    });
    Named { net, tensors }
}

/// Widths that two components share must be one number.
fn agree(unet: &UnetConfig, vae: &VaeConfig, text: &ClipTextConfig) -> Result<()> {
    let fail = |reason| {
        Err(Error::Config {
            file: "unet/config.json".into(),
            reason,
        })
    };
    if unet.in_channels != vae.latent_channels {
        return fail(format!(
            "in_channels is {}, but the VAE has {} latent_channels",
            unet.in_channels, vae.latent_channels
        ));
    }
    if unet.cross_attention_dim != text.hidden_size {
        let (dim, hidden) = (unet.cross_attention_dim, text.hidden_size);
        return fail(format!(
            "cross_attention_dim is {dim}, but the text encoder's hidden_size is {hidden}"
        ));
    }
    Ok(())
}

fn tokenizer_files(files: &Files) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut found = Vec::new();
    for (i, name) in TOKENIZER.into_iter().enumerate() {
        let file = format!("tokenizer/{name}");
        if i < 2 || files.contains(&file) {
            found.push((name, files.read(&file)?.into_owned()));
        }
    }
    Ok(found)
}

fn tokenizer(files: &[(&'static str, Vec<u8>)]) -> Result<ClipTokenizer> {
    let get = |name: &str| {
        files
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, bytes)| bytes.as_slice())
    };
    Ok(ClipTokenizer::from_files(TokenizerFiles {
        vocab: get(TOKENIZER[0]).unwrap_or_default(),
        merges: get(TOKENIZER[1]).unwrap_or_default(),
        config: get(TOKENIZER[2]),
        special_tokens: get(TOKENIZER[3]),
    })?)
}

fn make(folder: &Path) -> Result<()> {
    let io = |source| Error::Io {
        action: "create",
        path: folder.to_owned(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(io)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    std::fs::write(path, bytes).map_err(io)
}
