//! Tables that fit.
//!
//! Invariant: no line is wider than the terminal, unless the terminal is too narrow for even
//! one column; what nobody looks at directly is never cut.

use unicode_width::UnicodeWidthChar as _;

use crate::output::{Paint, printable};

/// Between two columns.
const GAP: usize = 2;
/// The columns and fields whose words have a colour.
const COLOURED: [&str; 3] = ["STATE", "IS", "state"];

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A column's name and what may be done to it when there is no room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) align: Align,
    /// Narrower than this it says nothing; `None` for what must not be cut, like an id.
    pub(crate) width_min: Option<usize>,
}

impl Column {
    pub(crate) const fn whole(name: &'static str) -> Self {
        Self { name, align: Align::Left, width_min: None }
    }

    pub(crate) const fn cut(name: &'static str, width_min: usize) -> Self {
        Self { name, align: Align::Left, width_min: Some(width_min) }
    }
}

/// Rows under named columns, the most important columns first.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    has_head: bool,
    is_coloured: bool,
}

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), has_head: true, is_coloured: false }
    }

    /// The same with colour where it says something, or without.
    pub(super) fn coloured(self, is_coloured: bool) -> Self {
        Self { is_coloured, ..self }
    }

    /// Adds a row; a cell for each column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into_iter().map(printable).collect());
    }

    /// The table within `width` columns, or as it is.
    pub(crate) fn fit(&self, width: Option<usize>) -> String {
        let natural: Vec<usize> = self.natural();
        let widths = match width {
            Some(width) => fit(&natural, &self.columns, width),
            None => natural,
        };
        let mut text = String::new();
        if self.has_head {
            let names: Vec<String> =
                self.columns.iter().map(|column| column.name.to_owned()).collect();
            self.line(&mut text, &names, &widths);
        }
        for row in &self.rows {
            self.line(&mut text, row, &widths);
        }
        text
    }

    fn natural(&self) -> Vec<usize> {
        let heads = self.columns.iter().map(|c| if self.has_head { c.name.len() } else { 0 });
        let mut widths: Vec<usize> = heads.collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(width_of(cell));
            }
        }
        widths
    }

    fn line(&self, text: &mut String, cells: &[String], widths: &[usize]) {
        let mut line = String::new();
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let paint = self.paint(cells, column, cell);
            let cell = cut(cell, *width);
            let padding = " ".repeat(width.saturating_sub(width_of(&cell)));
            let cell = paint.map_or_else(|| cell.clone(), |paint| paint.on(&cell));
            let (first, second) = match column.align {
                Align::Left => (cell, padding),
                Align::Right => (padding, cell),
            };
            line.push_str(&first);
            line.push_str(&second);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }

    /// The colour of `cell` in its column, or as the value of its field.
    fn paint(&self, cells: &[String], column: &Column, cell: &str) -> Option<Paint> {
        let name = if self.has_head { column.name } else { cells.first()?.as_str() };
        let paint = Paint::of_state(cell)?;
        (self.is_coloured && COLOURED.contains(&name)).then_some(paint)
    }
}

/// One thing: a name and a value on each line. A value that is empty is left out.
pub(crate) fn record<const N: usize>(fields: [(&str, &str); N]) -> Table {
    let columns = vec![Column::whole(""), Column::cut("", 1)];
    let shown = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let rows = shown.map(|(name, value)| vec![name.to_owned(), printable(value)]).collect();
    Table { columns, rows, has_head: false, is_coloured: false }
}

/// How wide each column becomes: the widest that may be cut give way first, then columns are
/// left out from the end.
fn fit(natural: &[usize], columns: &[Column], width: usize) -> Vec<usize> {
    let mut widths = natural.to_vec();
    loop {
        let count = widths.len();
        let gaps = GAP * count.saturating_sub(1);
        let total = widths.iter().sum::<usize>() + gaps;
        if total <= width {
            return widths;
        }
        let widest = widths
            .iter_mut()
            .zip(columns)
            .filter(|(width, column)| column.width_min.is_some_and(|least| **width > least))
            .max_by_key(|(width, _)| **width);
        match widest {
            Some((width, _)) => *width -= 1,
            None if count > 1 => {
                // With one column less there is room for those that were cut in vain.
                widths = natural.iter().take(count - 1).copied().collect();
            }
            None => return widths,
        }
    }
}

/// How many columns of a terminal `text` takes.
fn width_of(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// As much of `cell` as `width` columns take.
pub(super) fn cut(cell: &str, width: usize) -> String {
    if width_of(cell) <= width {
        return cell.to_owned();
    }
    let room = width.saturating_sub(1);
    let mut taken = 0;
    let kept = cell.chars().take_while(|c| {
        taken += char_width(*c);
        taken <= room
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases() -> Table {
        let mut table = Table::new(&[
            Column::whole("ID"),
            Column::cut("PRINCIPAL", 8),
            Column { name: "TRIES", align: Align::Right, width_min: None },
        ]);
        table.row(["lse_1", "https://issuer.example#repo:acme/shop", "0"]);
        table.row(["lse_22", "https://issuer.example#repo:acme/x", "12"]);
        table
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        assert_eq!(
            leases().fit(None),
            "ID      PRINCIPAL                              TRIES\n\
             lse_1   https://issuer.example#repo:acme/shop      0\n\
             lse_22  https://issuer.example#repo:acme/x        12\n"
        );
    }

    #[test]
    fn what_may_be_cut_gives_way() {
        assert_eq!(
            leases().fit(Some(30)),
            "ID      PRINCIPAL        TRIES\n\
             lse_1   https://issuer…      0\n\
             lse_22  https://issuer…     12\n"
        );
    }

    #[test]
    fn columns_are_left_out_from_the_end() {
        assert_eq!(
            leases().fit(Some(22)),
            "ID      PRINCIPAL\n\
             lse_1   https://issue…\n\
             lse_22  https://issue…\n"
        );
        assert_eq!(leases().fit(Some(3)), "ID\nlse_1\nlse_22\n");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 6..80 {
            let text = leases().fit(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        }
    }

    #[test]
    fn a_record_leaves_out_what_is_empty_and_keeps_lines_apart() {
        let text = record([("id", "tsk_1"), ("cause", ""), ("purpose", "a\nid  tsk_2")]).fit(None);
        assert_eq!(text, "id       tsk_1\npurpose  a\u{fffd}id  tsk_2\n");
    }

    #[test]
    fn wide_characters_take_two_columns_and_marks_none() {
        let mut table = Table::new(&[Column::cut("PURPOSE", 4), Column::whole("STATE")]);
        table.row(["夜間バッチ", "open"]);
        table.row(["cafe\u{301}", "open"]);
        assert_eq!(
            table.fit(None),
            "PURPOSE     STATE\n夜間バッチ  open\ncafe\u{301}        open\n"
        );
        // Half of a character is none.
        assert_eq!(table.fit(Some(13)), "PURPO…  STATE\n夜間…   open\ncafe\u{301}    open\n");
        for width in 11..20 {
            let text = table.fit(Some(width));
            assert!(text.lines().all(|line| width_of(line) <= width), "{width}:\n{text}");
        }
    }

    #[test]
    fn a_state_has_its_colour_and_nothing_moves_by_it() {
        let mut table = Table::new(&[Column::whole("ID"), Column::whole("STATE")]);
        table.row(["active", "active"]);
        table.row(["lse_2", "abandoned"]);
        table.row(["lse_3", "revoked"]);
        let plain = table.fit(None);
        let coloured = table.coloured(true).fit(None);
        assert_eq!(
            coloured,
            "ID      STATE\nactive  \x1b[32mactive\x1b[0m\nlse_2   \x1b[1;31mabandoned\x1b[0m\n\
             lse_3   revoked\n"
        );
        let bare =
            coloured.replace("\x1b[32m", "").replace("\x1b[1;31m", "").replace("\x1b[0m", "");
        assert_eq!(bare, plain);
        let shown = record([("state", "revoking"), ("cause", "active")]).coloured(true).fit(None);
        assert_eq!(shown, "state  \x1b[33mrevoking\x1b[0m\ncause  active\n");
    }
}
