//! One Service's part of the table: its slots, and the elements that they and its frontends make.

use std::collections::HashSet;
use std::sync::Arc;

use portway_model::{Family, Frontend, FrontendKind, Origin, PortPlan, Protocol, ServicePlan, Verdict};

use super::entry::{At, Class, Key, Value};
use super::shape::{Shape, refusal};
use super::slots::{Numbers, Slot, assign};
use crate::nftables::layout::shape::ChainId;
use portway_kernel::nftables::object::Name;

/// A Service's share as it stands in one family's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// What the Plan says.
    pub(crate) share: Arc<ServicePlan>,
    /// One for each of the share's ports of this family, in their order.
    pub(crate) ports: Box<[PortSlots]>,
}

/// The slots of one Service port. A list that no frontend uses is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSlots {
    /// With affinity, the number that stands for this port in the affinity maps; otherwise 0.
    pub(crate) id: u32,
    /// Slots of [`PortPlan::cluster`].
    pub(crate) cluster: Box<[Slot]>,
    /// Slots of [`PortPlan::local`].
    pub(crate) local: Box<[Slot]>,
}

/// What is known of a Service port before it is placed: from the last Plan, or from the kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Its id, if it has one.
    pub(crate) id: u32,
    /// By class: what each slot holds.
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

    fn known(&self) -> Known {
        Known { id: self.id, slots: Class::ALL.map(|class| self.of(class).iter().copied().map(Some).collect()) }
    }

    fn place(port: &PortPlan, known: &Known, numbers: &mut Numbers) -> Self {
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

impl Applied {
    /// Gives a share's backends their slots on top of those that they have; `None` if it has no port of this family.
    pub(crate) fn place(
        share: &Arc<ServicePlan>,
        family: Family,
        before: Option<&Applied>,
        numbers: &mut Numbers,
    ) -> Option<Self> {
        Self::place_with(share, family, numbers, |port| {
            let before = before?;
            before.ports(family).find(|(old, _)| old.name == port.name).map(|(_, slots)| slots.known())
        })
    }

    /// The same, asking `known` what each port has.
    pub(crate) fn place_with(
        share: &Arc<ServicePlan>,
        family: Family,
        numbers: &mut Numbers,
        known: impl Fn(&PortPlan) -> Option<Known>,
    ) -> Option<Self> {
        let ports: Box<[PortSlots]> = ports_of(share, family)
            .map(|port| PortSlots::place(port, &known(port).unwrap_or_default(), numbers))
            .collect();
        (!ports.is_empty()).then(|| Self { share: Arc::clone(share), ports })
    }

    /// Its ports of this family, with their slots.
    pub(crate) fn ports(&self, family: Family) -> impl Iterator<Item = (&PortPlan, &PortSlots)> {
        ports_of(&self.share, family).zip(&*self.ports)
    }

    /// The shapes of its frontends, one for each that has backends.
    pub(crate) fn shapes(&self, family: Family) -> impl Iterator<Item = Shape> {
        ports_of(&self.share, family)
            .flat_map(|port| port.frontends.iter().filter_map(|frontend| Shape::of(port, frontend)))
    }

    /// Its elements, in no order; shared ones may be repeated. `name` gives a chain's name.
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
                let local = backends(port, class).iter().filter(|backend| backend.local && uses(port, class));
                for backend in local {
                    out(Key::Hairpin(backend.address, port.protocol(), backend.port), Value::None);
                }
            }
        }
    }
}

fn ports_of(share: &ServicePlan, family: Family) -> impl Iterator<Item = &PortPlan> {
    share.ports.iter().filter(move |port| port.family == family)
}

/// Whether a frontend sends traffic of any origin to backends of this class.
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
    let at = At::of(port, frontend);
    if let (FrontendKind::ClusterIp, Some(address)) = (frontend.kind, frontend.address) {
        out(Key::ClusterIp(address), Value::None);
    }
    if let Some(sources) = &frontend.sources {
        out(Key::Restricted(at), Value::None);
        for range in &**sources {
            out(Key::Allowed(range.prefix_len(), at, range.network()), Value::None);
        }
    }
    match refusal(frontend) {
        Some(Verdict::Reject) => out(Key::NoEndpoints(at), Value::Goto(name_of_refuse())),
        Some(_) => out(Key::NoEndpoints(at), Value::Drop),
        None => {}
    }
    let Some(shape) = Shape::of(port, frontend) else { return };
    out(Key::Service(at), Value::Goto(name(shape.entrance())));
    if slots.id != 0 {
        // With affinity the slots stand once for the port, not for each frontend.
        out(Key::PortId(at), Value::Id(slots.id));
        return;
    }
    for class in Class::ALL.into_iter().filter(|class| routes_to(frontend, *class)) {
        for (number, slot) in (0..).zip(slots.of(class)) {
            out(Key::Slot(class, at, number), Value::Target(slot.address, slot.port));
        }
    }
}

/// What a Service port with affinity adds besides its frontends.
///
/// An entry learned in one class holds in the other as long as its backend is in both (contract AFF-5, AFF-8): then each
/// class knows both tokens.
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

/// The name of the chain that refuses, without an allocation each time.
fn name_of_refuse() -> Name {
    static NAME: std::sync::LazyLock<Name> = std::sync::LazyLock::new(|| Name::from(super::chains::REFUSE));
    Name::clone(&NAME)
}
