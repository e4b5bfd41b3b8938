//! The metrics of the /metrics page, under kube-proxy's names where it has them (contract section 15).
//!
//! A metric is registered only in the modes that it belongs to (contract MET-1).

mod audit;
mod cluster;
mod conntrack;
mod health;
mod iptables;
mod mode;
mod nftables;
mod pages;
mod process;
mod profile;
mod register;
mod rest;
mod slis;
mod source;
mod sync;

use portway_dataplane::Mode;
use prometheus::{Encoder, Registry, TextEncoder};

pub use audit::AuditMetrics;
pub use cluster::ClusterMetrics;
pub use conntrack::ConntrackMetrics;
pub use health::HealthMetrics;
pub(crate) use iptables::IptablesMetrics;
pub(crate) use mode::NewModeMetrics;
pub(crate) use nftables::NftablesMetrics;
pub(crate) use pages::{PagesConfig, handler};
#[cfg(test)]
use register::Registered;
use register::Registrar;
pub use rest::RestMetrics;
pub use source::SourceMetrics;
pub use sync::SyncMetrics;

/// All metrics of the agent.
#[derive(Debug)]
pub struct Metrics {
    mode: Mode,
    registry: Registry,
    /// Every metric that is registered, by name.
    #[cfg(test)]
    registered: Vec<Registered>,
    /// Metrics of the sync loop's writes.
    pub sync: SyncMetrics,
    /// Metrics of audits and the drift that they find.
    pub audit: AuditMetrics,
    /// Metrics of conntrack clean-up.
    pub conntrack: ConntrackMetrics,
    /// Metrics of the cluster's state.
    pub cluster: ClusterMetrics,
    /// Metrics of the health servers.
    pub health: HealthMetrics,
    /// Metrics of requests to the API server.
    pub rest: RestMetrics,
    /// Metrics of the sources and of the queue into the sync loop.
    pub source: SourceMetrics,
}

impl Metrics {
    /// Creates and registers the common metrics and, from `of_mode`, those that only this mode has.
    ///
    /// # Errors
    /// If two metrics have the same name.
    pub(crate) fn new(mode: Mode, of_mode: Option<NewModeMetrics>) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let registrar = Registrar::new(&registry);
        let sync = SyncMetrics::new(&registrar, of_mode)?;
        let audit = AuditMetrics::new(&registrar)?;
        let conntrack = ConntrackMetrics::new(&registrar)?;
        let cluster = ClusterMetrics::new(&registrar)?;
        let health = HealthMetrics::new(&registrar)?;
        let source = SourceMetrics::default();
        source.register(&registrar)?;
        let rest = RestMetrics::default();
        rest.register(&registrar)?;
        let kubernetes = registrar.gauges(
            "kubernetes_build_info",
            "Always 1; the labels name the version of Kubernetes that the proxy behaves as.",
            &[
                "major",
                "minor",
                "git_version",
                "git_commit",
                "git_tree_state",
                "build_date",
                "go_version",
                "compiler",
                "platform",
            ],
        )?;
        let version = format!("v1.36.0+portway.{}", env!("CARGO_PKG_VERSION"));
        let platform = format!("linux/{}", go_architecture());
        kubernetes.with_label_values(&["1", "36", &version, "", "", "", "", "rustc", &platform]).set(1.0);
        let build = registrar.gauges(
            "portway_build_info",
            "Always 1; the labels name the version and the mode.",
            &["version", "mode"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), mode.as_str()]).set(1.0);
        registrar.collector(process::ProcessMetrics::new()?)?;
        #[cfg(test)]
        let registered = registrar.registered();
        Ok(Self {
            mode,
            #[cfg(test)]
            registered,
            registry,
            sync,
            audit,
            conntrack,
            cluster,
            health,
            rest,
            source,
        })
    }

    /// The mode whose metrics these are.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The page, in Prometheus' text format.
    ///
    /// # Errors
    /// If a metric cannot be encoded.
    pub fn page(&self) -> prometheus::Result<Vec<u8>> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(page)
    }
}

/// The processor's architecture as Go names it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod contract;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers;

    fn page(mode: Mode) -> String {
        let of_mode = drivers::find(mode).map(|driver| driver.metrics);
        String::from_utf8(Metrics::new(mode, of_mode).unwrap().page().unwrap()).unwrap()
    }

    #[test]
    fn met_1_a_mode_registers_its_own_metrics_only() {
        let nftables = page(Mode::Nftables);
        assert!(nftables.contains("kubeproxy_sync_proxy_rules_nftables_sync_failures_total"));
        assert!(nftables.contains("kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total"));
        assert!(!nftables.contains("iptables"), "a metric of another mode is on the page");
        for other in [Mode::Iptables, Mode::Ipvs, Mode::Ebpf] {
            let page = page(other);
            assert!(!page.contains("kubeproxy_sync_proxy_rules_nftables"), "{other} shows a metric of nftables");
            assert!(page.contains("kubeproxy_sync_proxy_rules_duration_seconds"), "{other} lacks a common metric");
            assert_eq!(page.contains("iptables_restore_failures_total"), other == Mode::Iptables);
        }
    }

    #[test]
    fn process_metrics_and_build_info_are_there() {
        let page = page(Mode::Nftables);
        for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
            assert!(page.lines().any(|line| line.starts_with(name)), "{name} is missing");
        }
        assert!(page.contains("portway_build_info{mode=\"nftables\",version="));
    }
}
