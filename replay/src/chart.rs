//! The miss-ratio curve as a picture.

use crate::compare::Comparison;
use plotters::prelude::*;
use vellum_reclaim::PolicyKind;

const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 140, 140),
    RGBColor(0, 0, 0),
];

/// Draws faults per use over the size of memory: a line for each policy of the comparisons, one for
/// exact LRU and one for the optimum. Returns the text of an SVG file.
///
/// # Errors
/// What the plotting library says, as text.
pub fn svg(title: &str, curve: &[Comparison]) -> Result<String, String> {
    let mut text = String::new();
    draw(&mut text, title, curve).map_err(|error| error.to_string())?;
    Ok(text)
}

fn draw(
    text: &mut String,
    title: &str,
    curve: &[Comparison],
) -> Result<(), Box<dyn std::error::Error>> {
    let policies: Vec<PolicyKind> = curve
        .first()
        .map(|first| first.rows.iter().map(|row| row.policy).collect())
        .unwrap_or_default();
    let pages = curve.iter().map(|at| at.ram).max().unwrap_or(1);
    let ratio = |faults: u64, at: &Comparison| faults as f64 / at.references.max(1) as f64;
    let top = curve
        .iter()
        .flat_map(|at| {
            let rows = at.rows.iter().map(|row| row.counts.faults);
            rows.chain([at.lru]).map(|faults| ratio(faults, at))
        })
        .fold(0.0, f64::max);
    let area = SVGBackend::with_string(text, (900, 560)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0..pages, 0.0..top.max(f64::MIN_POSITIVE) * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("pages of memory")
        .y_desc("faults per use")
        .draw()?;
    let mut lines: Vec<(&str, Vec<(u32, f64)>)> = Vec::new();
    for (nth, policy) in policies.iter().enumerate() {
        let points = curve
            .iter()
            .filter_map(|at| Some((at.ram, ratio(at.rows.get(nth)?.counts.faults, at))));
        lines.push((policy.name(), points.collect()));
    }
    let exact = curve.iter().map(|at| (at.ram, ratio(at.lru, at)));
    lines.push(("exact LRU", exact.collect()));
    let best = curve.iter().map(|at| (at.ram, ratio(at.optimum, at)));
    lines.push(("optimum", best.collect()));
    for ((name, points), colour) in lines.into_iter().zip(COLOURS.into_iter().cycle()) {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_its_line() {
        let trace = crate::generate::looping(1);
        let text = svg("loop", &crate::curve(&trace, 4, &PolicyKind::ALL)).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for name in PolicyKind::ALL
            .map(PolicyKind::name)
            .iter()
            .chain(&["optimum"])
        {
            assert!(text.contains(name), "{name}");
        }
        assert!(text.matches("<polyline").count() >= 6);
    }
}
