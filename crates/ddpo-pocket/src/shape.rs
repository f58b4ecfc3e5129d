//! The sizes of the pocket model's networks: Stable Diffusion v1's architecture, scaled down.

use ddpo_clip::ClipTextConfig;
use ddpo_model::{UnetConfig, VaeConfig};

/// Tokens of a prompt, padding included.
pub const N_TOKENS: i64 = 24;

/// Channels of the latents.
///
/// Chosen between 8, whose images stay blurred, and 16, which learn more slowly; the two were not compared here.
/// With 12 the trained decoder reaches 25.2 dB (model card).
pub const N_LATENTS: i64 = 12;

/// The UNet: two levels, attention to the prompt in both.
pub fn unet() -> UnetConfig {
    let cross = |name: &str| vec![name.to_owned(); 2];
    UnetConfig {
        sample_size: 8,
        in_channels: N_LATENTS,
        out_channels: N_LATENTS,
        block_out_channels: vec![64, 128],
        down_block_types: cross("CrossAttnDownBlock2D"),
        up_block_types: cross("CrossAttnUpBlock2D"),
        layers_per_block: 1,
        cross_attention_dim: 128,
        attention_head_dim: 4,
        norm_num_groups: 8,
        ..UnetConfig::v1_4()
    }
}

/// The VAE: factor 8 as Stable Diffusion's. The encoder is computed, not trained ([`crate::pretrain::codec`]).
pub fn vae() -> VaeConfig {
    VaeConfig {
        block_out_channels: vec![16, 24, 64, 128],
        layers_per_block: 1,
        latent_channels: N_LATENTS,
        norm_num_groups: 4,
        scaling_factor: 1.0, // the encoder's own scale already gives latents of mean square 1
        ..VaeConfig::v1_4()
    }
}

/// The text encoder: two layers of width 128 over a vocabulary in which every word is one token.
pub fn text() -> ClipTextConfig {
    let sizes = crate::vocab::sizes();
    ClipTextConfig {
        vocab_size: sizes.vocab_size as i64,
        hidden_size: 128,
        intermediate_size: 512,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        max_position_embeddings: N_TOKENS,
        bos_token_id: sizes.bos_token_id as i64,
        eos_token_id: sizes.eos_token_id as i64,
        pad_token_id: sizes.eos_token_id as i64,
        ..ClipTextConfig::default()
    }
}
