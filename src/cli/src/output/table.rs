//! Tables that fit.
//!
//! Invariant: no line is wider than the terminal, unless the terminal is too narrow for even
//! one column; what nobody looks at directly is never cut.

use crate::output::printable;

/// Between two columns.
const GAP: usize = 2;

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
}

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), has_head: true }
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
                *width = (*width).max(cell.chars().count());
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
            let cell = cut(cell, *width);
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
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
}

/// One thing: a name and a value on each line. A value that is empty is left out.
pub(crate) fn record<const N: usize>(fields: [(&str, &str); N]) -> Table {
    let columns = vec![Column::whole(""), Column::cut("", 1)];
    let shown = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let rows = shown.map(|(name, value)| vec![name.to_owned(), printable(value)]).collect();
    Table { columns, rows, has_head: false }
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

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
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
}
