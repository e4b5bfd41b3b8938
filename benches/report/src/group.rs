//! Cells that belong together: the repeats of one measurement of one proxy, and the rows in which proxies stand side by
//! side.

use std::collections::BTreeMap;
use std::fmt;

use super::number;
use super::{Cell, Setting, Unit};

/// The label that says whether a connection went through a Service's address or straight to the endpoint.
pub(crate) const ROUTE: &str = "route";

/// The value of [`ROUTE`] of what has no proxy in its way.
pub(crate) const DIRECT: &str = "direct";

/// What tells measurements apart, but for the proxy and the repeat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The name of the measurement.
    pub(crate) measurement: String,
    /// Services in the cluster.
    pub(crate) services: usize,
    /// Endpoints of each Service.
    pub(crate) endpoints: usize,
    /// The pacing that the proxy ran with.
    pub(crate) setting: Setting,
    /// What tells apart besides.
    pub(crate) labels: BTreeMap<String, String>,
}

/// All repeats of one measurement, by proxy.
pub(crate) struct Row<'a> {
    /// What they have in common.
    pub(crate) key: Key,
    /// Of all of them.
    pub(crate) unit: Unit,
    /// In the order of the proxies.
    pub(crate) cells: BTreeMap<&'a str, Vec<&'a Cell>>,
}

impl Key {
    /// What tells this cell apart.
    pub(crate) fn of(cell: &Cell) -> Self {
        Self {
            measurement: cell.measurement.clone(),
            services: cell.services,
            endpoints: cell.endpoints,
            setting: cell.setting,
            labels: cell.labels.clone(),
        }
    }

    /// The size and the pacing.
    pub(crate) fn place(&self) -> String {
        format!("{} × {}, {}", number(self.services as f64), number(self.endpoints as f64), self.setting)
    }

    /// The labels, but for the route.
    pub(crate) fn labels(&self) -> Option<String> {
        let labels = self.labels.iter().filter(|(name, _)| *name != ROUTE);
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name} {value}")).collect();
        (!labels.is_empty()).then(|| labels.join(", "))
    }

    /// The name of the measurement, its place and its labels, a line each.
    pub(crate) fn lines(&self) -> String {
        [Some(self.measurement.clone()), Some(self.place()), self.labels()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The same measurement without any proxy in its way.
    pub(crate) fn direct(&self) -> Option<Self> {
        let route = self.labels.get(ROUTE)?;
        (route != DIRECT).then(|| {
            let mut key = self.clone();
            key.labels.insert(ROUTE.to_owned(), DIRECT.to_owned());
            key
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().replace('\n', ", "))?;
        self.labels.get(ROUTE).map_or(Ok(()), |route| write!(f, ", {ROUTE} {route}"))
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setting::Default => "default",
            Setting::Minimum => "minimum",
        })
    }
}

/// The proxies in the order in which they were first measured.
pub(crate) fn proxies(cells: &[Cell]) -> Vec<&str> {
    let mut all = Vec::new();
    for cell in cells {
        if !all.contains(&cell.proxy.as_str()) {
            all.push(cell.proxy.as_str());
        }
    }
    all
}

/// The rows: measurements in the order in which they were first made, each by size, pacing and labels.
pub(crate) fn rows(cells: &[Cell]) -> Vec<Row<'_>> {
    let mut order: Vec<&str> = Vec::new();
    let mut rows: BTreeMap<Key, Row<'_>> = BTreeMap::new();
    for cell in cells {
        if !order.contains(&cell.measurement.as_str()) {
            order.push(&cell.measurement);
        }
        let key = Key::of(cell);
        let row = rows.entry(key.clone()).or_insert_with(|| Row { key, unit: cell.unit, cells: BTreeMap::new() });
        row.cells.entry(&cell.proxy).or_default().push(cell);
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    // A stable sort leaves the keys' order within a measurement.
    rows.sort_by_key(|row| order.iter().position(|name| *name == row.key.measurement));
    rows
}
