//! The curves as a picture.

use std::path::Path;

use macula_bench::Result;
use plotters::prelude::{
    BLACK, ChartBuilder, Color, DashedLineSeries, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor,
    SVGBackend, SeriesLabelPosition, WHITE,
};

use crate::{
    Curve, Medians,
    scene::{Kind, Work},
};

const SIZE: (u32, u32) = (960, 560);
const FONT: &str = "sans-serif";
/// What is still flat, as a multiple of the first value.
const LIMIT: f64 = 1.5;

/// Writes an SVG file with all curves, each as a multiple of its first value.
pub(crate) fn write(file: &Path, curves: &Medians) -> Result<()> {
    // Its errors are not for other threads.
    draw(file, curves).map_err(|error| format!("{}: {error}", file.display()).into())
}

fn draw(file: &Path, curves: &Medians) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let ratios = curves.iter().map(|(curve, points)| (*curve, ratios(points)));
    let ratios: Vec<_> = ratios.collect();
    let all = || ratios.iter().flat_map(|(_, points)| points.iter().copied());
    let (least, most) = all().fold((f64::MAX, 0.0_f64), |(least, most), (count, _)| {
        (least.min(count), most.max(count))
    });
    let top = all().map(|(_, ratio)| ratio).fold(2.0, f64::max) * 1.05;
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "Processor time of a message or byte, as a multiple of that with the fewest",
            (FONT, 18),
        )
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d((least..most).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("streams, tunnels or connections that are open")
        .y_desc("times")
        .label_style((FONT, 14))
        .light_line_style(WHITE)
        .draw()?;
    let limit = [(least, LIMIT), (most, LIMIT)];
    let grey = RGBColor(150, 150, 150);
    chart.draw_series(DashedLineSeries::new(limit, 2, 4, grey.stroke_width(1)))?;
    for (curve, points) in ratios {
        let color = color(curve);
        let style = color.stroke_width(2);
        let drawn = if curve.contender == "quinn" {
            chart.draw_series(DashedLineSeries::new(points, 8, 5, style))?
        } else {
            chart.draw_series(LineSeries::new(points, style).point_size(3))?
        };
        drawn
            .label(curve.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, 13))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    area.present()?;
    Ok(())
}

fn ratios(points: &[(usize, f64)]) -> Vec<(f64, f64)> {
    let first = points.first().map_or(f64::NAN, |(_, cost)| *cost);
    points
        .iter()
        .map(|(count, cost)| (*count as f64, cost / first))
        .collect()
}

fn color(curve: Curve) -> RGBColor {
    match (curve.kind, curve.work) {
        (_, Work::Idle) => RGBColor(214, 39, 40),
        (Kind::Streams, Work::Message) => RGBColor(31, 119, 180),
        (Kind::Streams, Work::Block) => RGBColor(23, 190, 207),
        (Kind::Tunnels, Work::Message) => RGBColor(44, 160, 44),
        (Kind::Tunnels, Work::Block) => RGBColor(188, 189, 34),
        (Kind::Connections, Work::Message) => RGBColor(148, 103, 189),
        (Kind::Connections, Work::Block) => RGBColor(255, 127, 14),
    }
}
