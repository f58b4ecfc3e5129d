//! Weights of rewards: each is fetched from where it is published, and scores as the same files in a folder do.

use std::fs;
use std::path::Path;

use ddpo_tests::chat_server::{ChatServer, Reply};
use ddpo_tests::scoring::{Scoring, small_aesthetic};
use ddpo_tests::{Ended, copy_folder, ended, golden};

use crate::{Behaviour, HubServer, NOWHERE, with_hub};

const CLIP: (&str, &str) = (
    "openai/clip-vit-large-patch14",
    "32bd64288804d66eefd0ccbe215aa642df71cc41",
);
const HEAD: (&str, &str) = (
    "trl-lib/ddpo-aesthetic-predictor",
    "cf4bd10345610935a80a5d3be9a3133c50f121e4",
);
const IMAGE_REWARD: (&str, &str) = (
    "THUDM/ImageReward",
    "5736be03b2652728fb87788c9797b0570450ab72",
);
const BERT: (&str, &str) = (
    "google-bert/bert-base-uncased",
    "86b5e0934494bd15c9632b12f734a8a67f723594",
);
const DEBERTA: (&str, &str) = (
    "microsoft/deberta-xlarge-mnli",
    "5b07a9086c1dbb79981ff7b05b4d1ad83b3af51c",
);
const OTHER: &str = "0123456789abcdef0123456789abcdef01234567";

/// Images to score, repositories to fetch from, and a cache.
struct Case {
    scoring: Scoring,
    chat: Option<ChatServer>,
}

impl Case {
    fn new() -> Self {
        Self {
            scoring: Scoring::default(),
            chat: None,
        }
    }

    /// With a server that describes images.
    fn with_chat() -> Self {
        let chat = ChatServer::start(|asked| match asked.hash() % 2 {
            0 => Reply::Says("a dog is riding a red bike".to_owned()),
            _ => Reply::Says("two horses".to_owned()),
        });
        Self {
            chat: Some(chat),
            ..Self::new()
        }
    }

    /// A small network's files under the names of its repository.
    fn repository(&self, name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let to = self.scoring.path(name);
        fs::create_dir(&to).expect("a folder");
        for (from, name) in files {
            fs::copy(golden(from), to.join(name)).expect("a copy");
        }
        to
    }

    fn score(&self, reward: &str, set: &[String], endpoint: &str, offline: bool) -> Ended {
        let mut set = set.to_vec();
        if let Some(chat) = &self.chat {
            let url = format!("reward.vlm.url={}", chat.url());
            set.extend([url, "reward.vlm.model=m".to_owned()]);
        }
        let command = self.scoring.command(reward, &set);
        let mut command = with_hub(command, &self.scoring.path("cache"), endpoint);
        if offline {
            command.env("HF_HUB_OFFLINE", "1");
        }
        ended(&mut command)
    }

    /// Fetches what `set` names, and gets the scores that `in_folder` gives; then the same from the cache alone.
    #[track_caller]
    fn fetches(
        &self,
        reward: &str,
        repositories: &[(&Path, (&str, &str))],
        set: &[String],
        in_folder: &[String],
    ) {
        self.score(reward, in_folder, NOWHERE, false).expect(0, &[]);
        let expected = self.scoring.scores();
        assert!(expected[0] != expected[1], "{expected:?}");
        fs::remove_file(self.scoring.path("out.csv")).expect("a table");
        let all: Vec<_> = repositories
            .iter()
            .map(|(root, (id, revision))| (*root, *id, *revision))
            .collect();
        let server = HubServer::of_all(&all, Behaviour::Good);
        let fetched = self.score(reward, set, server.endpoint(), false);
        let parts: Vec<String> = all
            .iter()
            .map(|(_, id, revision)| format!("of {id} at {revision}"))
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        fetched.expect(0, &parts);
        assert_eq!(self.scoring.scores(), expected);
        let n_requests = server.n_requests();
        let again = self
            .score(reward, set, server.endpoint(), false)
            .expect(0, &[]);
        assert!(!again.stderr.contains("fetching"), "{}", again.stderr);
        assert_eq!(server.n_requests(), n_requests);
        drop(server);
        self.score(reward, set, NOWHERE, true).expect(0, &[]);
        assert_eq!(self.scoring.scores(), expected);
    }
}

#[test]
fn aesthetic_is_made_of_clip_s_tower_and_the_head() {
    let case = Case::new();
    let clip = golden("clip_vision");
    let files = [("aesthetic/head.safetensors", "aesthetic-model.pth")];
    let head = case.repository("head", &files);
    let folder = case.scoring.path("weights");
    small_aesthetic(&folder);
    let in_folder = [format!("reward.weights.aesthetic={}", folder.display())];
    let repositories = [(clip.as_path(), CLIP), (&head, HEAD)];
    case.fetches("aesthetic", &repositories, &[], &in_folder);
}

#[test]
fn image_reward_is_made_of_its_file_and_bert_s_vocabulary() {
    let case = Case::new();
    let [weights, vocab] = ["ImageReward.safetensors", "vocab.txt"];
    let golden_file = |name: &str| format!("image_reward/{name}");
    let weights = case.repository(
        "weights",
        &[
            (&golden_file(weights), "ImageReward.pt"),
            (&golden_file("config.json"), "config.json"),
        ],
    );
    let bert = case.repository("bert", &[(&golden_file(vocab), vocab)]);
    let folder = golden("image_reward").display().to_string();
    let in_folder = [format!("reward.weights.image_reward={folder}")];
    let repositories = [(weights.as_path(), IMAGE_REWARD), (&bert, BERT)];
    case.fetches("image-reward", &repositories, &[], &in_folder);
}

#[test]
fn the_encoder_of_descriptions_may_be_any_of_the_hub() {
    let case = Case::with_chat();
    let layer = "reward.vlm.encoder_layer=3".to_owned();
    let golden_encoder = |net: &str| golden("text_encoders").join(net);
    let set = |encoder: &str| [format!("reward.vlm.encoder={encoder}"), layer.clone()];
    let folder = golden_encoder("deberta");
    let in_folder = set(&folder.display().to_string());
    let default = std::slice::from_ref(&layer);
    case.fetches("vlm-bertscore", &[(&folder, DEBERTA)], default, &in_folder);
    let folder = golden_encoder("bert");
    let in_folder = set(&folder.display().to_string());
    let named = set(&format!("some-one/small.bert@{OTHER}"));
    let repositories = [(folder.as_path(), ("some-one/small.bert", OTHER))];
    case.fetches("vlm-bertscore", &repositories, &named, &in_folder);
}

/// Offline, with no hub, and with one that lacks a file.
#[test]
fn what_cannot_be_had_is_listed_with_its_origin_its_size_and_its_place() {
    let place = |(id, revision): (&str, &str)| {
        let folder = id.replace('/', "--");
        format!("cache/hub/models--{folder}/snapshots/{revision}")
    };
    let rows = [
        (
            "aesthetic",
            "`reward.weights.aesthetic`",
            [
                "config.json",
                "model.safetensors or pytorch_model.bin (about 1.7 GB",
            ],
            [CLIP, HEAD].as_slice(),
        ),
        (
            "image-reward",
            "`reward.weights.image_reward`",
            [
                "ImageReward.pt (about 1.8 GB",
                "vocab.txt or tokenizer.json",
            ],
            &[IMAGE_REWARD, BERT],
        ),
        (
            "vlm-bertscore",
            "`reward.vlm.encoder`",
            [
                "pytorch_model.bin (3 GB as f32",
                "vocab.json and merges.txt",
            ],
            &[DEBERTA],
        ),
    ];
    let case = Case::with_chat();
    let empty = case.repository("empty", &[]);
    for (reward, key, files, repositories) in rows {
        let places: Vec<String> = repositories.iter().map(|of| place(*of)).collect();
        let mut parts = vec![key];
        parts.extend(files);
        for ((id, revision), place) in repositories.iter().zip(&places) {
            parts.extend([*id, *revision, place.as_str()]);
        }
        let offline = case.score(reward, &[], NOWHERE, true);
        offline.expect(3, &[&parts[..], &["HF_HUB_OFFLINE is set"]].concat());
        case.score(reward, &[], NOWHERE, false).expect(3, &parts);
        let (id, revision) = repositories[0];
        let server = HubServer::of(&empty, id, revision, Behaviour::Good);
        let lacks = case.score(reward, &[], server.endpoint(), false);
        let cause = "the repository has no such file";
        lacks.expect(3, &[&parts[..], &[cause]].concat());
        assert!(!case.scoring.path("out.csv").exists());
    }
}

#[test]
fn what_comes_damaged_is_refused_and_what_is_there_is_not_asked_for_again() {
    let case = Case::new();
    let clip = golden("clip_vision");
    let files = [("aesthetic/head.safetensors", "aesthetic-model.pth")];
    let head = case.repository("head", &files);
    let repositories = [(clip.as_path(), CLIP.0, CLIP.1), (&head, HEAD.0, HEAD.1)];
    let damage = Behaviour::Damaged("aesthetic-model.pth");
    let damaged = HubServer::of_all(&repositories, damage);
    let parts = [
        "cannot get aesthetic-model.pth (",
        HEAD.0,
        "sha256",
        "try again",
    ];
    let outcome = case.score("aesthetic", &[], damaged.endpoint(), false);
    let stderr = outcome.expect(3, &parts).stderr;
    assert!(!stderr.contains("model.safetensors or"), "{stderr}");
    let good = HubServer::of_all(&repositories, Behaviour::Good);
    let again = case.score("aesthetic", &[], good.endpoint(), false);
    let stderr = again.expect(0, &["fetching aesthetic-model.pth"]).stderr;
    assert!(!stderr.contains("fetching model.safetensors"), "{stderr}");
}

#[test]
fn a_repository_without_a_pinned_revision_wants_one() {
    let case = Case::new();
    for (named, part) in [
        ("some-one/clip", "\"some-one/clip@REVISION\""),
        ("some-one/clip@main", "revision `main` may change"),
    ] {
        let set = [format!("reward.weights.aesthetic={named}")];
        let parts = [
            part,
            "40 hexadecimal digits",
            "model.safetensors",
            "`reward.weights.aesthetic`",
        ];
        case.score("aesthetic", &set, NOWHERE, false)
            .expect(3, &parts);
    }
    // The tower of that name; the head is where it always is.
    let clip = case.scoring.path("clip");
    copy_folder(&golden("clip_vision"), &clip);
    let files = [("aesthetic/head.safetensors", "aesthetic-model.pth")];
    let head = case.repository("head", &files);
    let repositories = [
        (clip.as_path(), "some-one/clip", OTHER),
        (&head, HEAD.0, HEAD.1),
    ];
    let server = HubServer::of_all(&repositories, Behaviour::Good);
    let set = [format!("reward.weights.aesthetic=some-one/clip@{OTHER}")];
    let part = format!("of some-one/clip at {OTHER}");
    case.score("aesthetic", &set, server.endpoint(), false)
        .expect(0, &[&part]);
}
