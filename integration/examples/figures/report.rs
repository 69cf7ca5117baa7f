//! The figures as a table and as one line of JSON.
//!
//! Invariant: a figure with a target says whether it met it.

use serde_json::{Value, json};

/// One figure.
struct Figure {
    key: String,
    what: String,
    value: f64,
    unit: &'static str,
    /// The most that it should be.
    target: Option<f64>,
}

/// All figures of a run.
pub(crate) struct Report {
    circumstances: Value,
    figures: Vec<Figure>,
}

impl Report {
    /// Without figures so far; `circumstances` say what was measured where.
    pub(crate) fn new(circumstances: Value) -> Self {
        Self { circumstances, figures: Vec::new() }
    }

    /// A figure for information.
    pub(crate) fn note(&mut self, key: &str, what: &str, value: f64, unit: &'static str) {
        let (key, what) = (key.to_owned(), what.to_owned());
        self.figures.push(Figure { key, what, value, unit, target: None });
    }

    /// A figure that should be `target` at most.
    pub(crate) fn aim(
        &mut self,
        key: &str,
        what: &str,
        (value, unit): (f64, &'static str),
        target: f64,
    ) {
        let (key, what) = (key.to_owned(), what.to_owned());
        self.figures.push(Figure { key, what, value, unit, target: Some(target) });
    }

    /// The table, and the line of JSON after it.
    pub(crate) fn print(&self) {
        let rows: Vec<[String; 4]> = self.figures.iter().map(Figure::row).collect();
        let head = ["figure", "measured", "target", "met"].map(str::to_owned);
        let all = || std::iter::once(&head).chain(&rows);
        let width = |of: fn(&[String; 4]) -> &String| {
            all().map(|row| of(row).chars().count()).max().unwrap_or_default()
        };
        let (a, b, c) = (width(|[a, ..]| a), width(|[_, b, ..]| b), width(|[_, _, c, _]| c));
        println!();
        for [what, value, target, met] in all() {
            let line = format!("{what:a$}  {value:>b$}  {target:>c$}  {met}");
            println!("{}", line.trim_end());
        }
        println!("\n{}\n", self.circumstances);
        let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
        println!("{}", json!({ "circumstances": self.circumstances, "figures": figures }));
    }
}

impl Figure {
    fn met(&self) -> Option<bool> {
        self.target.map(|target| self.value <= target)
    }

    fn row(&self) -> [String; 4] {
        let met = self.met().map_or("", |met| if met { "met" } else { "missed" });
        let target =
            self.target.map_or(String::new(), |target| format!("≤ {}", number(target, self.unit)));
        [self.what.clone(), number(self.value, self.unit), target, met.to_owned()]
    }

    fn json(&self) -> Value {
        let rounded = (self.value * 1e4).round() / 1e4;
        json!({
            "figure": self.key, "value": rounded, "unit": self.unit,
            "target": self.target, "met": self.met(),
        })
    }
}

fn number(value: f64, unit: &str) -> String {
    match unit {
        "×" => format!("{value:.2} ×"),
        "bytes" => format!("{value:.0} bytes"),
        _ if value >= 1_000.0 => format!("{value:.0} {unit}"),
        _ => format!("{value:.1} {unit}"),
    }
}
