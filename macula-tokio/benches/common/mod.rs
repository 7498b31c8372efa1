//! What benchmarks beside quinn share.

mod arguments;
#[allow(dead_code, reason = "each benchmark uses its share")]
pub(crate) mod quinn_setup;

use std::error::Error;

pub(crate) use arguments::Arguments;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The middle of some measurements; not a number where there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(upper);
    f64::midpoint(lower, upper)
}
