//! Keys of rewards. A kind reads its own only; all have the defaults that are said here where they have one.

use ddpo_reward::vlm::Wording;

use super::Kind::{Choice, Count, Duration, Flag, Other};
use super::{Key, names};
use crate::config::{DTYPES, RewardKind};

/// Where weights of networks are.
const WEIGHTS: &str = "a folder, or a name on the hub as OWNER/NAME or OWNER/NAME@COMMIT";

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "reward.kind",
        Choice(|| RewardKind::NAMES.to_vec()),
        "What an image is worth; docs/rewards.md has each kind.",
    ),
    Key::new(
        "reward.stands_in_for",
        Other("the name of the paper's reward"),
        "The paper's reward that this one stands in for; the run and its report \
         say so.",
    ),
    Key::new(
        "reward.threads",
        Count(1, 64),
        "Threads that score images while the next batch is sampled. [own] the \
         JPEG rewards are faster than any sampler",
    )
    .default("1")
    .may_change(),
    Key::new(
        "reward.cache",
        Other("a folder, or \"\" to remember nothing"),
        "A folder where scores of servers and programs are remembered. [own] a \
         run keeps what it paid for anyway",
    )
    .default("\"\"")
    .may_change(),
    Key::new(
        "reward.offline",
        Flag,
        "Nobody is asked: every score must be in reward.cache.",
    )
    .default("false")
    .may_change(),
    Key::new(
        "reward.command",
        Other("a program and its arguments, as [\"python3\", \"reward.py\"]"),
        "The program of kind command; a part that is a file beside the \
         configuration is found there.",
    ),
    Key::new(
        "reward.command_deadline",
        Duration,
        "For one line of the program, its start in the first. [own]",
    )
    .default("\"60s\"")
    .may_change(),
    Key::new(
        "reward.command_retry",
        Duration,
        "A program that ended is started anew for so long; 0 for never. [own]",
    )
    .default("\"10s\"")
    .may_change(),
    Key::new(
        "reward.parts",
        Other(
            "kinds with their weights, as { jpeg-compressibility = 1.0, \
         colourfulness = 0.1 }",
        ),
        "The parts of kind composite.",
    ),
    Key::new(
        "reward.normalise_parts",
        Flag,
        "Each part by its own mean and deviation before it is added. [own] as \
         one reward",
    )
    .default("false"),
    Key::new(
        "reward.device",
        Other("cpu or cuda:N"),
        "Where networks of rewards are computed. [own] runs everywhere",
    )
    .default("\"cpu\""),
    Key::new(
        "reward.dtype",
        Choice(|| names(&DTYPES)),
        "Of their weights and compute. [own] as the references",
    )
    .default("\"f32\""),
    Key::new(
        "reward.weights.aesthetic",
        Other(WEIGHTS),
        "CLIP ViT-L/14, or a folder with that and LAION's head. [J] [T]",
    )
    .default("\"openai/clip-vit-large-patch14\""),
    Key::new(
        "reward.weights.image_reward",
        Other(WEIGHTS),
        "ImageReward, or a folder with ImageReward.pt and the vocabulary of \
         bert-base-uncased. [P C]",
    )
    .default("\"THUDM/ImageReward\""),
    Key::new(
        "reward.twice_rescaled",
        Flag,
        "The aesthetic score sees images divided by 255 twice, as in [J]; only \
         to compare with its curves.",
    )
    .default("false"),
    Key::new(
        "reward.vlm.url",
        Other("the server's address, as \"http://127.0.0.1:8000\""),
        "The chat server of the kinds vlm-….",
    )
    .may_change(),
    Key::new(
        "reward.vlm.model",
        Other("the model's name, as the server lists it at /v1/models"),
        "The model that is asked.",
    ),
    Key::new(
        "reward.vlm.api_key_env",
        Other("the name of an environment variable, or \"\" for none"),
        "Where the server's key is. [own] servers on this machine want none",
    )
    .default("\"\"")
    .may_change(),
    Key::new(
        "reward.vlm.max_tokens",
        Count(1, 4096),
        "Longest answer. [J] LLaVA-server, max_new_tokens",
    )
    .default("64"),
    Key::new(
        "reward.vlm.encoding",
        Choice(|| vec!["jpeg", "png"]),
        "How images travel: JPEG of quality 80 [J] [T], or the very pixels.",
    )
    .default("\"jpeg\""),
    Key::new(
        "reward.vlm.in_flight",
        Count(1, 1024),
        "Requests at a time. [J] [T] batches of 16",
    )
    .default("16")
    .may_change(),
    Key::new("reward.vlm.timeout", Duration, "Of one attempt. [J] [T]")
        .default("\"120s\"")
        .may_change(),
    Key::new(
        "reward.vlm.deadline",
        Duration,
        "Of one question over all attempts. [own] [J] and [T] try a thousand \
         times",
    )
    .default("\"10m\"")
    .may_change(),
    Key::new(
        "reward.vlm.backoff",
        Duration,
        "Before the second attempt at most, doubled each time. [own]",
    )
    .default("\"1s\"")
    .may_change(),
    Key::new(
        "reward.vlm.longest_backoff",
        Duration,
        "Longest pause between attempts. [own]",
    )
    .default("\"30s\"")
    .may_change(),
    Key::new(
        "reward.vlm.bad_answers",
        Count(1, 100),
        "Unusable answers to one question that end the epoch. [own]",
    )
    .default("3")
    .may_change(),
    Key::new(
        "reward.vlm.questions",
        Other(
            "a list such as [{ ask = \"What animal is this?\", expect = \
         \"{prompt}\" }]",
        ),
        "Questions of vlm-vqa; the score is the share whose answer contains \
         what is expected. [J] the counting task's second question",
    )
    .default("[{ ask = \"What animal is in this image?\", expect = \"{prompt}\" }]"),
    Key::new(
        "reward.vlm.wording",
        Choice(|| names(&Wording::NAMES)),
        "Question and reference of vlm-bertscore: of [P 5.3], or of [J] and \
         [T], with which the published runs were made.",
    )
    .default("\"paper\""),
    Key::new(
        "reward.vlm.encoder",
        Other(
            "a folder with a BERT, MiniLM or DeBERTa encoder as transformers saves \
         it, or a name on the hub as OWNER/NAME or OWNER/NAME@COMMIT",
        ),
        "What compares texts in vlm-bertscore. [J] [T] bert-score 0.3.13",
    )
    .default("\"microsoft/deberta-xlarge-mnli\""),
    Key::new(
        "reward.vlm.encoder_layer",
        Count(1, 1000),
        "The layer whose states are compared. [J] [T] of \
         microsoft/deberta-xlarge-mnli",
    )
    .default("40"),
    Key::new(
        "reward.vlm.encoder_device",
        Other("cpu or cuda:N"),
        "Where it is computed. [own] the model has the accelerator",
    )
    .default("\"cpu\"")
    .may_change(),
];
