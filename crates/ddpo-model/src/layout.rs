//! The JSON files of the diffusers layout, with the keys that diffusers itself would write and we do not vary.

use ddpo_sched::ScheduleConfig;
use serde_json::{Value, json};

use crate::{UnetConfig, VaeConfig};

/// The diffusers version whose keys these are.
const VERSION: &str = "0.42.1";

pub(crate) fn unet(config: &UnetConfig) -> String {
    let fixed = json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": VERSION,
        "act_fn": "silu", "center_input_sample": false, "downsample_padding": 1, "mid_block_scale_factor": 1,
    });
    merged(fixed, config)
}

pub(crate) fn vae(config: &VaeConfig) -> String {
    let levels = config.block_out_channels.len();
    let fixed = json!({
        "_class_name": "AutoencoderKL", "_diffusers_version": VERSION, "act_fn": "silu",
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
    });
    merged(fixed, config)
}

pub(crate) fn scheduler(config: &ScheduleConfig) -> String {
    merged(
        json!({ "_class_name": "DDIMScheduler", "_diffusers_version": VERSION }),
        config,
    )
}

pub(crate) fn index() -> String {
    pretty(&json!({
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": VERSION,
        "feature_extractor": [null, null], "image_encoder": [null, null], "safety_checker": [null, null],
        "requires_safety_checker": false,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }))
}

fn merged(mut fixed: Value, config: &impl serde::Serialize) -> String {
    let varied = serde_json::to_value(config).expect("configurations are plain structs");
    if let (Value::Object(into), Value::Object(from)) = (&mut fixed, varied) {
        into.extend(from);
    }
    pretty(&fixed)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a value has a JSON form") + "\n"
}
