//! A Stable Diffusion of the hub: which files of its repository are needed.

use ddpo_model::files::{self, Files};
use tch::Kind;

use super::{Online, Remote, Repository, Unavailable, offline, shown};
use crate::failure::{Exit, Failure, Result};

/// A folder with everything that loading the model with a UNet in `kind` needs.
pub fn fetch(id: &str, revision: &str, kind: Kind) -> Result<Files> {
    let repository = Repository::new(id, revision);
    let cached = Files::Folder(repository.snapshot.clone());
    let lacking = cached.lacking(kind);
    if lacking.is_empty() {
        return Ok(cached);
    }
    if offline() {
        // Weights in another kind than the best serve too, where there is no asking for better ones.
        let lacking = cached.lacking_any(kind);
        return match lacking.as_slice() {
            [] => Ok(cached),
            lacking => {
                let cause = "HF_HUB_OFFLINE is set";
                Err(absent(
                    &repository,
                    &Unavailable::new(lacking.join(", "), cause),
                ))
            }
        };
    }
    let online = repository.online().map_err(|unavailable| {
        let lacking = Unavailable::new(lacking.join(", "), unavailable.cause);
        absent(&repository, &lacking)
    })?;
    let brought = wanted(&online, kind)
        .and_then(|wanted| wanted.iter().try_for_each(|remote| online.bring(remote)));
    match brought {
        Ok(()) => Ok(cached),
        Err(unavailable) => Err(absent(&repository, &unavailable)),
    }
}

/// The files to be there, as the hub lists them.
fn wanted(online: &Online<'_>, kind: Kind) -> Result<Vec<Remote>, Unavailable> {
    let find = |file: &str| {
        let cause = "the repository has no such file";
        let found = online.find(file).cloned();
        found.ok_or_else(|| Unavailable::new(file, cause))
    };
    let mut wanted = Vec::new();
    for file in files::REQUIRED {
        wanted.push(find(file)?);
    }
    let optional = files::OPTIONAL.iter().filter_map(|file| online.find(file));
    wanted.extend(optional.cloned());
    for component in files::COMPONENTS {
        let candidates = files::candidates(component, files::kind_of(component, kind));
        let found = candidates
            .iter()
            .find_map(|c| Some((c, online.find(&c.file)?)));
        let Some((candidate, remote)) = found else {
            let cause = "the repository has no safetensors for it, and pickles are not read";
            return Err(Unavailable::new(&candidates[0].file, cause));
        };
        wanted.push(remote.clone());
        if candidate.is_index {
            online.bring(remote)?;
            let index = online.of.snapshot.join(&candidate.file);
            let shards = files::shards(&index).map_err(|e| Unavailable::new(&candidate.file, e))?;
            for file in shards {
                wanted.push(find(&format!("{component}/{file}"))?);
            }
        }
    }
    Ok(wanted)
}

/// A file that cannot be had: which, of what, why, and what to do.
fn absent(repository: &Repository<'_>, unavailable: &Unavailable) -> Failure {
    let Unavailable { file, size, cause } = unavailable;
    Failure::new(
        Exit::Data,
        format!(
            "cannot get {file}{} of {} at revision {}: {cause}; put what is missing into {}, or name a folder in the \
             diffusers layout instead",
            shown(*size),
            repository.id,
            repository.revision,
            repository.snapshot.display()
        ),
    )
}
