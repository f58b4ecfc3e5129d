//! Tables for a terminal.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, presets::UTF8_HORIZONTAL_ONLY};

use crate::claims::ClaimResult;

/// Width of tables where there is no terminal, as in a log file.
pub const WIDTH_WITHOUT_TERMINAL: u16 = 100;

/// Text in rows and columns.
///
/// Columns of numbers are right-aligned; long cells are wrapped to fit the width.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these column headings.
    pub fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        Self {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty, cells beyond the header are dropped.
    pub fn row<T: Into<String>>(mut self, cells: impl IntoIterator<Item = T>) -> Self {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
        self
    }

    /// One row per claim and run.
    pub fn of_verdicts(verdicts: &[ClaimResult]) -> Self {
        let empty = Self::new(["", "run", "claim", "measured"]);
        verdicts.iter().fold(empty, |table, v| {
            table.row([
                if v.met { "met" } else { "NOT MET" }.to_owned(),
                format!("{}, seed {}", v.algorithm, v.seed),
                v.statement.clone(),
                v.numbers(),
            ])
        })
    }

    /// As wide as the terminal at most, without a line feed at the end.
    ///
    /// Without a terminal, [`WIDTH_WITHOUT_TERMINAL`] and no colour.
    pub fn for_terminal(&self) -> String {
        let mut table = self.build();
        if table.width().is_none() {
            table.set_width(WIDTH_WITHOUT_TERMINAL);
        }
        table.to_string()
    }

    /// At most `width` columns, without colour.
    pub fn fit(&self, width: u16) -> String {
        let mut table = self.build();
        table.force_no_tty().set_width(width);
        table.to_string()
    }

    fn build(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table
            .load_style(UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(&self.header);
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| match cell.as_str() {
                "met" => Cell::new(cell).fg(Color::Green),
                "NOT MET" => Cell::new(cell).fg(Color::Red),
                _ => Cell::new(cell),
            }));
        }
        for (i, column) in table.column_iter_mut().enumerate() {
            let numeric = |row: &Vec<String>| row[i].parse::<f64>().is_ok();
            if !self.rows.is_empty() && self.rows.iter().all(numeric) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        Table::new(["experiment", "queries", "what comes out"])
            .row([
                "compressibility",
                "1280",
                "reward over reward queries, bands over seeds",
            ])
            .row([
                "generalization",
                "51200",
                "reward on training, unseen-animal and object prompts",
            ])
    }

    #[test]
    fn no_line_is_wider_than_asked_and_no_word_is_lost() {
        for width in [50, 80, 200] {
            let text = sample().fit(width);
            let widest = text.lines().map(|l| l.chars().count()).max().unwrap();
            assert!(widest <= width.into(), "{widest} > {width}:\n{text}");
            for word in ["compressibility", "51200", "unseen-animal", "bands"] {
                assert!(text.contains(word), "{word} at {width}:\n{text}");
            }
        }
    }

    #[test]
    fn numbers_are_set_to_the_right() {
        let text = sample().fit(200);
        assert!(text.contains("   1280 "), "{text}");
    }

    #[test]
    fn short_and_long_rows_and_none_at_all_are_fine() {
        assert!(Table::new(["a", "b"]).fit(40).contains('a'));
        let text = Table::new(["a", "b"])
            .row(["1"])
            .row(["2", "3", "4"])
            .fit(40);
        assert!(text.contains('3') && !text.contains('4'), "{text}");
        assert_eq!(Table::default().fit(40).trim(), "");
    }
}
