//! Plots, as SVG.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const WIDTH: f64 = 760.0;
const OURS: &str = "#2563a8";
const THEIRS: &str = "#9aa4b2";
const INK: &str = "#3b4350";

/// A bar: what it is called, its length, and whether it is one of ours.
pub struct Bar {
    pub name: String,
    pub value: f64,
    pub is_ours: bool,
}

fn start(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"{INK}\">\n<rect width=\"{WIDTH}\" height=\"{height}\" \
         fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A number with three digits that count.
pub fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{:.1} M", value / 1e6),
        _ if value >= 1e4 => format!("{:.0} k", value / 1e3),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Bars from the left; on a logarithmic scale if they differ by more than a hundredfold.
pub fn bars(path: &Path, title: &str, unit: &str, bars: &[Bar]) {
    const LEFT: f64 = 330.0;
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let least = bars.iter().map(|bar| bar.value).fold(most, f64::min).max(most / 1e6);
    let is_log = most / least > 100.0;
    let scaled = |value: f64| {
        let share = if is_log {
            (value / least * 1.5).ln() / (most / least * 1.5).ln()
        } else {
            value / most
        };
        share.clamp(0.002, 1.0) * (WIDTH - LEFT - 90.0)
    };
    let title =
        if is_log { format!("{title} ({unit}, logarithmic)") } else { format!("{title} ({unit})") };
    let mut svg = start(44.0 + 24.0 * bars.len() as f64, &title);
    for (at, bar) in bars.iter().enumerate() {
        let y = 36.0 + 24.0 * at as f64;
        let colour = if bar.is_ours { OURS } else { THEIRS };
        let width = scaled(bar.value);
        _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"{LEFT}\" y=\"{y}\" \
             width=\"{width:.1}\" \
             height=\"17\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
            LEFT - 8.0,
            y + 13.0,
            escaped(&bar.name),
            LEFT + width + 6.0,
            y + 13.0,
            short(bar.value)
        );
    }
    svg.push_str("</svg>\n");
    fs::write(path, svg).unwrap();
}

/// Histograms over a logarithmic axis, one above the other: sorted numbers, each series with its
/// name.
pub fn histograms(path: &Path, title: &str, unit: &str, series: &[(String, &[f64])]) {
    const LEFT: f64 = 130.0;
    const ROW: f64 = 92.0;
    const BINS: usize = 60;
    let all = || series.iter().flat_map(|(_, numbers)| numbers.iter().copied());
    let (low, high) = (all().fold(f64::MAX, f64::min).max(1.0), all().fold(1.0, f64::max) * 1.02);
    let place = |value: f64| ((value.max(low) / low).ln() / (high / low).ln()).clamp(0.0, 0.9999);
    let width = WIDTH - LEFT - 30.0;
    let height = 70.0 + ROW * series.len() as f64;
    let mut svg = start(height, &format!("{title} ({unit}, logarithmic)"));
    for (row, (name, numbers)) in series.iter().enumerate() {
        let base = 36.0 + ROW * (row + 1) as f64;
        let mut bins = [0_u32; BINS];
        for number in *numbers {
            bins[(place(*number) * BINS as f64) as usize] += 1;
        }
        let most = f64::from(bins.iter().copied().max().unwrap_or(1).max(1));
        _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            base - 4.0,
            escaped(name)
        );
        for (at, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let tall = (f64::from(*count) / most * (ROW - 18.0)).max(1.0);
            _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" \
                 fill=\"{OURS}\"/>",
                LEFT + width * at as f64 / BINS as f64,
                base - tall,
                width / BINS as f64 - 1.0
            );
        }
        _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{base}\" y2=\"{base}\" stroke=\"{INK}\"/>",
            LEFT + width
        );
    }
    let mut tick = 10_f64.powf(low.log10().ceil());
    while tick <= high {
        let x = LEFT + width * place(tick);
        let foot = height - 30.0;
        _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"36\" y2=\"{foot}\" stroke=\"#d5dae1\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            foot + 16.0,
            short(tick)
        );
        tick *= 10.0;
    }
    svg.push_str("</svg>\n");
    fs::write(path, svg).unwrap();
}
