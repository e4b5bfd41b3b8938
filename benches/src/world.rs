//! Made-up clusters as the model sees them: the same addresses as the test API server's, without the API.

use anyhow::{Result, bail};
use portway_model::{Change, Cluster, Config, DetectLocal, Event, Kind, Plan, ServiceName, api};
use portway_testbed::apiserver::Synthetic;

/// A cluster of which every Service and endpoint is known by number.
pub(crate) struct World {
    cluster: Cluster,
    shape: Synthetic,
}

const NAMESPACE: &str = "default";

impl World {
    /// `services` Services with `endpoints` endpoints each.
    pub(crate) fn new(services: usize, endpoints: usize) -> Result<Self> {
        let shape = Synthetic::new(services, endpoints);
        let config = Config {
            node_name: "node-0".to_owned(),
            detect_local: DetectLocal::ClusterCidr(vec!["10.128.0.0/9".parse()?]),
            ..Config::default()
        };
        let mut world = Self { cluster: Cluster::new(config), shape };
        world.ingest(Event::Node(api::Node {
            name: "node-0".to_owned(),
            addresses: vec![("InternalIP".to_owned(), "172.16.0.1".to_owned())],
            ..api::Node::default()
        }))?;
        let cidr = api::ServiceCidr { name: "kubernetes".to_owned(), cidrs: vec!["10.96.0.0/12".to_owned()] };
        world.ingest(Event::ServiceCidr(cidr))?;
        let all: Vec<usize> = (0..endpoints).collect();
        for number in 0..services {
            world.ingest(Event::Service(world.service(number)))?;
            world.ingest(Event::EndpointSlice(world.slice(number, &all)))?;
        }
        world.ingest(Event::ListDone(Kind::Service))?;
        world.ingest(Event::ListDone(Kind::EndpointSlice))?;
        let (change, problems) = world.cluster.drain();
        if change.services.len() != services || !problems.is_empty() {
            bail!("{services} Services became {} shares: {problems:?}", change.services.len());
        }
        Ok(world)
    }

    /// Where Services and endpoints are.
    pub(crate) fn shape(&self) -> &Synthetic {
        &self.shape
    }

    /// What the kernel must do.
    pub(crate) fn plan(&self) -> &Plan {
        self.cluster.plan()
    }

    /// Gives a Service these endpoints.
    pub(crate) fn set_endpoints(&mut self, service: usize, endpoints: &[usize]) -> Result<Change> {
        self.change([Event::EndpointSlice(self.slice(service, endpoints))])
    }

    /// A Service that comes with its endpoints.
    pub(crate) fn add_service(&mut self, service: usize, endpoints: &[usize]) -> Result<Change> {
        self.change([Event::Service(self.service(service)), Event::EndpointSlice(self.slice(service, endpoints))])
    }

    /// A Service that goes with its endpoints.
    pub(crate) fn remove_service(&mut self, service: usize) -> Result<Change> {
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
        let (change, problems) = self.cluster.drain();
        if change.services.len() != 1 || !problems.is_empty() {
            bail!("one Service changed, but the Change names {}: {problems:?}", change.services.len());
        }
        Ok(change)
    }

    fn ingest(&mut self, event: Event) -> Result<()> {
        let problems = self.cluster.ingest(event);
        if problems.is_empty() { Ok(()) } else { bail!("a made-up object is bad: {problems:?}") }
    }

    fn service(&self, number: usize) -> api::Service {
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

    fn slice(&self, number: usize, endpoints: &[usize]) -> api::EndpointSlice {
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
