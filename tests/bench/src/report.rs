//! A table of contenders: medians over the rounds, ratios first.

use serde_json::json;

use crate::Arguments;

/// The middle of some measurements; not a number where there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(upper);
    f64::midpoint(lower, upper)
}

/// A figure that every contender has.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    head: &'static str,
    field: &'static str,
    decimals: usize,
    /// The share of all samples that are not above what is printed; `None` for the median.
    share: Option<f64>,
}

impl Column {
    /// The median of all samples, without decimals: what stands above it, unit included, and its name in JSON.
    pub const fn new(head: &'static str, field: &'static str) -> Self {
        Self {
            head,
            field,
            decimals: 0,
            share: None,
        }
    }

    /// With so many digits behind the point.
    #[must_use]
    pub const fn decimals(mut self, decimals: usize) -> Self {
        self.decimals = decimals;
        self
    }

    /// The sample that this share of all, 0 to 1, is not above, instead of the median.
    #[must_use]
    pub const fn at(mut self, share: f64) -> Self {
        self.share = Some(share);
        self
    }

    fn figure(&self, samples: &[f64]) -> f64 {
        let Some(share) = self.share else {
            return median(samples);
        };
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let at = (share * last as f64).round() as usize;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// A contender and its samples, column by column.
#[derive(Debug)]
struct Row {
    name: String,
    samples: Vec<Vec<f64>>,
}

/// What was measured of all contenders.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    bases: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Table {
    /// Figures that are compared with those of each of the rows named by `bases`.
    pub fn new(columns: &[Column], bases: &[&'static str]) -> Self {
        Self {
            columns: columns.to_vec(),
            bases: bases.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Another contender, without samples yet; its number.
    pub fn row(&mut self, name: impl Into<String>) -> usize {
        self.rows.push(Row {
            name: name.into(),
            samples: vec![Vec::new(); self.columns.len()],
        });
        self.rows.len() - 1
    }

    /// Another sample of a row's figure.
    pub fn add(&mut self, row: usize, column: usize, sample: f64) {
        self.rows[row].samples[column].push(sample);
    }

    /// The figures of a row, so far.
    fn figures(&self, row: &Row) -> Vec<f64> {
        let columns = self.columns.iter().zip(&row.samples);
        columns.map(|(column, samples)| column.figure(samples)).collect()
    }

    /// The figures of a base; `None` without its row.
    fn base(&self, name: &str) -> Option<Vec<f64>> {
        let row = self.rows.iter().find(|row| row.name == name)?;
        Some(self.figures(row))
    }

    /// Prints everything: the notes and the tables, or a line of JSON for each row.
    pub fn print(&self, arguments: &Arguments, notes: &[&str]) {
        if arguments.json {
            self.print_json(arguments.rounds);
            return;
        }
        notes.iter().for_each(|note| println!("{note}"));
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let width = self.bases.iter().map(|base| base.len() + 3).fold(width, usize::max);
        for base in &self.bases {
            let Some(of) = self.base(base) else {
                continue;
            };
            let ratios = |row: &Row| -> Vec<_> {
                let figures = self.figures(row);
                let ratios = figures.iter().zip(&of).map(|(figure, of)| figure / of);
                ratios.map(|ratio| cell(ratio, 2, "x")).collect()
            };
            self.print_rows(width, &format!("to {base}"), ratios);
        }
        self.print_rows(width, "", |row| {
            let figures = self.figures(row).into_iter().zip(&self.columns);
            figures
                .map(|(figure, column)| cell(figure, column.decimals, ""))
                .collect()
        });
    }

    fn print_rows(&self, width: usize, first: &str, cells: impl Fn(&Row) -> Vec<String>) {
        let line = |first: &str, cells: &[String]| {
            let cells = self.columns.iter().zip(cells);
            let cells: String = cells
                .map(|(column, cell)| format!("  {cell:>wide$}", wide = column.head.len().max(8)))
                .collect();
            println!("{first:width$}{cells}");
        };
        println!();
        let heads: Vec<_> = self.columns.iter().map(|column| column.head.to_owned()).collect();
        line(first, &heads);
        for row in &self.rows {
            line(&row.name, &cells(row));
        }
    }

    fn print_json(&self, rounds: usize) {
        for row in &self.rows {
            let mut line = json!({ "case": row.name, "rounds": rounds });
            let figures = self.figures(row);
            for (column, figure) in self.columns.iter().zip(&figures) {
                line[column.field] = json!(figure);
            }
            for base in &self.bases {
                let of = self.base(base).into_iter().flatten();
                for ((column, figure), of) in self.columns.iter().zip(&figures).zip(of) {
                    line[format!("{}_vs_{}", column.field, word(base))] = json!(figure / of);
                }
            }
            println!("{line}");
        }
    }
}

/// A figure as it is printed; a dash where there is none.
fn cell(figure: f64, decimals: usize, unit: &str) -> String {
    if figure.is_finite() {
        format!("{figure:.decimals$}{unit}")
    } else {
        "-".to_owned()
    }
}

/// A name as part of a field of JSON.
fn word(name: &str) -> String {
    let mut word = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_ascii_alphanumeric() {
            word.push(character.to_ascii_lowercase());
        } else if !word.ends_with('_') {
            word.push('_');
        }
    }
    word
}
