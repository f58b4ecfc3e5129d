//! Rewards by vision-language models (feature `vlm`).
//!
//! The model runs elsewhere, behind any server that speaks OpenAI's `POST /v1/chat/completions` with images:
//! vLLM, SGLang, llama.cpp, Ollama, `transformers serve`. [`Chat`] is its client; [`VlmBertScore`] and [`Vqa`] turn
//! its answers into scores, as Black et al. 2023 do with LLaVA (sections 5.3 and appendix A).
//!
//! The reference sends pickled Python objects over HTTP and tries a thousand times, 120 seconds each (jannerm/ddpo
//! `training/callbacks.py`). Here it is JSON and one deadline, and a failure is never a number.
//!
//! Running the model and streaming are not supported.

mod alignment;
mod backoff;
mod chat;
mod counting;
mod fan;
mod image;
mod vqa;
mod wire;

pub use alignment::{TextSimilarity, VlmBertScore, Wording};
pub use backoff::Backoff;
pub use chat::{Chat, ChatConfig};
pub use counting::counting_questions;
pub use image::Encoding;
pub use vqa::{Question, Vqa};
