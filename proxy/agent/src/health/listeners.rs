//! The listeners of health check node ports: one for each port and address (contract HC-1).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use portway_model::{HealthCheck, NodePortAddresses, ServiceName};
use rustix::io::Errno;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::checks::Updates;
use super::{ProxyHealth, Update};
use crate::events::{Events, Reason};
use crate::web::{self, Handler, Reply, at_once};

/// The header in which load balancers read how many endpoints this node has.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Ports that could not be bound are tried again at the next sync, but not more often than this.
const MIN_RETRY: Duration = Duration::from_secs(1);

/// The same at the latest, where nothing is synced.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Opens, answers and closes health check node ports, until the sync loop ends.
pub(crate) async fn listen(updates: Updates, health: Arc<ProxyHealth>, events: Events, node: String) {
    let Updates { mut updates, unbound } = updates;
    let mut listeners = Listeners { health, events, node, places: Vec::new(), services: HashMap::new() };
    let mut tried = Instant::now();
    loop {
        let retry_at = listeners.lacks_any().then(|| tried + MAX_RETRY);
        let update = tokio::select! {
            update = updates.recv() => match update {
                Some(update) => update,
                None => return,
            },
            () = sleep_until(retry_at) => Update::Synced,
        };
        match update {
            Update::Addresses(addresses) => listeners.move_to(places(&addresses)).await,
            Update::Service(name, check) => listeners.set(name, check).await,
            Update::Synced if tried.elapsed() >= MIN_RETRY => {
                tried = Instant::now();
                listeners.retry();
            }
            Update::Synced => {}
        }
        unbound.store(listeners.lacks_any(), Ordering::Release);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Where a port is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// All addresses of both families.
    Everywhere,
    /// This address, or all of its family if it is unspecified.
    At(IpAddr),
}

fn places(addresses: &[NodePortAddresses; 2]) -> Vec<Place> {
    if let [NodePortAddresses::AllLocal, NodePortAddresses::AllLocal] = addresses {
        return vec![Place::Everywhere];
    }
    let all = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    let of = |(addresses, all): (&NodePortAddresses, IpAddr)| match addresses {
        NodePortAddresses::AllLocal => vec![Place::At(all)],
        NodePortAddresses::Listed(listed) => listed.iter().copied().map(Place::At).collect(),
    };
    addresses.iter().zip(all).flat_map(of).collect()
}

struct Listeners {
    health: Arc<ProxyHealth>,
    events: Events,
    node: String,
    places: Vec<Place>,
    services: HashMap<ServiceName, Open>,
}

/// A Service's port, and where it is bound.
struct Open {
    port: u16,
    count: Arc<AtomicU32>,
    /// `None` where it could not be bound.
    bound: BTreeMap<Place, Option<Server>>,
}

/// A listener that is served; it closes when this is dropped.
struct Server(JoinHandle<()>);

impl Server {
    /// Closes it, so that the port is free afterwards.
    async fn close(mut self) {
        self.0.abort();
        // An error says that it was aborted.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Listeners {
    fn lacks_any(&self) -> bool {
        self.services.values().any(|open| open.bound.values().any(Option::is_none))
    }

    async fn set(&mut self, name: ServiceName, check: Option<HealthCheck>) {
        let Some(HealthCheck { port, local_endpoints }) = check else {
            self.close(&name).await;
            return;
        };
        if let Some(open) = self.services.get(&name).filter(|open| open.port == port) {
            open.count.store(local_endpoints, Ordering::Release);
            return;
        }
        // The old port closes first: another Service may have it now.
        self.close(&name).await;
        let bound = self.places.iter().map(|place| (*place, None)).collect();
        let mut open = Open { port, count: Arc::new(AtomicU32::new(local_endpoints)), bound };
        self.open(&name, &mut open);
        self.services.insert(name, open);
    }

    async fn close(&mut self, name: &ServiceName) {
        let Some(open) = self.services.remove(name) else { return };
        for server in open.bound.into_values().flatten() {
            server.close().await;
        }
        tracing::debug!(service = %name, port = open.port, "health check node port closed");
    }

    /// Listens at other addresses; ports that are bound at an address which stays are not touched.
    async fn move_to(&mut self, places: Vec<Place>) {
        self.places = places;
        for open in self.services.values_mut() {
            let (stays, gone) =
                std::mem::take(&mut open.bound).into_iter().partition(|(place, _)| self.places.contains(place));
            let gone: BTreeMap<Place, Option<Server>> = gone;
            open.bound = stays;
            for server in gone.into_values().flatten() {
                server.close().await;
            }
            for place in &self.places {
                open.bound.entry(*place).or_insert(None);
            }
        }
        self.retry();
    }

    fn retry(&mut self) {
        for (name, mut open) in std::mem::take(&mut self.services) {
            self.open(&name, &mut open);
            self.services.insert(name, open);
        }
    }

    /// Binds a Service's port where it is not bound yet.
    fn open(&self, name: &ServiceName, open: &mut Open) {
        let port = open.port;
        let handler = self.handler(name, &open.count);
        let mut absent = Vec::new();
        for (place, server) in open.bound.iter_mut().filter(|(_, server)| server.is_none()) {
            let bound = match place {
                Place::Everywhere => web::both_families(port),
                Place::At(ip) => web::bind(SocketAddr::new(*ip, port)),
            };
            match bound {
                Ok(listener) => {
                    tracing::debug!(service = %name, port, ?place, "health check node port opened");
                    *server = Some(Server(tokio::spawn(web::serve(listener, Arc::clone(&handler)))));
                }
                // Without IPv6 there is nothing to listen at.
                Err(error) if *place == Place::At(Ipv6Addr::UNSPECIFIED.into()) && no_such_family(&error) => {
                    absent.push(*place);
                }
                Err(error) => {
                    let node = &self.node;
                    let note = format!("node {node} failed to start healthcheck \"{name}\" on port {port}: {error}");
                    self.events.service(name, Reason::FailedToStartServiceHealthcheck, &note);
                    tracing::debug!(service = %name, port, ?place, %error, "cannot bind a health check node port; retrying");
                }
            }
        }
        open.bound.retain(|place, _| !absent.contains(place));
    }

    fn handler(&self, name: &ServiceName, count: &Arc<AtomicU32>) -> Handler {
        let (health, name, count) = (Arc::clone(&self.health), name.clone(), Arc::clone(count));
        at_once(move |_| answer(&name, count.load(Ordering::Acquire), health.is_healthy()))
    }
}

fn no_such_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// The answer to any request (contract HC-2, HC-3, HC-4).
fn answer(service: &ServiceName, local_endpoints: u32, healthy: bool) -> Reply {
    let status = if local_endpoints > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = |text: &str| serde_json::Value::from(text);
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {},\n\t\t\"name\": {}\n\t}},\n\t\"localEndpoints\": {local_endpoints},\n\t\
         \"serviceProxyHealthy\": {healthy}\n}}",
        text(&service.namespace),
        text(&service.name),
    );
    Reply::json(status, body).with(WEIGHT, HeaderValue::from(local_endpoints))
}
