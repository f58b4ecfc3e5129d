//! The artwork pack: every drawing of every entity of the pocket world, embedded in the binary.
//!
//! One lossless WebP sheet per set; the cells of a sheet are in the order of `entities.json`.
//! Drawings are trimmed to what is visible and centred in a square, so that the scale of a scene
//! means the same in every set. Rebuilt from the published packages by the binary `pocket-pack`.

mod texture;

use std::io::Cursor;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub use texture::Texture;

/// Width and height of a drawing in the pack, in pixels.
pub const DRAWING_SIZE: usize = 80;
/// Drawings in a row of a sheet.
pub const SHEET_COLUMNS: usize = 16;

/// The set that a drawing comes from, which determines its style.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtworkSet {
    /// Noto Emoji (Google, Apache-2.0).
    Noto,
    /// Fluent Emoji, 3D (Microsoft, MIT).
    #[serde(rename = "fluent_3d")]
    Fluent3d,
    /// Fluent Emoji, flat (Microsoft, MIT).
    FluentFlat,
    /// Twemoji (Twitter, CC-BY-4.0).
    Twemoji,
    /// OpenMoji (CC-BY-SA-4.0).
    Openmoji,
    /// Noto Emoji before its redesign (Google, Apache-2.0).
    NotoV1,
    /// Emoji One 2.3 (CC-BY-4.0).
    Emojione,
}

impl ArtworkSet {
    /// Every set, the five with a style word first.
    pub const ALL: [Self; 7] = [
        Self::Noto,
        Self::Fluent3d,
        Self::FluentFlat,
        Self::Twemoji,
        Self::Openmoji,
        Self::NotoV1,
        Self::Emojione,
    ];

    /// The word for this set in captions; `None` for the two sets that never get one.
    pub fn style_word(self) -> Option<&'static str> {
        match self {
            Self::Noto => Some("cartoon"),
            Self::Fluent3d => Some("3d"),
            Self::FluentFlat => Some("flat"),
            Self::Twemoji => Some("simple"),
            Self::Openmoji => Some("outline"),
            Self::NotoV1 | Self::Emojione => None,
        }
    }

    /// The set's name in `entities.json` and in the file names of the pack.
    pub fn name(self) -> &'static str {
        match self {
            Self::Noto => "noto",
            Self::Fluent3d => "fluent_3d",
            Self::FluentFlat => "fluent_flat",
            Self::Twemoji => "twemoji",
            Self::Openmoji => "openmoji",
            Self::NotoV1 => "noto_v1",
            Self::Emojione => "emojione",
        }
    }

    /// Position in [`ArtworkSet::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    fn sheet(self) -> &'static [u8] {
        match self {
            Self::Noto => include_bytes!("../assets/artwork/noto.webp"),
            Self::Fluent3d => include_bytes!("../assets/artwork/fluent_3d.webp"),
            Self::FluentFlat => include_bytes!("../assets/artwork/fluent_flat.webp"),
            Self::Twemoji => include_bytes!("../assets/artwork/twemoji.webp"),
            Self::Openmoji => include_bytes!("../assets/artwork/openmoji.webp"),
            Self::NotoV1 => include_bytes!("../assets/artwork/noto_v1.webp"),
            Self::Emojione => include_bytes!("../assets/artwork/emojione.webp"),
        }
    }
}

/// What an entity is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// One of the paper's 45 training animals.
    Animal,
    /// One of the paper's 38 unseen animals (those with artwork).
    UnseenAnimal,
    /// One of the paper's 50 everyday objects (those with artwork).
    Object,
    /// Something that only appears together with an animal: a plate, a chess pawn.
    Prop,
}

/// Something that can be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its name in captions, lower case, as in the paper's lists.
    pub name: String,
    /// What it is for.
    pub kind: EntityKind,
}

/// One image of one entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    /// Index into [`Pack::entities`].
    pub entity: usize,
    /// The set that it comes from.
    pub set: ArtworkSet,
    /// The emoji's code points in hexadecimal, joined by `-`.
    pub codepoint: String,
}

/// All drawings, decoded and ready to be composed.
///
/// About 50 MB in memory; made once and shared by reference.
#[derive(Debug)]
pub struct Pack {
    entities: Vec<Entity>,
    drawings: Vec<Drawing>,
    textures: Vec<Texture>,
    by_entity: Vec<[Vec<usize>; 7]>,
}

impl Pack {
    /// Decodes the pack that is embedded in the binary.
    ///
    /// # Errors
    /// [`Error::Artwork`] if the embedded files are inconsistent.
    pub fn embedded() -> Result<Self> {
        let listed = listed_entities()?;
        let mut pack = Self {
            entities: Vec::with_capacity(listed.len()),
            drawings: Vec::new(),
            textures: Vec::new(),
            by_entity: vec![Default::default(); listed.len()],
        };
        for entry in &listed {
            pack.entities.push(Entity {
                name: entry.name.clone(),
                kind: entry.kind,
            });
        }
        for set in ArtworkSet::ALL {
            pack.add_sheet(set, &listed)?;
        }
        Ok(pack)
    }

    /// Every entity, in the order of `entities.json`, which is also that of the judges' classes.
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// Every drawing, set by set.
    pub fn drawings(&self) -> &[Drawing] {
        &self.drawings
    }

    /// The pixels of a drawing, by its index in [`Pack::drawings`].
    ///
    /// # Panics
    /// If `drawing` is out of range.
    pub fn texture(&self, drawing: usize) -> &Texture {
        &self.textures[drawing]
    }

    /// Indices of the drawings of one entity in one set; empty where the set lacks it.
    ///
    /// # Panics
    /// If `entity` is out of range.
    pub fn drawings_of(&self, entity: usize, set: ArtworkSet) -> &[usize] {
        &self.by_entity[entity][set.index()]
    }

    /// Index of the entity with this name; of the object where an object and a prop share a name.
    pub fn entity(&self, name: &str) -> Option<usize> {
        self.entities.iter().position(|entity| entity.name == name)
    }

    fn add_sheet(&mut self, set: ArtworkSet, listed: &[ListedEntity]) -> Result<()> {
        let part = format!("{}.webp", set.name());
        let sheet = image::load(Cursor::new(set.sheet()), image::ImageFormat::WebP)
            .map_err(|err| Error::artwork(&part, err))?
            .into_rgba8();
        let cells: Vec<(usize, &String)> = cells_of(set, listed).collect();
        let (width, height) = sheet_size(cells.len());
        if sheet.dimensions() != (width as u32, height as u32) {
            let reason = format!(
                "{:?} pixels, expected {:?}",
                sheet.dimensions(),
                (width, height)
            );
            return Err(Error::artwork(part, reason));
        }
        for (cell, (entity, codepoint)) in cells.into_iter().enumerate() {
            let (left, top) = cell_origin(cell);
            let mut rgba = Vec::with_capacity(DRAWING_SIZE * DRAWING_SIZE * 4);
            for row in top..top + DRAWING_SIZE {
                let start = (row * width + left) * 4;
                rgba.extend_from_slice(&sheet.as_raw()[start..start + DRAWING_SIZE * 4]);
            }
            self.by_entity[entity][set.index()].push(self.drawings.len());
            self.drawings.push(Drawing {
                entity,
                set,
                codepoint: codepoint.clone(),
            });
            self.textures
                .push(Texture::from_straight(&rgba, DRAWING_SIZE));
        }
        Ok(())
    }
}

/// An entry of `entities.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedEntity {
    /// Its name in captions.
    pub name: String,
    /// What it is for.
    pub kind: EntityKind,
    /// Every code point that shows it, over all sets.
    pub codepoints: Vec<String>,
    /// The code points that each set has.
    pub sets: std::collections::BTreeMap<ArtworkSet, Vec<String>>,
}

/// The embedded `entities.json`: which entity is drawn by which code points of which sets.
///
/// # Errors
/// [`Error::Artwork`] if the embedded file is damaged.
pub fn listed_entities() -> Result<Vec<ListedEntity>> {
    serde_json::from_str(include_str!("../assets/artwork/entities.json"))
        .map_err(|err| Error::artwork("entities.json", err))
}

/// The cells of a set's sheet in their order: index of the entity, code point.
pub fn cells_of(
    set: ArtworkSet,
    listed: &[ListedEntity],
) -> impl Iterator<Item = (usize, &String)> {
    listed.iter().enumerate().flat_map(move |(entity, entry)| {
        entry
            .sets
            .get(&set)
            .into_iter()
            .flatten()
            .map(move |codepoint| (entity, codepoint))
    })
}

/// Width and height in pixels of a sheet of `n_cells` drawings.
pub fn sheet_size(n_cells: usize) -> (usize, usize) {
    (
        SHEET_COLUMNS * DRAWING_SIZE,
        n_cells.div_ceil(SHEET_COLUMNS) * DRAWING_SIZE,
    )
}

/// Left and top pixel of a cell of a sheet.
pub fn cell_origin(cell: usize) -> (usize, usize) {
    (
        cell % SHEET_COLUMNS * DRAWING_SIZE,
        cell / SHEET_COLUMNS * DRAWING_SIZE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawing_is_there_and_visible() -> Result<()> {
        let pack = Pack::embedded()?;
        assert_eq!((pack.entities().len(), pack.drawings().len()), (104, 990));
        for (index, drawing) in pack.drawings().iter().enumerate() {
            let texture = pack.texture(index);
            let pixels = (0..DRAWING_SIZE).flat_map(|y| (0..DRAWING_SIZE).map(move |x| (x, y)));
            let visible = pixels
                .filter(|&(x, y)| texture.premultiplied(x, y)[3] > 127)
                .count();
            let name = &pack.entities()[drawing.entity].name;
            // The thinnest is a lizard in outline.
            assert!(
                visible > 500,
                "{name} of {:?}: {visible} pixels",
                drawing.set
            );
        }
        Ok(())
    }

    #[test]
    fn five_sets_have_every_entity_and_each_of_these_a_style_word() -> Result<()> {
        let pack = Pack::embedded()?;
        for set in ArtworkSet::ALL {
            let has = |entity: usize| !pack.drawings_of(entity, set).is_empty();
            let all = (0..pack.entities().len()).all(has);
            assert_eq!(all, set.style_word().is_some(), "{set:?}");
        }
        Ok(())
    }
}
