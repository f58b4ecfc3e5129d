//! The published files of networks that rewards use: in a folder, or from the hub.
//!
//! A key names either a folder that has all of them, or a repository as `OWNER/NAME` or `OWNER/NAME@COMMIT`. What is
//! published elsewhere than in that repository comes from where its authors have put it.

use std::path::{Path, PathBuf};

use super::hub::{self, Repository, Unavailable};
use crate::failure::{Exit, Failure, Result};

/// A file that a network needs, or several that go together.
pub struct Needed {
    /// Any of these sets, best first.
    pub any: &'static [&'static [&'static str]],
    /// How large; only a guess if it begins with "about", nothing if it is small.
    pub size: &'static str,
}

/// What a network needs of one repository.
pub struct Part {
    /// Where it is published.
    pub from: &'static str,
    /// Without these nothing works.
    pub needed: &'static [Needed],
    /// Read if they are there.
    pub optional: &'static [&'static str],
    /// Where else it can be had, for a person.
    pub also: &'static str,
}

/// The files of a network.
pub struct Wanted<'a> {
    /// Name of the reward.
    pub reward: &'a str,
    /// The key that names folder or repository.
    pub key: &'a str,
    /// What it says.
    pub named: &'a str,
    /// The first is of the repository that the key names.
    pub parts: &'a [Part],
}

/// Where they are.
#[derive(Debug)]
pub struct Found {
    /// A folder a part.
    pub folders: Vec<PathBuf>,
    /// Every file that is needed, in the order of the parts.
    pub files: Vec<PathBuf>,
}

/// Where one part is looked for.
#[derive(Clone)]
struct Place {
    folder: PathBuf,
    /// Repository and revision.
    hub: Option<(String, String)>,
}

impl Wanted<'_> {
    /// Looks into the folder that is named, or else into the hub's cache, and fetches what is not there.
    ///
    /// # Errors
    /// Exit 3 with every file that is missing: its name, size, origin, and where to put it.
    pub fn locate(&self) -> Result<Found> {
        let places = self.places()?;
        let fetched = self.fetch(&places);
        let mut files = Vec::new();
        for (part, place) in self.parts.iter().zip(&places) {
            for needed in part.needed {
                match needed.among(|file| place.folder.join(file).is_file()) {
                    Some(set) => files.extend(set.iter().map(|file| place.folder.join(file))),
                    None => return Err(self.missing(&places, fetched.err().as_deref())),
                }
            }
        }
        let folders = places.into_iter().map(|place| place.folder).collect();
        Ok(Found { folders, files })
    }

    fn places(&self) -> Result<Vec<Place>> {
        let in_folder = |folder: &str| Place {
            folder: folder.into(),
            hub: None,
        };
        let (id, revision) = match self.named.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (self.named, None),
        };
        if Path::new(self.named).is_dir() || !hub::is_id(id) {
            return Ok(vec![in_folder(self.named); self.parts.len()]);
        }
        let how = format!("`{}` = \"{id}@REVISION\"", self.key);
        let of_hub = |id: &str, revision: Option<&str>| {
            let revision = hub::revision(id, revision, &how)?;
            Ok(Place {
                folder: Repository::new(id, revision).snapshot,
                hub: Some((id.to_owned(), revision.to_owned())),
            })
        };
        let others = self.parts.iter().skip(1);
        let named = std::iter::once((id, revision)).chain(others.map(|part| (part.from, None)));
        let places: Result<_, String> = named.map(|(id, rev)| of_hub(id, rev)).collect();
        places.map_err(|reason| {
            let nowhere = vec![in_folder(self.named); self.parts.len()];
            let cause = format!("no folder is there, and as a name on the hub {reason}");
            self.missing(&nowhere, Some(&cause))
        })
    }

    /// What is not there yet, of those that come from the hub; the error is why not.
    fn fetch(&self, places: &[Place]) -> Result<(), String> {
        for (part, place) in self.parts.iter().zip(places) {
            let lacks = |needed: &Needed| {
                let set = needed.among(|file| place.folder.join(file).is_file());
                set.is_none()
            };
            let Some((id, revision)) = &place.hub else {
                continue;
            };
            if !part.needed.iter().any(lacks) {
                continue;
            }
            if hub::offline() {
                return Err("HF_HUB_OFFLINE is set".to_owned());
            }
            part.fetch(&Repository::new(id, revision)).map_err(
                |Unavailable { file, size, cause }| {
                    format!("cannot get {file}{} of {id}: {cause}", hub::shown(size))
                },
            )?;
        }
        Ok(())
    }

    /// Which files are missing, from where, how large, and where to put them.
    fn missing(&self, places: &[Place], cause: Option<&str>) -> Failure {
        let mut rows = Vec::new();
        for (part, place) in self.parts.iter().zip(places) {
            let (from, commit) = match &place.hub {
                Some((id, revision)) => (id.as_str(), format!(" at {revision}")),
                None => (part.from, String::new()),
            };
            // Another's files may be of other sizes.
            let is_known = from == part.from;
            for needed in part.needed {
                if needed
                    .among(|file| place.folder.join(file).is_file())
                    .is_some()
                {
                    continue;
                }
                let size = match needed.size {
                    "" => String::new(),
                    _ if !is_known => String::new(),
                    size => format!("{size}; "),
                };
                rows.push(format!(
                    "{} ({size}{from} on the model hub{commit}{}) into {}",
                    needed.names(),
                    part.also,
                    place.folder.display()
                ));
            }
        }
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        let (key, named, rows) = (self.key, self.named, rows.join("\n  "));
        let otherwise = match places[0].hub {
            Some(_) => "let the hub be reached".to_owned(),
            None => format!("name `{}` of the hub", self.parts[0].from),
        };
        let reward = self.reward;
        Failure::new(
            Exit::Data,
            format!(
                "`{key}` is \"{named}\", and reward {reward} needs files that are not there{cause}\n  {rows}\nput them \
                 there, or name by `{key}` a folder that has all of them, or {otherwise}"
            ),
        )
    }
}

impl Needed {
    /// The best set whose every file passes.
    fn among(&self, there: impl Fn(&str) -> bool) -> Option<&'static [&'static str]> {
        let sets = self.any.iter().copied();
        sets.into_iter()
            .find(|set| set.iter().all(|file| there(file)))
    }

    fn names(&self) -> String {
        let sets: Vec<String> = self.any.iter().map(|set| set.join(" and ")).collect();
        sets.join(" or ")
    }
}

impl Part {
    /// Small files first: what is needed is there only if everything is.
    fn fetch(&self, repository: &Repository<'_>) -> Result<(), Unavailable> {
        let online = repository.online()?;
        let mut wanted: Vec<&str> = self.optional.to_vec();
        wanted.retain(|file| online.find(file).is_some());
        for needed in self.needed {
            let set = needed.among(|file| online.find(file).is_some());
            let cause = "the repository has no such file";
            wanted.extend(set.ok_or_else(|| Unavailable::new(needed.names(), cause))?);
        }
        let remotes = wanted.into_iter().filter_map(|file| online.find(file));
        remotes
            .into_iter()
            .try_for_each(|remote| online.bring(remote))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [Part; 2] = [
        Part {
            from: "openai/clip-vit-large-patch14",
            needed: &[
                Needed {
                    any: &[&["config.json"]],
                    size: "",
                },
                Needed {
                    any: &[&["model.safetensors"], &["old.bin", "old.json"]],
                    size: "about 2 GB",
                },
            ],
            optional: &[],
            also: "",
        },
        Part {
            from: "google-bert/bert-base-uncased",
            needed: &[Needed {
                any: &[&["vocab.txt"]],
                size: "",
            }],
            optional: &[],
            also: ", or elsewhere",
        },
    ];

    fn locate(named: &str) -> Result<Found> {
        let wanted = Wanted {
            reward: "this",
            key: "reward.weights.this",
            named,
            parts: &PARTS,
        };
        wanted.locate()
    }

    #[test]
    fn a_folder_has_everything_or_what_it_lacks_is_listed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display().to_string();
        for file in ["config.json", "old.json", "vocab.txt"] {
            std::fs::write(folder.path().join(file), "").expect("a file");
        }
        let failure = locate(&path).expect_err("weights are missing");
        assert_eq!(failure.exit, Exit::Data);
        let text = failure.to_string();
        let row = format!(
            "model.safetensors or old.bin and old.json (about 2 GB; openai/clip-vit-large-patch14 on the model hub) \
             into {path}"
        );
        assert!(text.contains(&row), "{text}");
        assert!(!text.contains("vocab.txt ("), "{text}");
        std::fs::write(folder.path().join("old.bin"), "").expect("a file");
        let found = locate(&path).expect("everything is there");
        assert_eq!(found.folders, [folder.path(), folder.path()]);
        let names = ["config.json", "old.bin", "old.json", "vocab.txt"];
        assert_eq!(found.files, names.map(|name| folder.path().join(name)));
    }

    #[test]
    fn what_is_neither_folder_nor_pinned_is_told_how_to_name_a_revision() {
        for (named, part) in [
            (
                "some-one/net",
                "`reward.weights.this` = \"some-one/net@REVISION\"",
            ),
            (
                "openai/clip-vit-large-patch14@main",
                "revision `main` may change",
            ),
            ("./nowhere", "into ./nowhere"),
        ] {
            let failure = locate(named).expect_err(named);
            let text = failure.to_string();
            for part in [part, "config.json", "vocab.txt", ", or elsewhere)"] {
                assert!(text.contains(part), "{part} is not in: {text}");
            }
        }
    }
}
