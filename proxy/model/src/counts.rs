//! Counts over the Plan, updated with each ServicePlan that changes.

use crate::{Family, FrontendKind, Origin, PortPlan, ServicePlan, Stats, Verdict};

/// Counts of a whole Plan.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    services: usize,
    families: [Stats; 2],
}

impl Counts {
    /// Updates the counts after one Service's plan was replaced.
    pub(crate) fn replace(&mut self, before: Option<&ServicePlan>, after: Option<&ServicePlan>) {
        self.services = self.services + usize::from(after.is_some()) - usize::from(before.is_some());
        for family in Family::ALL {
            let total = &mut self.families[family as usize];
            let (less, more) = (of_service(before, family), of_service(after, family));
            *total = Stats {
                services: total.services + more.services - less.services,
                ports: total.ports + more.ports - less.ports,
                backends: total.backends + more.backends - less.backends,
                no_local_endpoints_internal: total.no_local_endpoints_internal + more.no_local_endpoints_internal
                    - less.no_local_endpoints_internal,
                no_local_endpoints_external: total.no_local_endpoints_external + more.no_local_endpoints_external
                    - less.no_local_endpoints_external,
            };
        }
    }

    pub(crate) fn family(&self, family: Family) -> Stats {
        self.families[family as usize]
    }

    pub(crate) fn total(&self) -> Stats {
        let [v4, v6] = self.families;
        Stats {
            services: self.services,
            ports: v4.ports + v6.ports,
            backends: v4.backends + v6.backends,
            no_local_endpoints_internal: v4.no_local_endpoints_internal + v6.no_local_endpoints_internal,
            no_local_endpoints_external: v4.no_local_endpoints_external + v6.no_local_endpoints_external,
        }
    }
}

fn of_service(plan: Option<&ServicePlan>, family: Family) -> Stats {
    let mut stats = Stats::default();
    for port in plan.iter().flat_map(|plan| &plan.ports).filter(|port| port.family == family) {
        let drops = |internal: bool| {
            port.frontends.iter().any(|frontend| {
                (frontend.kind == FrontendKind::ClusterIp) == internal
                    && frontend.route(Origin::Outside).verdict == Verdict::Drop
            })
        };
        stats.services = 1;
        stats.ports += 1;
        stats.backends += backends(port);
        stats.no_local_endpoints_internal += usize::from(drops(true));
        stats.no_local_endpoints_external += usize::from(drops(false));
    }
    stats
}

/// The number of distinct backends in the Cluster and Local classes.
fn backends(port: &PortPlan) -> usize {
    if port.local.is_empty() || port.cluster.is_empty() || std::sync::Arc::ptr_eq(&port.cluster, &port.local) {
        return port.cluster.len().max(port.local.len());
    }
    let mut both: Vec<_> = port.cluster.iter().chain(port.local.iter()).collect();
    both.sort_unstable();
    both.dedup();
    both.len()
}
