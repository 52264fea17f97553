//! SVG, by plotters.
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::stats::Spread;

pub struct Bar {
    pub label: String,
    pub group: String,
    pub value: Spread,
}

/// Colors that also differ in lightness, for those who see no hue (Okabe and
/// Ito, "Color Universal Design").
fn color(group: &str) -> RGBColor {
    match group {
        "isochrome" => RGBColor(213, 94, 0),
        "floor" => RGBColor(120, 120, 120),
        "old" => RGBColor(204, 121, 167),
        _ => RGBColor(86, 180, 233),
    }
}

const LINES: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(150, 150, 150),
];

const ROW: u32 = 24;

/// Horizontal bars with their spread, and a line at 1.
pub fn bars(path: &Path, title: &str, below: &str, bars: &[Bar]) -> Result<()> {
    let most = bars.iter().map(|b| b.value.high).fold(1.0, f64::max) * 1.08;
    let n = bars.len();
    let root = SVGBackend::new(path, (820, 90 + ROW * n as u32)).into_drawing_area();
    root.fill(&WHITE).map_err(odd)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(42)
        .y_label_area_size(200)
        .build_cartesian_2d(0.0..most, 0.0..n as f64)
        .map_err(odd)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc(below)
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .draw()
        .map_err(odd)?;
    for (i, bar) in bars.iter().enumerate() {
        let y = (n - 1 - i) as f64;
        let rect = Rectangle::new(
            [(0.0, y + 0.2), (bar.value.median, y + 0.8)],
            color(&bar.group).filled(),
        );
        let (low, high) = (bar.value.low, bar.value.high);
        let whisker =
            PathElement::new(vec![(low, y + 0.5), (high, y + 0.5)], BLACK.stroke_width(2));
        chart.draw_series([rect]).map_err(odd)?;
        chart.draw_series([whisker]).map_err(odd)?;
        // Beside the plot, in pixels: the axis has no names of its own.
        let (_, top) = chart.backend_coord(&(0.0, y + 0.5));
        let text = format!("{}  {:.2}", bar.label, bar.value.median);
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        let right = plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Right,
            plotters::style::text_anchor::VPos::Center,
        );
        root.draw(&Text::new(text, (202, top), style.pos(right)))
            .map_err(odd)?;
    }
    let one = PathElement::new(vec![(1.0, 0.0), (1.0, n as f64)], BLACK.mix(0.5));
    chart.draw_series([one]).map_err(odd)?;
    root.present().map_err(odd)
}

pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Lines over the number of connections; both axes logarithmic.
pub fn lines(path: &Path, title: &str, up: &str, series: &[Series]) -> Result<()> {
    let all = || series.iter().flat_map(|s| &s.points).filter(|p| p.1 > 0.0);
    let (mut low, mut high, mut right) = (f64::MAX, 0.0_f64, 1.0_f64);
    for &(x, y) in all() {
        (low, high, right) = (low.min(y), high.max(y), right.max(x));
    }
    if high <= 0.0 {
        return Ok(());
    }
    let root = SVGBackend::new(path, (820, 460)).into_drawing_area();
    root.fill(&WHITE).map_err(odd)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(42)
        .y_label_area_size(80)
        .build_cartesian_2d(
            (0.8..right * 1.3).log_scale(),
            (low / 1.5..high * 1.5).log_scale(),
        )
        .map_err(odd)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("connections")
        .y_desc(up)
        .label_style(("sans-serif", 13))
        .draw()
        .map_err(odd)?;
    for (i, s) in series.iter().enumerate() {
        let color = LINES[i % LINES.len()];
        let points: Vec<_> = s.points.iter().copied().filter(|p| p.1 > 0.0).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))
            .map_err(odd)?
            .label(s.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(3)));
        chart
            .draw_series(
                points
                    .into_iter()
                    .map(|p| Circle::new(p, 3, color.filled())),
            )
            .map_err(odd)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .label_font(("sans-serif", 12))
        .draw()
        .map_err(odd)?;
    root.present().map_err(odd)
}

/// A row of a dot chart: a point, or none, for each of the names.
pub struct Row {
    pub label: String,
    pub points: Vec<Option<Spread>>,
}

/// A row a case, a mark a name; the axis is logarithmic, with a line at 1.
pub fn dots(path: &Path, title: &str, below: &str, names: &[&str], rows: &[Row]) -> Result<()> {
    let all = || rows.iter().flat_map(|r| r.points.iter().flatten());
    let low = all().map(|s| s.median).fold(1.0, f64::min).max(1e-3) / 1.3;
    let high = all().map(|s| s.median).fold(1.0, f64::max) * 1.3;
    let n = rows.len();
    let root = SVGBackend::new(path, (940, 90 + ROW * n as u32)).into_drawing_area();
    root.fill(&WHITE).map_err(odd)?;
    let (plot, side) = root.split_horizontally(740);
    let mut chart = ChartBuilder::on(&plot)
        .caption(title, ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(42)
        .y_label_area_size(170)
        .build_cartesian_2d((low..high).log_scale(), 0.0..n as f64)
        .map_err(odd)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc(below)
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .draw()
        .map_err(odd)?;
    let style = || ("sans-serif", 13).into_font().color(&BLACK);
    let right = plotters::style::text_anchor::Pos::new(
        plotters::style::text_anchor::HPos::Right,
        plotters::style::text_anchor::VPos::Center,
    );
    for (i, row) in rows.iter().enumerate() {
        let y = n as f64 - 0.5 - i as f64;
        let line = PathElement::new(vec![(low, y), (high, y)], BLACK.mix(0.15));
        chart.draw_series([line]).map_err(odd)?;
        let (_, top) = chart.backend_coord(&(low, y));
        plot.draw(&Text::new(
            row.label.clone(),
            (172, top),
            style().pos(right),
        ))
        .map_err(odd)?;
        for (k, point) in row.points.iter().enumerate() {
            let Some(s) = point else { continue };
            let at = chart.backend_coord(&(s.median.max(low), y));
            mark(&plot, at, k)?;
        }
    }
    let one = PathElement::new(vec![(1.0, 0.0), (1.0, n as f64)], BLACK.mix(0.5));
    chart.draw_series([one]).map_err(odd)?;
    for (k, name) in names.iter().enumerate() {
        let y = 40 + 18 * k as i32;
        mark(&side, (12, y), k)?;
        side.draw(&Text::new((*name).to_owned(), (24, y - 6), style()))
            .map_err(odd)?;
    }
    root.present().map_err(odd)
}

/// Eight colors, and another shape for every eight.
fn mark(on: &DrawingArea<SVGBackend<'_>, Shift>, at: (i32, i32), k: usize) -> Result<()> {
    let color = LINES[k % LINES.len()].filled();
    let drawn = match k / LINES.len() {
        0 => on.draw(&Circle::new(at, 5, color)),
        1 => on.draw(&TriangleMarker::new(at, 6, color)),
        _ => on.draw(&Cross::new(at, 5, color)),
    };
    drawn.map_err(odd)
}

fn odd(e: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("chart: {e}")
}
