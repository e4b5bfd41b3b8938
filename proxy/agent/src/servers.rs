//! The agent's servers, wired together: health, health check node ports, metrics and their pages.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::events::{Events, Reason};
use crate::health::{self, ProxyHealth, Updates};
use crate::metrics::{self, Metrics, PagesConfig};
use crate::web::{self, BindRetry, Handler};

/// Where the servers listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// The address of `/healthz` and `/livez`; `None` if it is disabled (contract HZ-7).
    pub(crate) healthz: Option<SocketAddr>,
    /// The address of the metrics; `None` if it is disabled.
    pub(crate) metrics: Option<SocketAddr>,
    /// Whether an address that cannot be bound ends the process (contract HZ-6).
    pub(crate) hard_fail: bool,
}

/// What the servers answer from.
pub(crate) struct Servers {
    /// The addresses at which the servers listen.
    pub(crate) addresses: Addresses,
    /// The name of this node.
    pub(crate) node: String,
    /// Receives what cannot be bound.
    pub(crate) events: Events,
    /// Whether the kernel follows the cluster.
    pub(crate) health: Arc<ProxyHealth>,
    /// The health check node ports.
    pub(crate) updates: Updates,
    /// What the pages beside the metrics show.
    pub(crate) pages: PagesConfig,
    /// The metrics that `/metrics` prints.
    pub(crate) metrics: Arc<Metrics>,
}

impl Servers {
    /// Serves until the future is dropped. It ends only with an error that ends the process.
    pub(crate) async fn run(self) -> io::Error {
        let Self { addresses, node, events, health, updates, pages, metrics } = self;
        let serve = |what, reason, address, handler: Handler| {
            let retry = BindRetry { what, reason, events: events.clone(), fatal: addresses.hard_fail };
            async move {
                match address {
                    Some(address) => web::serve_address(address, retry, handler).await,
                    None => std::future::pending().await,
                }
            }
        };
        let handler = health::handler(Arc::clone(&health), metrics.health.clone());
        let healthz = serve("healthz", Reason::FailedToStartProxierHealthcheck, addresses.healthz, handler);
        let handler = metrics::handler(metrics, pages);
        let metrics = serve("metrics", Reason::FailedToStartMetricServer, addresses.metrics, handler);
        let node_ports = health::listen(updates, health, events, node);
        tokio::select! {
            Err(error) = healthz => error,
            Err(error) = metrics => error,
            // They end with the sync loop, which ends the process.
            () = node_ports => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portway_dataplane::Mode;
    use portway_model::NodeSettings;

    use super::*;
    use crate::health::ServiceChecks;
    use crate::sync::SystemClock;

    fn servers(addresses: Addresses) -> (Servers, ServiceChecks) {
        let (checks, updates) = ServiceChecks::new(&NodeSettings::default());
        let servers = Servers {
            addresses,
            node: "node-1".to_owned(),
            events: Events::only_logged("node-1"),
            health: Arc::new(ProxyHealth::new(Duration::from_secs(30), SystemClock)),
            updates,
            pages: PagesConfig { configz: None, flagz: None, statusz: false, profiling: false },
            metrics: Arc::new(Metrics::new(Mode::Nftables, None).unwrap()),
        };
        (servers, checks)
    }

    #[tokio::test]
    async fn hz_6_hz_7_a_busy_address_ends_it_with_hard_fail_and_no_address_serves_nothing() {
        let busy = web::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = busy.local_addr().unwrap();
        let wait = Duration::from_millis(100);
        for (healthz, metrics, hard_fail, error) in [
            (Some(address), None, true, Some("failed to start healthz on ")),
            (None, Some(address), true, Some("failed to start metrics on ")),
            (Some(address), Some(address), false, None),
            (None, None, true, None),
        ] {
            let (servers, _checks) = servers(Addresses { healthz, metrics, hard_fail });
            match (tokio::time::timeout(wait, servers.run()).await, error) {
                (Ok(ended), Some(error)) => assert!(ended.to_string().starts_with(error), "{ended}"),
                (Err(_), None) => {}
                (ended, _) => panic!("{healthz:?} {metrics:?} {hard_fail}: {ended:?}"),
            }
        }
    }
}
