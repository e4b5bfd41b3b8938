//! Made-up clusters as the model sees them: the same addresses as the test API server's, without the API.

use anyhow::{Result, bail};
use portway_model::{Change, Cluster, Config, DetectLocal, Event, Kind, Plan, ServiceName, api};
use portway_testbed::apiserver::Synthetic;

/// A cluster of which every Service and endpoint is known by number.
pub struct ModelCluster {
    model: Cluster,
    shape: Synthetic,
}

const NAMESPACE: &str = "default";

impl ModelCluster {
    /// `services` Services with `endpoints` endpoints each.
    ///
    /// # Errors
    /// If the model finds fault with them, as with all that follows.
    pub fn new(services: usize, endpoints: usize) -> Result<Self> {
        let mut cluster = Self::unresolved(services, endpoints)?;
        let (change, problems) = cluster.model.drain();
        if change.services.len() != services || !problems.is_empty() {
            bail!("{services} Services became {} ServicePlans: {problems:?}", change.services.len());
        }
        Ok(cluster)
    }

    /// The same, of which nothing is resolved yet: the next drain does it all.
    pub fn unresolved(services: usize, endpoints: usize) -> Result<Self> {
        let shape = Synthetic::new(services, endpoints);
        let config = Config {
            node_name: "node-0".to_owned(),
            detect_local: DetectLocal::ClusterCidr(vec!["10.128.0.0/9".parse()?]),
            ..Config::default()
        };
        let mut cluster = Self { model: Cluster::new(config), shape };
        for event in cluster.events() {
            cluster.ingest(event)?;
        }
        Ok(cluster)
    }

    /// All events that the sources of such a cluster send at the start.
    pub fn events(&self) -> Vec<Event> {
        let node = api::Node {
            name: "node-0".to_owned(),
            addresses: vec![("InternalIP".to_owned(), "172.16.0.1".to_owned())],
            ..api::Node::default()
        };
        let cidr = api::ServiceCidr { name: "kubernetes".to_owned(), cidrs: vec!["10.96.0.0/12".to_owned()] };
        let mut events = vec![Event::Node(node), Event::ServiceCidr(cidr)];
        let all: Vec<usize> = (0..self.shape.endpoints).collect();
        for number in 0..self.shape.services {
            events.push(Event::Service(self.service(number)));
            events.push(Event::EndpointSlice(self.slice(number, &all)));
        }
        events.extend([Kind::Service, Kind::EndpointSlice].map(Event::ListDone));
        events
    }

    /// The model's own cluster, for events and drains by hand.
    pub fn model(&mut self) -> &mut Cluster {
        &mut self.model
    }

    /// Where Services and endpoints are.
    pub fn shape(&self) -> &Synthetic {
        &self.shape
    }

    /// What the kernel must do.
    pub fn plan(&self) -> &Plan {
        self.model.plan()
    }

    /// Gives a Service these endpoints.
    pub fn set_endpoints(&mut self, service: usize, endpoints: &[usize]) -> Result<Change> {
        self.change([Event::EndpointSlice(self.slice(service, endpoints))])
    }

    /// A Service that comes with its endpoints.
    pub fn add_service(&mut self, service: usize, endpoints: &[usize]) -> Result<Change> {
        self.change([Event::Service(self.service(service)), Event::EndpointSlice(self.slice(service, endpoints))])
    }

    /// A Service that goes with its endpoints.
    pub fn remove_service(&mut self, service: usize) -> Result<Change> {
        let name = self.shape.service_name(service);
        self.change([
            Event::ServiceGone(ServiceName::new(NAMESPACE, name.as_str())),
            Event::EndpointSliceGone { namespace: NAMESPACE.to_owned(), name },
        ])
    }

    fn change(&mut self, events: impl IntoIterator<Item = Event>) -> Result<Change> {
        for event in events {
            self.ingest(event)?;
        }
        let (change, problems) = self.model.drain();
        if change.services.len() != 1 || !problems.is_empty() {
            bail!("one Service changed, but the Change names {}: {problems:?}", change.services.len());
        }
        Ok(change)
    }

    fn ingest(&mut self, event: Event) -> Result<()> {
        let problems = self.model.ingest(event);
        if problems.is_empty() { Ok(()) } else { bail!("a made-up object is bad: {problems:?}") }
    }

    /// The Service of this number as the model takes it from the API.
    pub fn service(&self, number: usize) -> api::Service {
        let address = self.shape.cluster_ip(number).to_string();
        api::Service {
            namespace: NAMESPACE.to_owned(),
            name: self.shape.service_name(number),
            service_type: Some("ClusterIP".to_owned()),
            cluster_ip: Some(address.clone()),
            cluster_ips: vec![address],
            ip_families: vec!["IPv4".to_owned()],
            ports: vec![api::ServicePort {
                name: Some("http".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: 80,
                node_port: None,
            }],
            ..api::Service::default()
        }
    }

    /// The slice of a Service with these endpoints.
    pub fn slice(&self, number: usize, endpoints: &[usize]) -> api::EndpointSlice {
        let name = self.shape.service_name(number);
        let label = ("kubernetes.io/service-name".to_owned(), name.clone());
        let endpoint = |&endpoint: &usize| api::Endpoint {
            addresses: vec![self.shape.endpoint_address(number, endpoint).to_string()],
            ready: Some(true),
            node_name: Some(format!("node-{}", (number + endpoint) % self.shape.nodes)),
            ..api::Endpoint::default()
        };
        api::EndpointSlice {
            namespace: NAMESPACE.to_owned(),
            name,
            labels: [label].into(),
            address_type: "IPv4".to_owned(),
            endpoints: endpoints.iter().map(endpoint).collect(),
            ports: vec![api::SlicePort {
                name: Some("http".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: Some(8080),
            }],
            ..api::EndpointSlice::default()
        }
    }
}
