//! Warnings about values that are valid and probably not intended (contract CFG-13, NFT-18).

use portway_model::{DetectLocal, Family, NodePortSelection};

use super::defaults::given_text;
use super::settings::Settings;

impl Settings {
    /// One sentence for each value that is probably not intended.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let config = &self.documents.kube_proxy;
        let cluster_cidr = given_text(config.cluster_cidr.as_deref());
        let mode = config.detect_local_mode.as_deref().unwrap_or_default();
        let mut warnings = Vec::new();
        match &self.detect_local {
            DetectLocal::None => warnings.push(
                "no cluster CIDR is given (--cluster-cidr, clusterCIDR), nor another way to detect local traffic: traffic \
                 from pods is not recognized, so pods that use a load balancer or external address with \
                 externalTrafficPolicy Local are treated as external clients"
                    .to_owned(),
            ),
            DetectLocal::ClusterCidr(_) => {}
            _ if cluster_cidr.is_some() => warnings.push(format!("the cluster CIDR has no effect with {mode}")),
            _ => {}
        }
        if !(self.driver.serves_loopback)(&self.options) && selects_loopback(&self.node_port_addresses) {
            warnings.push(
                "the NodePort addresses cover loopback addresses, but NodePorts are not served on loopback in this mode"
                    .to_owned(),
            );
        }
        if self.node_port_addresses == NodePortSelection::All
            && config.node_port_addresses.as_ref().is_none_or(Vec::is_empty)
        {
            warnings.push(
                "no NodePort addresses are given (--nodeport-addresses, nodePortAddresses): NodePorts answer on every \
                 address of this node; \"primary\" restricts them to the Node's own"
                    .to_owned(),
            );
        }
        warnings.extend(self.one_family_of_two());
        if !config.logging.vmodule.is_empty() {
            warnings.push("vmodule has no effect: it names source files of kube-proxy".to_owned());
        }
        warnings
    }

    /// Whether the addresses of NodePorts include loopback's.
    pub(crate) fn node_ports_at_loopback(&self) -> bool {
        self.node_port_addresses == NodePortSelection::All || selects_loopback(&self.node_port_addresses)
    }

    /// NodePort addresses of one family, where other settings have both.
    fn one_family_of_two(&self) -> Option<String> {
        let DetectLocal::ClusterCidr(cluster) = &self.detect_local else { return None };
        let NodePortSelection::Cidrs(ranges) = &self.node_port_addresses else { return None };
        let has = |family: Family| ranges.iter().any(|range| Family::of(range.addr()) == family);
        let [_, _] = cluster.as_slice() else { return None };
        let missing = [Family::V4, Family::V6].into_iter().find(|family| !has(*family))?;
        Some(format!(
            "the cluster has IPv4 and IPv6, but the NodePort addresses have no {missing} range: NodePorts do not answer at \
             {missing} addresses"
        ))
    }
}

fn selects_loopback(selection: &NodePortSelection) -> bool {
    match selection {
        NodePortSelection::Primary | NodePortSelection::All => false,
        // A range of all addresses means "all", as in kube-proxy.
        NodePortSelection::Cidrs(ranges) => {
            ranges.iter().any(|range| range.prefix_len() > 0 && range.addr().is_loopback())
        }
        NodePortSelection::AnyOf(selections) => selections.iter().any(selects_loopback),
    }
}
