//! One Service's part of the table: the slots of its backends, and its elements.

use std::collections::HashSet;
use std::sync::Arc;

use portway_model::{Family, Frontend, FrontendKind, Origin, PortPlan, Protocol, ServicePlan, Verdict};

use super::entry::{Class, FrontendKey, Key, Value, refuse};
use super::shape::{ChainId, Shape, refusal};
use super::slots::{AffinityNumbers, Slot, assign};
use portway_kernel::nftables::Name;

/// A Service's plan with the slots of its backends in one family's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlacedService {
    /// The Service's plan, as resolved by the model.
    pub(crate) plan: Arc<ServicePlan>,
    /// The slots of each port of this family, in the order of the plan.
    pub(crate) ports: Box<[PortSlots]>,
}

/// The slots of one Service port. A class that no frontend uses has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSlots {
    /// With affinity, the number that stands for this port in the affinity maps; otherwise 0.
    pub(crate) id: u32,
    /// The slots of the Cluster class, [`PortPlan::cluster`].
    pub(crate) cluster: Box<[Slot]>,
    /// The slots of the Local class, [`PortPlan::local`].
    pub(crate) local: Box<[Slot]>,
}

/// The slots that a Service port has before it is placed, from the last Plan or from the kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownSlots {
    /// The port's id for affinity, or 0.
    pub(crate) id: u32,
    /// What each slot holds, by class.
    pub(crate) slots: [Vec<Option<Slot>>; 2],
}

impl PortSlots {
    /// The slots of one class.
    pub(crate) fn of(&self, class: Class) -> &[Slot] {
        match class {
            Class::Cluster => &self.cluster,
            Class::Local => &self.local,
        }
    }

    fn known(&self) -> KnownSlots {
        KnownSlots { id: self.id, slots: Class::ALL.map(|class| self.of(class).iter().copied().map(Some).collect()) }
    }

    fn place(port: &PortPlan, known: &KnownSlots, numbers: &mut AffinityNumbers) -> Self {
        let sticky = port.affinity.is_some();
        let id = match (sticky, known.id) {
            (false, _) => 0,
            (true, 0) => numbers.next(),
            (true, id) => id,
        };
        let mut place = |class: Class| -> Box<[Slot]> {
            if !uses(port, class) {
                return Box::default();
            }
            let mut slots = assign(&known.slots[class as usize], backends(port, class));
            for slot in &mut slots {
                slot.token = match (sticky, slot.token) {
                    (false, _) => 0,
                    (true, 0) => numbers.next(),
                    (true, token) => token,
                };
            }
            slots.into()
        };
        Self { id, cluster: place(Class::Cluster), local: place(Class::Local) }
    }
}

impl PlacedService {
    /// Gives a Service's backends their slots, starting from those that they have; `None` if it has no port of this
    /// family.
    pub(crate) fn place(
        plan: &Arc<ServicePlan>,
        family: Family,
        before: Option<&PlacedService>,
        numbers: &mut AffinityNumbers,
    ) -> Option<Self> {
        Self::place_with(plan, family, numbers, |port| {
            let before = before?;
            before.ports(family).find(|(old, _)| old.name == port.name).map(|(_, slots)| slots.known())
        })
    }

    /// As [`PlacedService::place`], with `known` for the slots that each port has.
    pub(crate) fn place_with(
        plan: &Arc<ServicePlan>,
        family: Family,
        numbers: &mut AffinityNumbers,
        known: impl Fn(&PortPlan) -> Option<KnownSlots>,
    ) -> Option<Self> {
        let ports: Box<[PortSlots]> = ports_of(plan, family)
            .map(|port| PortSlots::place(port, &known(port).unwrap_or_default(), numbers))
            .collect();
        (!ports.is_empty()).then(|| Self { plan: Arc::clone(plan), ports })
    }

    /// The Service's ports of this family, with their slots.
    pub(crate) fn ports(&self, family: Family) -> impl Iterator<Item = (&PortPlan, &PortSlots)> {
        ports_of(&self.plan, family).zip(&*self.ports)
    }

    /// The shapes of the frontends that have backends.
    pub(crate) fn shapes(&self, family: Family) -> impl Iterator<Item = Shape> {
        ports_of(&self.plan, family)
            .flat_map(|port| port.frontends.iter().filter_map(|frontend| Shape::of(port, frontend)))
    }

    /// Passes each element of the Service to `out`, in no order; shared elements may be repeated. `name` returns a
    /// chain's name.
    pub(crate) fn entries(
        &self,
        family: Family,
        name: &mut impl FnMut(ChainId) -> Name,
        out: &mut impl FnMut(Key, Value),
    ) {
        for (port, slots) in self.ports(family) {
            for frontend in &port.frontends {
                frontend_entries(port, slots, frontend, name, out);
            }
            if slots.id != 0 {
                affinity_entries(port.protocol(), slots, out);
            }
            for class in Class::ALL {
                let used = backends(port, class).iter().filter(|_| uses(port, class));
                for backend in used {
                    out(Key::Endpoint(backend.address, port.protocol(), backend.port), Value::None);
                }
            }
        }
    }
}

fn ports_of(plan: &ServicePlan, family: Family) -> impl Iterator<Item = &PortPlan> {
    plan.ports.iter().filter(move |port| port.family == family)
}

/// Whether a frontend sends traffic of any origin to this class.
fn routes_to(frontend: &Frontend, class: Class) -> bool {
    Origin::ALL.iter().any(|origin| Class::of(frontend.route(*origin).verdict) == Some(class))
}

fn uses(port: &PortPlan, class: Class) -> bool {
    port.frontends.iter().any(|frontend| routes_to(frontend, class))
}

fn backends(port: &PortPlan, class: Class) -> &[portway_model::Backend] {
    match class {
        Class::Cluster => &port.cluster,
        Class::Local => &port.local,
    }
}

fn frontend_entries(
    port: &PortPlan,
    slots: &PortSlots,
    frontend: &Frontend,
    name: &mut impl FnMut(ChainId) -> Name,
    out: &mut impl FnMut(Key, Value),
) {
    let at = FrontendKey::of(port, frontend);
    if let (FrontendKind::ClusterIp, Some(address)) = (frontend.kind, frontend.address) {
        out(Key::ClusterIp(address), Value::None);
    }
    if let (true, FrontendKind::LoadBalancerIp | FrontendKind::ExternalIp, Some(address)) =
        (port.refuses_unknown_ports, frontend.kind, frontend.address)
    {
        out(Key::ExternalIp(address), Value::None);
    }
    if frontend.address.is_none() {
        out(Key::NodePort(port.protocol(), frontend.port), Value::None);
    }
    if let Some(sources) = &frontend.sources {
        out(Key::Restricted(at), Value::None);
        for range in &**sources {
            out(Key::Allowed(range.prefix_len(), at, range.network()), Value::None);
        }
    }
    match refusal(frontend) {
        Some(Verdict::Reject) => out(Key::NoEndpoints(at), Value::Goto(refuse())),
        Some(_) => out(Key::NoEndpoints(at), Value::Drop),
        None => {}
    }
    let Some(shape) = Shape::of(port, frontend) else { return };
    out(Key::Service(at), Value::Goto(name(shape.entrance())));
    if slots.id != 0 {
        // With affinity the port has one list of slots, not one for each frontend.
        out(Key::PortId(at), Value::Id(slots.id));
        return;
    }
    for class in Class::ALL.into_iter().filter(|class| routes_to(frontend, *class)) {
        for (number, slot) in (0..).zip(slots.of(class)) {
            out(Key::Slot(class, at, number), Value::Target(slot.address, slot.port));
        }
    }
}

/// Passes the elements that a Service port with affinity adds besides its frontends.
///
/// Affinity that was learned in one class holds in the other as long as its backend is in both (contract AFF-5, AFF-8), so
/// each class then holds both tokens.
fn affinity_entries(protocol: Protocol, slots: &PortSlots, out: &mut impl FnMut(Key, Value)) {
    for (class, other) in [(Class::Cluster, Class::Local), (Class::Local, Class::Cluster)] {
        let members: HashSet<_> = slots.of(class).iter().map(|slot| (slot.address, slot.port)).collect();
        for (number, slot) in (0..).zip(slots.of(class)) {
            let target = Value::StickyTarget(protocol, slot.address, slot.port, slot.token);
            out(Key::StickySlot(class, slots.id, number), target);
            out(Key::StickyToken(class, slot.token), Value::None);
        }
        for slot in slots.of(other).iter().filter(|slot| members.contains(&(slot.address, slot.port))) {
            out(Key::StickyToken(class, slot.token), Value::None);
        }
    }
}
