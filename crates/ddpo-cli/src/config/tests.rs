use std::path::Path;

use super::*;
use crate::failure::{Exit, Failure};

mod claims;
mod judge;
mod methods;
mod prompts;
mod variants;

const CONFIGS: [&str; 3] = ["compressibility", "incompressibility", "aesthetic"];

/// Experiments whose runs are not the four algorithms of Fig. 4.
const WITH_VARIANTS: [&str; 8] = [
    "alignment",
    "generalization",
    "guidance",
    "overoptimization",
    "dpok",
    "cfg-ablation",
    "interleaving",
    "samples",
];

fn source(name: &str, set: &[&str]) -> Source {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    Source {
        file: Some(folder.join(format!("{name}.toml"))),
        set: set.iter().map(|pair| (*pair).to_owned()).collect(),
        ..Source::default()
    }
}

fn load(set: &[&str]) -> Result<Plan, Failure> {
    Plan::load(&source("compressibility", set))
}

#[track_caller]
fn refused(set: &[&str], parts: &[&str]) {
    let failure = load(set).expect_err("a bad configuration");
    assert_eq!(failure.exit, Exit::Config);
    let text = failure.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn shipped_configurations_are_whole_for_every_algorithm() {
    for name in CONFIGS {
        for (algorithm, updates) in [
            ("ddpo-is", 4),
            ("ddpo-sf", 1),
            ("rwr", 20),
            ("rwr-sparse", 20),
        ] {
            let variant = Some(algorithm.to_owned());
            let plan = Plan::load(&Source {
                variant,
                ..source(name, &[])
            })
            .expect(name);
            assert_eq!(
                (plan.experiment.as_str(), plan.method.updates_per_epoch()),
                (name, updates)
            );
        }
    }
}

/// A configuration under a preset, whether or not the preset's device is there.
fn under(name: &str, preset: &str, algorithm: &str) -> Result<Plan, Failure> {
    Plan::load(&Source {
        preset: Some(preset.to_owned()),
        variant: Some(algorithm.to_owned()),
        on_paper: true,
        ..source(name, &[])
    })
}

#[test]
fn stable_diffusion_presets_have_the_numbers_of_their_sources() {
    // Epochs, updates of DDPO-IS, rewards kept a prompt: ddpo-pytorch config/dgx.py; table D.5 and the JAX code.
    let rows = [
        ("lora", "compressibility", 100, 4, 16),
        ("lora", "incompressibility", 100, 4, 16),
        ("lora", "aesthetic", 200, 2, 32),
        ("paper", "compressibility", 200, 4, 32),
        ("paper", "incompressibility", 200, 4, 32),
        ("paper", "aesthetic", 200, 4, 32),
    ];
    for (preset, name, epochs, updates, buffer) in rows {
        for (algorithm, updates) in [("ddpo-is", updates), ("ddpo-sf", 1)] {
            let plan = under(name, preset, algorithm).unwrap_or_else(|failure| {
                unreachable!("{preset} {name}: {failure}");
            });
            let networks = ["reward.device", "reward.weights.aesthetic"];
            let read = |key: &&&str| plan.entries.iter().any(|entry| entry.key == ***key);
            let n_read = networks.iter().filter(read).count();
            assert_eq!(n_read, if name == "aesthetic" { 2 } else { 0 });
            assert_eq!(plan.stands_in_for, None);
            let prompts = match name {
                "aesthetic" => "animals",
                _ => "imagenet-animals",
            };
            assert_eq!(plan.prompts.name(), prompts);
            let rl = &plan.rl;
            let Method::Ddpo(ddpo) = plan.method else {
                unreachable!("{algorithm}");
            };
            assert_eq!((plan.run.epochs, ddpo.updates_per_epoch), (epochs, updates));
            assert_eq!((ddpo.samples_per_epoch, ddpo.clip_range), (256, 1e-4));
            assert_eq!((ddpo.stats_buffer_size, ddpo.stats_min_count), (buffer, 16));
            let sampler = plan.sampler;
            assert_eq!(
                (sampler.n_steps, sampler.eta, sampler.guidance_scale),
                (50, 1.0, 5.0)
            );
            let own = (rl.lr, ddpo.advantage_clip, plan.run.seed, plan.model.tf32);
            match preset {
                "lora" => assert_eq!(own, (3e-4, 5.0, 42, true)),
                _ => assert_eq!(own, (1e-5, 10.0, 0, false)),
            }
            assert_eq!(plan.policy.train == Train::Full, preset == "paper");
            assert_eq!(plan.model.dtype == tch::Kind::Half, preset == "lora");
            assert_eq!((rl.beta1, rl.beta2, rl.adam_eps), (0.9, 0.999, 1e-8));
            assert_eq!((rl.weight_decay, rl.max_grad_norm), (1e-4, 1.0));
        }
    }
}

#[test]
fn a_device_need_not_be_there_to_be_planned_for_but_must_be_a_name() {
    let set = ["model.device=cuda:99"];
    refused(&set, &["`model.device` is \"cuda:99\""]);
    let on_paper = |set: &[&str]| {
        Plan::load(&Source {
            on_paper: true,
            ..source("compressibility", set)
        })
    };
    assert!(on_paper(&set).is_ok());
    assert!(on_paper(&["model.device=gpu"]).is_err());
}

#[test]
fn a_stand_in_never_carries_the_paper_s_name() {
    let plan = Plan::load(&source("aesthetic", &[])).expect("a plan");
    assert_eq!(plan.reward.name(), "colourfulness");
    assert_eq!(plan.stands_in_for.as_deref(), Some("aesthetic"));
    assert_eq!(load(&[]).expect("a plan").stands_in_for, None);
}

#[test]
fn every_key_knows_where_it_came_from() {
    let plan = load(&["rl.lr=1e-5"]).expect("a plan");
    let from = |key: &str| {
        let entry = plan
            .entries
            .iter()
            .find(|entry| entry.key == key)
            .expect(key);
        (entry.value.as_str(), entry.from.as_str())
    };
    assert_eq!(from("rl.lr"), ("0.00001", "--set"));
    assert!(from("reward.kind").1.ends_with("compressibility.toml"));
    assert!(from("rl.clip_range").1.ends_with("presets/pocket.toml"));
    assert!(from("run.epochs").1.ends_with("compressibility.toml"));
}

#[test]
fn all_problems_are_found_at_once() {
    refused(
        &[
            "rl.lr=fast",
            "run.epochs=0",
            "sampler.eta=0",
            "rl.clip_rnage=1",
            "model.dtype=f15",
        ],
        &[
            "--set: `rl.lr` is \"fast\": expected a number",
            "--set: `run.epochs` is 0: expected a whole number from 1",
            "--set: `sampler.eta` is 0: a deterministic step has no log-probability",
            "--set: `rl.clip_rnage` is no key: did you mean `rl.clip_range`?",
            "--set: `model.dtype` is \"f15\": expected one of f32, bf16, f16 (did you mean f16?)",
        ],
    );
}

#[test]
fn a_value_that_is_no_toml_is_a_string_and_dotted_keys_reach_deep() {
    let plan = load(&[
        "policy.train=lora",
        "policy.lora.rank=8",
        "run.max_time=10m",
    ])
    .expect("a plan");
    assert_eq!(
        plan.policy.train,
        Train::Lora {
            rank: 8,
            alpha: 4.0,
            targets: ["to_q", "to_k", "to_v", "to_out.0"]
                .map(str::to_owned)
                .to_vec(),
        }
    );
    assert_eq!(plan.run.max_time, Some(std::time::Duration::from_secs(600)));
    assert_eq!(load(&[]).expect("a plan").run.max_time, None);
    refused(&["run.max_time=soon"], &["`run.max_time` is no duration"]);
    refused(&["rl.lr"], &["--set rl.lr: expected KEY=VALUE"]);
    refused(&["rl..lr=1"], &["`rl..lr` is no key"]);
}

#[test]
fn an_unknown_preset_or_file_is_named() {
    let preset = Some("pockt".to_owned());
    let error = Plan::load(&Source {
        preset,
        ..source("compressibility", &[])
    })
    .expect_err("no preset");
    assert!(
        error.to_string().contains("did you mean `pocket`?"),
        "{error}"
    );
    let error = Plan::load(&source("nowhere", &[])).expect_err("no file");
    assert!(error.to_string().contains("nowhere.toml"), "{error}");
}

#[test]
fn a_resolved_configuration_gives_the_same_run_again() {
    same_again(&[
        "rl.updates_per_epoch=2",
        "rl.lr=1e-7",
        "rl.algorithm=ddpo-is",
    ]);
    same_again(&[
        "reward.kind=composite",
        "reward.parts={ vlm-vqa = 0.5, jpeg-compressibility = -1 }",
        VLM[1],
        VLM[2],
        "reward.cache=scores",
    ]);
}

#[track_caller]
fn same_again(set: &[&str]) {
    let plan = load(set).expect("a plan");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml");
    std::fs::write(&file, super::resolved::render(&plan.entries)).expect("a file");
    let again = Plan::load(&Source {
        file: Some(file),
        ..Source::default()
    })
    .expect("the same plan");
    let values = |plan: &Plan| -> Vec<(String, String)> {
        plan.entries
            .iter()
            .map(|e| (e.key.clone(), e.value.clone()))
            .collect()
    };
    assert_eq!(values(&plan), values(&again));
}

const VLM: [&str; 3] = [
    "reward.kind=vlm-vqa",
    "reward.vlm.url=http://127.0.0.1:8000",
    "reward.vlm.model=m",
];

#[test]
fn a_chat_server_needs_an_address_and_a_model_and_the_rest_has_defaults() {
    refused(
        &VLM[..1],
        &[
            "`reward.vlm.url` is missing: expected the server's address",
            "`reward.vlm.model` is missing",
        ],
    );
    let plan = load(&VLM).expect("a plan");
    let vlm = plan.reward.kind.vlm().expect("a server");
    assert_eq!((vlm.chat.in_flight, vlm.chat.max_tokens), (16, 64));
    assert_eq!(vlm.chat.deadline.as_secs(), 600);
    assert!(plan.reward.kind.has_answers() && plan.reward.cache.is_none());
    for (set, part) in [
        (
            "reward.vlm.deadline=0",
            "`reward.vlm.deadline` expected a duration above 0",
        ),
        (
            "reward.vlm.deadline=soon",
            "`reward.vlm.deadline` is no duration",
        ),
        ("reward.vlm.in_flight=0", "`reward.vlm.in_flight` is 0"),
        (
            "reward.vlm.encoding=gif",
            "`reward.vlm.encoding` is \"gif\": expected one of jpeg, png",
        ),
        ("reward.vlm.questions=[]", "`reward.vlm.questions` is empty"),
        (
            "reward.vlm.question=x",
            "did you mean `reward.vlm.questions`?",
        ),
        (
            "reward.vlm.questions=[{ ask = \"Why?\", expect = \"\" }]",
            "has a question that expects nothing",
        ),
        (
            "reward.offline=true",
            "`reward.offline` is true: expected `reward.cache`",
        ),
    ] {
        refused(&[&VLM[..], &[set]].concat(), &[part]);
    }
}

#[test]
fn prompts_that_cannot_be_counted_are_found_before_a_run() {
    refused(
        &["reward.kind=vlm-counting", VLM[1], VLM[2]],
        &[
            "`prompts.set` has animals",
            "`eval.sets` has animals",
            "six monkeys",
            "\"cat\"",
        ],
    );
}

#[test]
fn a_reward_alone_has_its_own_keys_and_no_others() {
    let alone = |set: &str| RewardPlan::alone("colourfulness", &[set.to_owned()]);
    assert_eq!(alone("reward.threads=2").expect("a reward").threads, 2);
    for set in ["rl.lr=1", "reward.thread=2"] {
        let error = alone(set).expect_err("no key here").to_string();
        assert!(
            error.starts_with("--set: `") && error.contains("is no key"),
            "{error}"
        );
    }
}

#[test]
fn a_program_and_a_sum_are_read_and_checked() {
    refused(
        &["reward.kind=command"],
        &[
            "`reward.command` is missing: expected a program",
            "reward.py",
        ],
    );
    refused(
        &["reward.kind=command", "reward.command=[]"],
        &["`reward.command` is empty"],
    );
    refused(
        &["reward.kind=composite"],
        &["`reward.parts` is missing: expected kinds"],
    );
    for (parts, part) in [
        (
            "{ colorfulness = 1 }",
            "`reward.parts.colorfulness` is no part: expected one of jpeg-",
        ),
        ("{ composite = 1 }", "`reward.parts.composite` is no part"),
        (
            "{ colourfulness = 0 }",
            "`reward.parts.colourfulness` is no weight",
        ),
        ("{ command = 1 }", "`reward.command` is missing"),
    ] {
        refused(
            &["reward.kind=composite", &format!("reward.parts={parts}")],
            &[part],
        );
    }
    let parts = "reward.parts={ colourfulness = 2, vlm-vqa = 0.5, command = -1 }";
    let command = "reward.command=[\"true\"]";
    let more = [
        VLM[1],
        VLM[2],
        parts,
        command,
        "reward.normalise_parts=true",
    ];
    let plan = load(&[&["reward.kind=composite"], &more[..]].concat()).expect("a plan");
    // Who is asked comes first, then by name.
    assert_eq!(plan.reward.normalised_parts(), Some(vec![-1.0, 0.5, 2.0]));
    assert!(plan.reward.kind.vlm().is_some());
}
