//! Creates and registers metrics, with the labels and buckets that several of them share.

use std::time::{SystemTime, UNIX_EPOCH};

use portway_model::Family;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    Result,
};

/// The label that tells the IP families apart, as kube-proxy has it since 1.36.
pub(super) const FAMILY: &str = "ip_family";

/// The value of the label [`FAMILY`].
pub(super) fn family_label(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Calls a function with the label of each family.
pub(super) fn for_both(set: impl Fn(&str)) {
    Family::ALL.map(family_label).into_iter().for_each(set);
}

/// kube-proxy's buckets of sync durations, 1 ms to 16 s.
pub(super) fn sync_buckets() -> Result<Vec<f64>> {
    prometheus::exponential_buckets(0.001, 2.0, 15)
}

/// Buckets of portway's own durations, 0.1 ms to 13 s.
pub(super) fn fine_buckets() -> Result<Vec<f64>> {
    prometheus::exponential_buckets(0.0001, 2.0, 18)
}

/// A time as Prometheus shows it.
pub(super) fn seconds_since_epoch(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Creates metrics in one registry.
pub(crate) struct Registrar<'a> {
    registry: &'a Registry,
    #[cfg(test)]
    registered: std::cell::RefCell<Vec<Registered>>,
}

/// The name and the labels of a metric that is registered.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    pub(super) name: String,
    pub(super) labels: Vec<String>,
}

impl<'a> Registrar<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            #[cfg(test)]
            registered: std::cell::RefCell::default(),
        }
    }

    pub(super) fn collector(&self, collector: impl prometheus::core::Collector + 'static) -> Result<()> {
        #[cfg(test)]
        for description in collector.desc() {
            let (name, labels) = (description.fq_name.clone(), description.variable_labels.clone());
            self.registered.borrow_mut().push(Registered { name, labels });
        }
        self.registry.register(Box::new(collector))
    }

    /// Every metric that was registered.
    #[cfg(test)]
    pub(super) fn registered(self) -> Vec<Registered> {
        self.registered.into_inner()
    }

    fn add<M: prometheus::core::Collector + Clone + 'static>(&self, metric: M) -> Result<M> {
        self.collector(metric.clone())?;
        Ok(metric)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.add(IntCounter::new(name, help)?)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn fractional_counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<CounterVec> {
        self.add(CounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<Gauge> {
        self.add(Gauge::new(name, help)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.add(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
        labels: &[&str],
    ) -> Result<HistogramVec> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?)
    }
}
