//! A sheet of composed scenes for visual inspection, one row per kind.

use anyhow::{Context, Result};
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::scene::{Composer, Mixture, SCENE_BYTES, SCENE_SIDE, SceneKind};

use crate::args::Args;

const COLUMNS: u32 = 14;
const SEED: u64 = 6_000;

/// Writes `scenes.png`, and `scenes.txt` with one caption per scene, row by row.
pub fn draw(args: &Args) -> Result<()> {
    let pack = Pack::embedded()?;
    let mixture = Mixture {
        activities: 0.4,
        counting: 0.2,
        attributes: 0.3,
        ..Mixture::default()
    };
    let composer = Composer::new(&pack, mixture)?;
    // Singles, three activities, counts twice, a colour, a pair, two places.
    let rows: [fn(&SceneKind) -> bool; 10] = [
        |kind| matches!(kind, SceneKind::Single),
        |kind| kind.activity().is_some_and(|it| it.index() == 0),
        |kind| kind.activity().is_some_and(|it| it.index() == 1),
        |kind| kind.activity().is_some_and(|it| it.index() == 2),
        |kind| matches!(kind, SceneKind::Several),
        |kind| matches!(kind, SceneKind::Several),
        |kind| kind.tint().is_some(),
        |kind| matches!(kind, SceneKind::Pair),
        |kind| kind.location().is_some_and(|it| it.index() == 0),
        |kind| kind.location().is_some_and(|it| it.index() == 1),
    ];
    let side = SCENE_SIDE as u32;
    let mut sheet = image::RgbImage::new(COLUMNS * side, rows.len() as u32 * side);
    let (mut captions, mut pixels) = (String::new(), [0; SCENE_BYTES]);
    let mut index = 0;
    for (row, wanted) in (0..).zip(rows) {
        let mut column = 0;
        while column < COLUMNS {
            let (scene, caption) = composer.compose(SEED, index, &mut pixels);
            index += 1;
            if wanted(&scene.kind) {
                let image = image::RgbImage::from_raw(side, side, pixels.to_vec())
                    .context("an image of 64×64 pixels")?;
                let (x, y) = (i64::from(column * side), i64::from(row * side));
                image::imageops::replace(&mut sheet, &image, x, y);
                captions += &format!("{caption}\n");
                column += 1;
            }
        }
    }
    sheet.save(args.work.join("scenes.png"))?;
    std::fs::write(args.work.join("scenes.txt"), captions)?;
    Ok(())
}
