//! What portway's layout is compared with: a chain and a map for each Service, loaded by `nft -f`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portway_testbed::apiserver::Synthetic;
use portway_testbed::cluster::Namespace;

/// Endpoints of each Service.
pub(super) const ENDPOINTS: usize = 2;

/// How long `nft -f` takes to load this many Services into an empty namespace.
pub(super) fn load(services: usize) -> Result<Duration> {
    let text = rules(&Synthetic::new(services, ENDPOINTS));
    let namespace = Namespace::new("baseline").context("a network namespace cannot be made (root is needed)")?;
    let start = Instant::now();
    namespace.output("nft", &["-f", "-"], &text).context("nft takes the rules")?;
    Ok(start.elapsed())
}

/// The rules: one verdict map that leads to each Service's chain, whose one rule picks from the Service's map.
fn rules(shape: &Synthetic) -> String {
    let mut text = String::from("table ip baseline {\n");
    for i in 0..shape.services {
        let endpoints: Vec<_> =
            (0..shape.endpoints).map(|e| format!("{e} : {} . 8080", shape.endpoint_address(i, e))).collect();
        let (count, endpoints) = (shape.endpoints, endpoints.join(", "));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            " map endpoints-{i} {{ typeof numgen random mod {count} : ip daddr . tcp dport; elements = {{ {endpoints} }}; }}\n \
             chain service-{i} {{ meta l4proto tcp dnat ip to numgen random mod {count} map @endpoints-{i}; }}"
        );
    }
    let services: Vec<_> =
        (0..shape.services).map(|i| format!("{} . tcp . 80 : goto service-{i}", shape.cluster_ip(i))).collect();
    let _ = write!(
        text,
        " map services {{ typeof ip daddr . meta l4proto . th dport : verdict; elements = {{ {} }}; }}\n \
         chain services {{ ip daddr . meta l4proto . th dport vmap @services; }}\n \
         chain prerouting {{ type nat hook prerouting priority -100; jump services; }}\n \
         chain output {{ type nat hook output priority -100; jump services; }}\n}}\n",
        services.join(", ")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nft_takes_the_rules() {
        if let Some(lacking) = portway_testbed::missing() {
            println!("SKIPPED nft_takes_the_rules: needs {lacking}");
            return;
        }
        let took = load(20).expect("nft takes the rules");
        assert!(took > Duration::ZERO);
    }
}
