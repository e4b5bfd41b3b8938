//! A [`Syncer`] on a fake dataplane, a fake conntrack and a fake clock, with a log of its timed calls.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portway_dataplane::conntrack::Cleaned;
use portway_dataplane::{
    Audit, Dataplane, DataplaneError, Drift, FamilyAudit, FamilyReport, ForeignChange, ForeignObject, KernelWatch,
    Mode, Refused, Report,
};
use portway_model::{Change, Cluster, Config, Event, Family, Kind, Plan, PortPlan, ServiceName, ServicePlan, api};

use crate::backoff::{Backoff, Retry};
use crate::health::{ProxyHealth, ServiceChecks, Updates};
use crate::inbox::Message;
use crate::metrics::Metrics;
use crate::sync::barrier::Startup;
use crate::sync::cleanup::CleanupSchedule;
use crate::sync::{Clock, ConntrackCleaner, Fatal, NodeWait, Pacing, Parts, StaleNotes, Syncer};

pub(super) const NODE: &str = "node-1";
pub(super) const SYNC_PERIOD: Duration = Duration::from_secs(30);
pub(super) const MIN_SYNC_PERIOD: Duration = Duration::from_secs(1);

/// A call that the loop made, with the names of the Services in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Sync(Vec<String>),
    Apply(Vec<String>),
    CollectGarbage,
    Audit,
    /// A notification named its objects, and the dataplane could tell what they differ in.
    AuditObjects,
    Repair(usize),
    /// The families and the Services of a Change whose clean-up is queued.
    Note(Vec<Family>, Vec<String>),
    /// The families of which everything is queued.
    NoteAll(Vec<Family>),
    /// A catch of the flows of clients that go on sending.
    Catch,
    /// A walk of the conntrack table.
    Clean,
}

/// The result of the next write; without one it succeeds.
pub(super) enum Answer {
    Fails(Vec<Family>),
    Refuses(&'static str),
    Succeeds,
}

/// The state that the fakes share with the test.
pub(super) struct World {
    base: Instant,
    pub(super) elapsed: Duration,
    /// Calls and the time at which each began.
    pub(super) calls: Vec<(Duration, Call)>,
    pub(super) answers: VecDeque<Answer>,
    /// How long each write takes.
    pub(super) cost: Duration,
    /// What the dataplane can tell from each of the next notifications that name their objects.
    pub(super) named: VecDeque<Option<Vec<Drift>>>,
    /// How long each audit takes.
    pub(super) audit_cost: Duration,
    /// The families of each audit, with the time at which it began.
    pub(super) audited: Vec<(Duration, Vec<Family>)>,
    /// How much of that it waits, for another program's lock.
    pub(super) waited: Duration,
    cpu: Duration,
    pub(super) garbage_due: Option<Duration>,
    pub(super) garbage_fails: bool,
    pub(super) drift: VecDeque<Result<Vec<Drift>, DataplaneError>>,
    pub(super) clean_failures: usize,
    /// What the kernel holds of each Service in each family.
    pub(super) kernel: HashMap<(ServiceName, Family), Vec<PortPlan>>,
    noted: bool,
    uncaught: bool,
    /// How long each walk of the conntrack table takes.
    pub(super) walk_cost: Duration,
    second_pass_at: Option<Duration>,
    /// Families of which every write fails.
    pub(super) broken: Vec<Family>,
    /// Whether what the kernel holds is known after a failure.
    pub(super) keeps_what_is_known: bool,
    /// The families of each write, with the time at which it began.
    pub(super) written: Vec<(Duration, Family)>,
}

#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn called(&self, call: Call) -> MutexGuard<'_, World> {
        let mut world = self.lock();
        let at = world.elapsed;
        world.calls.push((at, call));
        world
    }

    /// Writes the rules of these Services, as a dataplane does that writes nothing for what has no rules: endpoints that
    /// only serve earlier flows. A family whose rules are right already has no entry in the report.
    fn written(&self, call: Call, of: &[Family], services: &[(ServiceName, Option<&ServicePlan>)]) -> Report {
        let mut world = self.called(call);
        let at = world.elapsed;
        world.written.extend(of.iter().map(|family| (at, *family)));
        let cost = world.cost;
        world.elapsed += cost;
        let waited = world.waited;
        world.cpu += cost.saturating_sub(waited);
        let answer = world.answers.pop_front().unwrap_or(Answer::Succeeds);
        let mut families = Vec::new();
        for &family in of {
            let mut report = FamilyReport::new(family);
            let fails = matches!(&answer, Answer::Fails(failing) if failing.contains(&family));
            if fails || world.broken.contains(&family) {
                families.push(report.failed_with(error()));
                continue;
            }
            for (service, plan) in services {
                let rules = rules(*plan, family);
                if world.kernel.get(&(service.clone(), family)).unwrap_or(&Vec::new()) == &rules {
                    continue;
                }
                if let Answer::Refuses(name) = &answer
                    && &*service.name == *name
                {
                    let object = format!("element of {name}");
                    report.refused.push(Refused { service: service.clone(), object, error: error() });
                    continue;
                }
                report.objects += 2;
                world.kernel.insert((service.clone(), family), rules);
            }
            if report.objects > 0 || !report.refused.is_empty() {
                families.push(report);
            }
        }
        Report { families }
    }

    /// Queues a conntrack clean-up: the families of one write make one call.
    fn noted(&self, family: Family, services: Option<Vec<String>>) {
        let mut world = self.lock();
        world.noted = true;
        world.uncaught = true;
        let joined = match (world.calls.last_mut(), &services) {
            (Some((_, Call::Note(families, known))), Some(services)) if known == services => {
                families.push(family);
                true
            }
            (Some((_, Call::NoteAll(families))), None) => {
                families.push(family);
                true
            }
            _ => false,
        };
        if !joined {
            let at = world.elapsed;
            let families = vec![family];
            world.calls.push((
                at,
                match services {
                    Some(services) => Call::Note(families, services),
                    None => Call::NoteAll(families),
                },
            ));
        }
    }
}

pub(super) fn error() -> DataplaneError {
    DataplaneError::Kernel { operation: "commit".to_owned(), source: io::Error::from_raw_os_error(12) }
}

/// A family's rules of a Service: all of its plan but the endpoints that get no new connections.
fn rules(plan: Option<&ServicePlan>, family: Family) -> Vec<PortPlan> {
    let ports = plan.into_iter().flat_map(|plan| plan.ports.iter()).filter(|port| port.family == family);
    ports.map(|port| PortPlan { serving: Arc::from([]), ..port.clone() }).collect()
}

/// The clean-up of these Services in both families.
pub(super) fn noted(services: &[&str]) -> Call {
    Call::Note(Family::ALL.to_vec(), services.iter().map(|name| (*name).to_owned()).collect())
}

fn names<'a>(services: impl Iterator<Item = &'a ServiceName>) -> Vec<String> {
    let mut names: Vec<String> = services.map(|service| service.name.to_string()).collect();
    names.sort();
    names
}

impl Clock for Shared {
    fn now(&self) -> Instant {
        let world = self.lock();
        world.base + world.elapsed
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000) + self.lock().elapsed
    }

    fn thread_cpu(&self) -> Duration {
        self.lock().cpu
    }

    fn programs_cpu(&self) -> Duration {
        Duration::ZERO
    }
}

impl Dataplane for Shared {
    fn mode(&self) -> Mode {
        Mode::Nftables
    }

    fn sync_families(&mut self, families: &[Family], plan: &Plan) -> Report {
        // What the kernel holds of other Services is removed.
        let held: Vec<ServiceName> = self.lock().kernel.keys().map(|(service, _)| service.clone()).collect();
        let gone = held.into_iter().filter(|service| !plan.services.contains_key(service)).map(|gone| (gone, None));
        let services = plan.services.iter().map(|(name, plan)| (name.clone(), Some(&**plan)));
        let services: Vec<_> = services.chain(gone).collect();
        self.written(Call::Sync(names(plan.services.keys())), families, &services)
    }

    fn needs_sync_of(&self, _family: Family) -> bool {
        !self.lock().keeps_what_is_known
    }

    fn apply_families(&mut self, families: &[Family], change: &Change) -> Report {
        let services = change.services.iter().map(|service| (service.name.clone(), service.after.as_deref()));
        let services: Vec<_> = services.collect();
        self.written(Call::Apply(names(change.services.iter().map(|service| &service.name))), families, &services)
    }

    fn garbage_due(&self) -> Option<Instant> {
        let world = self.lock();
        world.garbage_due.map(|at| world.base + at)
    }

    fn collect_garbage(&mut self) -> Report {
        let mut world = self.called(Call::CollectGarbage);
        let mut report = FamilyReport::new(Family::V4);
        if world.garbage_fails {
            report.error = Some(error());
        } else {
            world.garbage_due = None;
        }
        Report { families: vec![report] }
    }

    fn audit_families(&mut self, families: &[Family]) -> Audit {
        let mut world = self.called(Call::Audit);
        let at = world.elapsed;
        world.audited.push((at, families.to_vec()));
        let cost = world.audit_cost;
        world.elapsed += cost;
        let drift = world.drift.pop_front().unwrap_or_else(|| Ok(Vec::new()));
        Audit { families: vec![FamilyAudit { family: Family::V4, drift }] }
    }

    fn audit_objects(&mut self, _family: Family, _objects: &[ForeignObject]) -> Option<Vec<Drift>> {
        let drift = self.lock().named.pop_front().flatten()?;
        drop(self.called(Call::AuditObjects));
        Some(drift)
    }

    fn repair(&mut self, drift: &[Drift]) -> Report {
        let mut report = self.written(Call::Repair(drift.len()), &Family::ALL, &[]);
        let drifted = Family::ALL.into_iter().filter(|family| drift.iter().any(|drift| drift.family == *family));
        for family in drifted {
            if report.succeeded(family) && report.objects(family) == 0 {
                report.families.push(FamilyReport { objects: 2, ..FamilyReport::new(family) });
            }
        }
        report
    }

    fn watch(&self) -> Result<Option<Box<dyn KernelWatch>>, DataplaneError> {
        Ok(None)
    }
}

impl StaleNotes for Shared {
    fn note(&mut self, change: &Change, family: Family) {
        self.noted(family, Some(names(change.services.iter().map(|service| &service.name))));
    }

    fn note_all(&mut self, _plan: &Plan, family: Family) {
        self.noted(family, None);
    }
}

impl ConntrackCleaner for Shared {
    fn has_news(&self) -> bool {
        self.lock().uncaught
    }

    fn has_first_pass(&self) -> bool {
        self.lock().noted
    }

    fn pending(&self) -> usize {
        usize::from(self.lock().noted)
    }

    fn catch(&mut self) -> Vec<Cleaned> {
        self.called(Call::Catch).uncaught = false;
        Vec::new()
    }

    fn second_pass_at(&self) -> Option<Instant> {
        let world = self.lock();
        world.second_pass_at.map(|at| world.base + at)
    }

    fn run(&mut self) -> Vec<Cleaned> {
        let mut world = self.called(Call::Clean);
        world.uncaught = false;
        let cost = world.walk_cost;
        world.elapsed += cost;
        world.cpu += cost;
        let mut cleaned =
            Cleaned { family: Family::V4, deleted: 3, examined: 5, duration: Duration::from_millis(2), error: None };
        if world.clean_failures > 0 {
            world.clean_failures -= 1;
            cleaned.error = Some(error());
        } else {
            let again = world.elapsed + Duration::from_millis(500);
            world.second_pass_at = std::mem::take(&mut world.noted).then_some(again);
        }
        vec![cleaned]
    }
}

/// The loop under test.
pub(super) struct Rig {
    pub(super) world: Shared,
    pub(super) metrics: Arc<Metrics>,
    pub(super) syncer: Syncer,
    pub(super) health: Arc<ProxyHealth>,
    /// What the health check node ports are told.
    pub(super) updates: Updates,
    /// The thread that cleans conntrack, which runs here whenever the loop has nothing to do.
    pub(super) cleanup: CleanupSchedule,
}

/// How long the tests' loops wait for the Node.
pub(super) const NODE_WAIT: NodeWait = NodeWait { max: Duration::from_secs(30), list_ends_it: false, pod_cidrs: None };

impl Rig {
    /// A loop that has received no event.
    pub(super) fn empty(config: Config, node_wait: NodeWait, conntrack: bool) -> Self {
        Self::paced(Some(MIN_SYNC_PERIOD), config, node_wait, conntrack)
    }

    fn paced(min_sync_period: Option<Duration>, config: Config, node_wait: NodeWait, conntrack: bool) -> Self {
        let world = Shared(Arc::new(Mutex::new(World {
            base: Instant::now(),
            elapsed: Duration::ZERO,
            calls: Vec::new(),
            answers: VecDeque::new(),
            cost: Duration::ZERO,
            named: VecDeque::new(),
            audit_cost: Duration::ZERO,
            audited: Vec::new(),
            waited: Duration::ZERO,
            cpu: Duration::ZERO,
            garbage_due: None,
            garbage_fails: false,
            drift: VecDeque::new(),
            clean_failures: 0,
            kernel: HashMap::new(),
            noted: false,
            uncaught: false,
            walk_cost: Duration::ZERO,
            second_pass_at: None,
            broken: Vec::new(),
            keeps_what_is_known: false,
            written: Vec::new(),
        })));
        let driver = crate::drivers::find(Mode::Nftables).unwrap();
        let metrics = Arc::new(Metrics::new(Mode::Nftables, Some(driver.metrics)).unwrap());
        let cluster = Cluster::new(Config { node_name: NODE.to_owned(), ..config });
        let health = Arc::new(ProxyHealth::new(SYNC_PERIOD, world.clone()));
        let (checks, updates) = ServiceChecks::new(&cluster.plan().settings);
        let syncer = Syncer::new(Parts {
            cluster,
            health: Arc::clone(&health),
            checks,
            node: NODE.to_owned(),
            dataplane: Box::new(world.clone()),
            conntrack: conntrack.then(|| Box::new(world.clone()) as Box<dyn StaleNotes>),
            clock: Box::new(world.clone()),
            metrics: Arc::clone(&metrics),
            pacing: Pacing { sync_period: SYNC_PERIOD, min_sync_period },
            node_wait,
        });
        let retry = Retry::new(Backoff::new(Duration::from_millis(50), SYNC_PERIOD));
        let (cleaner, clock) = (Box::new(world.clone()), Box::new(world.clone()));
        let cleanup = CleanupSchedule::new(cleaner, clock, Arc::clone(&metrics), retry);
        Self { world, metrics, syncer, health, updates, cleanup }
    }

    /// A loop that knows its Node and wrote a cluster of two Services some time ago.
    pub(super) fn running() -> Self {
        Self::running_with(false)
    }

    /// The same, with or without conntrack clean-up.
    pub(super) fn running_with(conntrack: bool) -> Self {
        Self::known(conntrack).started()
    }

    /// The same without a minSyncPeriod: paced by what writes cost.
    pub(super) fn running_by_cost() -> Self {
        Self::paced(None, Config::default(), NODE_WAIT, false).informed().started()
    }

    fn started(mut self) -> Self {
        let rig = &mut self;
        rig.step().unwrap();
        rig.pass(Duration::from_secs(5));
        let calls = rig.calls();
        assert_eq!(calls.first(), Some(&Call::Sync(vec!["a".to_owned(), "b".to_owned()])), "{calls:?}");
        self
    }

    /// A loop that has received all it needs and has written nothing.
    pub(super) fn known(conntrack: bool) -> Self {
        Self::empty(Config::default(), NODE_WAIT, conntrack).informed()
    }

    fn informed(mut self) -> Self {
        let rig = &mut self;
        rig.event(Event::InterfaceAddresses(Vec::new()));
        rig.event(node());
        for event in [service("a", 1), slice("a", &["10.1.0.1"]), service("b", 2), slice("b", &["10.1.0.2"])] {
            rig.event(event);
        }
        rig.event(Event::ListDone(Kind::Service));
        rig.event(Event::ListDone(Kind::EndpointSlice));
        self
    }

    pub(super) fn event(&mut self, event: Event) {
        self.syncer.handle(Message::Event(event));
    }

    pub(super) fn kernel_changed(&mut self) {
        self.kernel_changed_in(&Family::ALL);
    }

    /// A notification of a change of these families; of one that was missed, without any.
    pub(super) fn kernel_changed_in(&mut self, families: &[Family]) {
        let change = ForeignChange {
            description: "table ip portway deleted".to_owned(),
            families: families.to_vec(),
            objects: None,
        };
        self.syncer.handle(Message::KernelChanged(change));
    }

    /// A notification of a change of IPv4 that names its objects, of which the dataplane can tell `drift`.
    pub(super) fn objects_changed(&mut self, drift: Option<Vec<Drift>>) {
        self.world.lock().named.push_back(drift);
        let (families, objects) = (vec![Family::V4], Some(Vec::new()));
        let change = ForeignChange { description: "a rule deleted".to_owned(), families, objects };
        self.syncer.handle(Message::KernelChanged(change));
    }

    pub(super) fn step(&mut self) -> Result<(), Fatal> {
        self.syncer.step()?;
        for _ in 0..100 {
            if self.cleanup.wake_at().is_none_or(|at| at > self.cleanup.now()) {
                return Ok(());
            }
            self.cleanup.step();
        }
        panic!("the clean-up is busy without end: {:?}", self.calls());
    }

    fn wake_at(&self) -> Option<Instant> {
        [self.syncer.wake_at(), self.cleanup.wake_at()].into_iter().flatten().min()
    }

    /// Lets time pass, and steps the loop whenever it is due.
    pub(super) fn pass(&mut self, time: Duration) {
        self.try_pass(time).unwrap();
    }

    pub(super) fn try_pass(&mut self, time: Duration) -> Result<(), Fatal> {
        let base = self.world.lock().base;
        let end = self.world.lock().elapsed + time;
        for _ in 0..10_000 {
            let Some(wake) = self.wake_at().filter(|wake| *wake <= base + end) else {
                let mut world = self.world.lock();
                world.elapsed = world.elapsed.max(end);
                return Ok(());
            };
            {
                let mut world = self.world.lock();
                world.elapsed = world.elapsed.max(wake.saturating_duration_since(base));
            }
            self.step()?;
        }
        panic!("the loop is busy without end: {:?}", self.calls());
    }

    /// The calls since the last look.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.timed_calls().into_iter().map(|(_, call)| call).collect()
    }

    /// The calls since the last look, each with the time at which it began.
    pub(super) fn timed_calls(&self) -> Vec<(Duration, Call)> {
        std::mem::take(&mut self.world.lock().calls)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.world.lock().elapsed
    }

    /// Whether the startup barrier still holds back the first write.
    pub(super) fn is_waiting(&self) -> bool {
        self.syncer.startup() != Startup::Ready
    }

    /// A line of the metrics page.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let page = String::from_utf8(self.metrics.page().unwrap()).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not on the page")).parse().unwrap()
    }
}

pub(super) fn applied(name: &str) -> Call {
    Call::Apply(vec![name.to_owned()])
}

pub(super) fn node() -> Event {
    Event::Node(api::Node {
        name: NODE.to_owned(),
        addresses: vec![("InternalIP".to_owned(), "192.0.2.1".to_owned())],
        pod_cidrs: vec!["10.1.0.0/24".to_owned()],
        ..api::Node::default()
    })
}

pub(super) fn service(name: &str, last: u8) -> Event {
    service_at(name, IpAddr::from([10, 96, 0, last]))
}

pub(super) fn service_v6(name: &str, last: u16) -> Event {
    service_at(name, IpAddr::from([0xfd00, 0x96, 0, 0, 0, 0, 0, last]))
}

fn service_at(name: &str, address: IpAddr) -> Event {
    let (family, address) = (Family::of(address).to_string(), address.to_string());
    Event::Service(api::Service {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        service_type: Some("ClusterIP".to_owned()),
        cluster_ip: Some(address.clone()),
        cluster_ips: vec![address],
        ip_families: vec![family],
        ports: vec![api::ServicePort { protocol: Some("UDP".to_owned()), port: 53, ..api::ServicePort::default() }],
        ..api::Service::default()
    })
}

pub(super) fn slice(service: &str, addresses: &[&str]) -> Event {
    triggered_slice(service, addresses, None)
}

pub(super) fn triggered_slice(service: &str, addresses: &[&str], trigger: Option<SystemTime>) -> Event {
    slice_of(Family::V4, service, addresses.iter().map(|address| ready(address)).collect(), trigger)
}

pub(super) fn triggered_slice_v6(service: &str, addresses: &[&str], trigger: Option<SystemTime>) -> Event {
    slice_of(Family::V6, service, addresses.iter().map(|address| ready(address)).collect(), trigger)
}

/// A slice in which some endpoints are ready, and others terminate and still serve.
pub(super) fn slice_with(
    service: &str,
    ready_ones: &[&str],
    terminating: &[&str],
    trigger: Option<SystemTime>,
) -> Event {
    let terminating = terminating.iter().map(|address| api::Endpoint {
        ready: Some(false),
        serving: Some(true),
        terminating: Some(true),
        ..ready(address)
    });
    slice_of(Family::V4, service, ready_ones.iter().map(|address| ready(address)).chain(terminating).collect(), trigger)
}

fn ready(address: &str) -> api::Endpoint {
    api::Endpoint { addresses: vec![address.to_owned()], ready: Some(true), ..api::Endpoint::default() }
}

fn slice_of(
    family: Family,
    service: &str,
    endpoints: Vec<api::Endpoint>,
    last_change_trigger: Option<SystemTime>,
) -> Event {
    Event::EndpointSlice(api::EndpointSlice {
        namespace: "default".to_owned(),
        name: format!("{service}-x"),
        labels: [("kubernetes.io/service-name".to_owned(), service.to_owned())].into(),
        last_change_trigger,
        address_type: family.to_string(),
        endpoints,
        ports: vec![api::SlicePort { name: Some(String::new()), protocol: Some("UDP".to_owned()), port: Some(5353) }],
    })
}
