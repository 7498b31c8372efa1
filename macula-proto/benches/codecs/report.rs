//! Tables with ratios first, and JSON.

use serde_json::json;

use crate::harness::{Figures, Measured};

pub(crate) fn print_tables(all: &[Measured], rounds: usize) {
    println!(
        "Codecs beside others, medians of {rounds} rounds in turn. The ratio is the time of the fastest of the others to ours:"
    );
    println!(
        "above 1 ours is faster. For sign and verify the other is the bare Ed25519 operation over the same bytes: the ratio"
    );
    println!("is the share of it in ours. Allocations are calls of the allocator per operation.");
    let mut operation = "";
    for measured in all {
        if measured.operation != operation {
            operation = measured.operation;
            println!(
                "\n{operation:34} {:>6} {:>10} {:>10} {:>7} {:>7}  fastest other; all others",
                "ratio", "ours ns", "other ns", "allocs", "other"
            );
        }
        println!("{}", row(measured));
    }
    println!();
    for line in summary(all) {
        println!("{line}");
    }
}

fn row(measured: &Measured) -> String {
    let ours = measured.ours();
    let others = measured.figures.iter().skip(1);
    let others: Vec<_> = others
        .map(|other| format!("{} {:.0}", other.name, other.nanoseconds))
        .collect();
    match measured.fastest_other() {
        Some(other) => format!(
            "{:34} {:5.2}x {:10.0} {:10.0} {:7.1} {:7.1}  {}; {}",
            measured.what,
            other.nanoseconds / ours.nanoseconds,
            ours.nanoseconds,
            other.nanoseconds,
            ours.allocations,
            other.allocations,
            other.name,
            others.join(", "),
        ),
        None => format!(
            "{:34} {:>6} {:10.0} {:>10} {:7.1} {:>7}",
            measured.what, "-", ours.nanoseconds, "-", ours.allocations, "-"
        ),
    }
}

/// The least, the median and the largest ratio of every operation.
fn summary(all: &[Measured]) -> Vec<String> {
    let mut operations: Vec<_> = all.iter().map(|measured| measured.operation).collect();
    operations.dedup();
    let summarise = |operation: &str| {
        let of = all.iter().filter(|measured| measured.operation == operation);
        let mut ratios: Vec<_> = of.filter_map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let (first, last) = (*ratios.first()?, *ratios.last()?);
        let middle = ratios[ratios.len() / 2];
        Some(format!(
            "{operation:15} least {first:.2}x, median {middle:.2}x, most {last:.2}x of {} lines",
            ratios.len()
        ))
    };
    operations.into_iter().filter_map(summarise).collect()
}

fn ratio(measured: &Measured) -> Option<f64> {
    Some(measured.fastest_other()?.nanoseconds / measured.ours().nanoseconds)
}

pub(crate) fn print_json(all: &[Measured], rounds: usize) {
    for measured in all {
        let figures = |figures: &Figures| {
            json!({
                "name": figures.name,
                "nanoseconds": figures.nanoseconds,
                "allocations": figures.allocations,
            })
        };
        let line = json!({
            "operation": measured.operation,
            "what": measured.what,
            "rounds": rounds,
            "ratio_to_fastest_other": ratio(measured),
            "contenders": measured.figures.iter().map(figures).collect::<Vec<_>>(),
        });
        println!("{line}");
    }
}
