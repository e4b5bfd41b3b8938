//! Drawing: panels with a title and a legend above them, as SVG.
//!
//! Nothing here knows what was measured.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;

/// Panels that belong together.
pub(super) struct Figure {
    /// The last part of its file's name.
    pub(super) name: String,
    /// The title above the panels.
    pub(super) title: String,
    /// A smaller line below: on what it was measured.
    pub(super) subtitle: String,
    /// Each a chart of its own.
    pub(super) panels: Vec<Panel>,
    /// Panels stand below each other.
    pub(super) stacked: bool,
    /// How dashed lines differ from plain ones: what plain and dashed stand for.
    pub(super) dashes: Option<(&'static str, &'static str)>,
}

/// One chart of a figure.
pub(super) struct Panel {
    /// The name in the legend.
    pub(super) title: String,
    /// The horizontal axis with its ticks.
    pub(super) x: Axis,
    /// The vertical axis with its ticks.
    pub(super) y: Axis,
    /// The series that are drawn, in this order.
    pub(super) series: Vec<Series>,
}

/// Points of one proxy.
pub(super) struct Series {
    /// The proxy, for the legend.
    pub(super) name: String,
    /// Which of the colours and markers.
    pub(super) index: usize,
    /// How the points are drawn.
    pub(super) style: Style,
    /// Values as measured; the axes turn them into places.
    pub(super) points: Vec<(f64, f64)>,
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Style {
    /// Points joined by a line.
    Line,
    /// Joined, with a marker at each.
    Marked,
    /// Joined by dashes, with a marker at each.
    Dashed,
    /// Points joined by a dashed line.
    Dashes,
    /// A dot for each.
    Dots,
}

/// Colours that people with any kind of colour vision tell apart (Okabe and Ito), darkest first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

const FONT: FontFamily<'static> = FontFamily::SansSerif;
const INK: RGBColor = RGBColor(40, 40, 40);
const PALE: RGBColor = RGBColor(105, 105, 105);
const GRID: RGBColor = RGBColor(222, 222, 222);

// All sizes are in units of half a pixel at the usual scale, since places are rounded to whole units.
const PANEL: (i32, i32) = (960, 680);
const STACKED: (i32, i32) = (1920, 420);
const MARGIN: i32 = 40;
const LINE: i32 = 46;
const TITLE: i32 = 38;
const TEXT: i32 = 26;
const SMALL: i32 = 22;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Figure {
    /// The figure as SVG.
    pub(super) fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| anyhow!("{}: {error}", self.name))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let (width, height) = if self.stacked { STACKED } else { PANEL };
        let columns = match self.panels.len() {
            _ if self.stacked => 1,
            4 => 2,
            panels @ ..=9 => panels.clamp(1, 3),
            _ => 4,
        };
        let lines = i32::try_from(self.panels.len().div_ceil(columns))?;
        let columns = i32::try_from(columns)?;
        let inner = (width * columns).max(1500);
        let legend = self.legend(inner);
        let head = TITLE + 2 * LINE + LINE * i32::try_from(legend.len())?;
        let size = (inner + 2 * MARGIN, head + height * lines + 2 * MARGIN);
        let root = SVGBackend::with_string(svg, (u32::try_from(size.0)?, u32::try_from(size.1)?)).into_drawing_area();
        root.fill(&WHITE)?;
        text(&root, &self.title, (MARGIN, MARGIN), TITLE, INK, true)?;
        text(&root, &self.subtitle, (MARGIN, MARGIN + TITLE + 14), SMALL, PALE, false)?;
        for (line, entries) in legend.iter().enumerate() {
            let y = MARGIN + TITLE + LINE + 40 + LINE * i32::try_from(line)?;
            for (x, entry) in entries {
                entry.draw(&root, (MARGIN + x, y))?;
            }
        }
        for (index, panel) in self.panels.iter().enumerate() {
            let index = i32::try_from(index)?;
            let corner = (MARGIN + width * (index % columns), MARGIN + head + height * (index / columns));
            panel.draw(&root.clone().shrink(corner, (width - 20, height - 20)))?;
        }
        root.present()?;
        Ok(())
    }

    /// Entries of the legend with their places, line by line.
    fn legend(&self, width: i32) -> Vec<Vec<(i32, Entry)>> {
        let mut names: Vec<(usize, &str, Style)> = Vec::new();
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            if !names.iter().any(|(index, _, _)| *index == series.index) {
                names.push((series.index, &series.name, series.style));
            }
        }
        names.sort_by_key(|(index, _, _)| *index);
        let of = |(index, name, style): (usize, &str, Style)| {
            let style = match style {
                Style::Dashed => Style::Marked,
                Style::Dashes => Style::Line,
                style => style,
            };
            Entry { text: name.to_owned(), colour: colour(index), marker: index, style }
        };
        let mut entries: Vec<Entry> = names.into_iter().map(of).collect();
        if let Some((plain, dashed)) = self.dashes {
            for (text, style) in [(plain, Style::Line), (dashed, Style::Dashes)] {
                entries.push(Entry { text: text.to_owned(), colour: PALE, marker: 0, style });
            }
        }
        let mut lines = vec![Vec::new()];
        let mut x = 0;
        for entry in entries {
            let wide = entry.width();
            if x + wide > width && x > 0 {
                lines.push(Vec::new());
                x = 0;
            }
            lines.last_mut().expect("there is a line").push((x, entry));
            x += wide;
        }
        lines
    }
}

/// One entry of a legend.
struct Entry {
    text: String,
    colour: RGBColor,
    marker: usize,
    style: Style,
}

const STROKE: i32 = 70;

impl Entry {
    fn width(&self) -> i32 {
        // Letters are about 0.6 of their height wide.
        STROKE + 60 + i32::try_from(self.text.chars().count()).unwrap_or(0) * TEXT * 3 / 5
    }

    fn draw(&self, root: &Area<'_>, (x, y): (i32, i32)) -> Result<(), Box<dyn std::error::Error>> {
        let middle = y + TEXT / 2;
        let stroke = self.colour.stroke_width(5);
        match self.style {
            Style::Dots => {}
            Style::Dashed | Style::Dashes => {
                for start in [0, 28, 56] {
                    root.draw(&PathElement::new([(x + start, middle), (x + start + 16, middle)], stroke))?;
                }
            }
            _ => root.draw(&PathElement::new([(x, middle), (x + STROKE, middle)], stroke))?,
        }
        if matches!(self.style, Style::Marked | Style::Dots) {
            marker(root, self.marker, (x + STROKE / 2, middle), 10)?;
        }
        text(root, &self.text, (x + STROKE + 14, y), TEXT, INK, false)
    }
}

impl Panel {
    fn draw(&self, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
        let label = |axis: &Axis, place: f64| {
            let close = axis.ticks.iter().min_by(|(a, _), (b, _)| (a - place).abs().total_cmp(&(b - place).abs()));
            close.map_or_else(String::new, |(_, label)| label.clone())
        };
        let style = |size: i32| TextStyle::from((FONT, size)).color(&INK);
        text(area, &self.title, (130, 4), TEXT, INK, true)?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(TEXT + 24)
            .margin_right(24)
            .x_label_area_size(84)
            .y_label_area_size(130)
            .build_cartesian_2d(Places(&self.x), Places(&self.y))?;
        chart
            .configure_mesh()
            .bold_line_style(GRID.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .axis_style(PALE.stroke_width(2))
            .label_style(style(SMALL))
            .axis_desc_style(style(SMALL + 2))
            .x_desc(&self.x.name)
            .y_desc(&self.y.name)
            .x_label_formatter(&|place| label(&self.x, *place))
            .y_label_formatter(&|place| label(&self.y, *place))
            .draw()?;
        let plane = chart.plotting_area().strip_coord_spec();
        for series in &self.series {
            let colour = colour(series.index);
            let points = series.points.iter().filter(|(across, up)| is_on(&self.x, *across) && is_on(&self.y, *up));
            let points: Vec<_> =
                points.map(|(across, up)| (self.x.scale.place(*across), self.y.scale.place(*up))).collect();
            let stroke = colour.stroke_width(5);
            match series.style {
                Style::Line | Style::Marked => {
                    chart.draw_series(LineSeries::new(points.iter().copied(), stroke))?;
                }
                Style::Dashed | Style::Dashes => {
                    chart.draw_series(DashedLineSeries::new(points.iter().copied(), 16, 12, stroke))?;
                }
                Style::Dots => {
                    let dot = |&point: &(f64, f64)| Circle::new(point, 4, colour.mix(0.55).filled());
                    chart.draw_series(points.iter().map(dot))?;
                }
            }
            if matches!(series.style, Style::Marked | Style::Dashed) {
                // Places on the panel's own plane, where a marker's size is in units.
                let corner = plane.get_base_pixel();
                for point in &points {
                    let (across, up) = chart.backend_coord(point);
                    marker(&plane, series.index, (across - corner.0, up - corner.1), 10)?;
                }
            }
        }
        Ok(())
    }
}

/// An axis as the library asks for it, over places.
struct Places<'a>(&'a Axis);

impl Ranged for Places<'_> {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (first, last): (i32, i32)) -> i32 {
        let (least, most) = self.0.range;
        let share = (place - least) / (most - least);
        #[expect(clippy::cast_possible_truncation, reason = "within a picture")]
        let offset = (share * f64::from(last - first)).round() as i32;
        first + offset
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.ticks.iter().map(|(place, _)| *place).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.0.range.0..self.0.range.1
    }
}

/// Whether a value has a place on an axis.
fn is_on(axis: &Axis, value: f64) -> bool {
    axis.scale.place(value).is_finite() && (axis.scale != super::axis::Scale::Log || value > 0.0)
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// A shape of its own for each index, so that colour is not all that tells series apart.
fn marker(area: &Area<'_>, index: usize, (x, y): (i32, i32), size: i32) -> Result<(), Box<dyn std::error::Error>> {
    let fill = colour(index).filled();
    match index % 4 {
        0 => area.draw(&Circle::new((x, y), size, fill))?,
        1 => area.draw(&Rectangle::new([(x - size + 1, y - size + 1), (x + size - 1, y + size - 1)], fill))?,
        2 => area.draw(&Polygon::new([(x, y - size - 3), (x + size + 2, y + size), (x - size - 2, y + size)], fill))?,
        _ => {
            let far = size + 4;
            area.draw(&Polygon::new([(x, y - far), (x + far, y), (x, y + far), (x - far, y)], fill))?;
        }
    }
    Ok(())
}

fn text(
    area: &Area<'_>,
    what: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    bold: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let weight = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FONT, f64::from(size), weight);
    let style = TextStyle::from(font).color(&colour).pos(Pos::new(HPos::Left, VPos::Top));
    area.draw(&Text::new(what.to_owned(), at, style))?;
    Ok(())
}
