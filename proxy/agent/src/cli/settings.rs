//! Validates flags and turns them into settings (contract CFG-8).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use portway_dataplane::{Mode, iptables};
use portway_model::{Config, DetectLocal, Family, NodePortSelection};

use super::args::{ApiArgs, ModeArg, NameArg, NodeArgs, ObservationArgs, PacingArgs, SourceArgs, TrafficArgs};
use super::failure::Failure;
use crate::config::duration;
use crate::drivers::{self, DRIVERS, Driver, Options};
use crate::logging::Format;
use crate::sync::Pacing;

/// The default of --min-sync-period.
///
/// kube-proxy's is 1 s, because it rewrites every rule at each sync. Here a sync costs as much as has changed, and a
/// first sync after a pause is never delayed. So this only joins the changes of a rolling update or a burst, at a delay
/// that nobody notices.
pub(crate) const DEFAULT_MIN_SYNC_PERIOD: &str = "10ms";

/// The port of the metrics page if the address has none.
const METRICS_PORT: u16 = 10249;

/// The source of Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The API server of a cluster.
    Api {
        /// Path of the kubeconfig file, if one is given.
        kubeconfig: Option<PathBuf>,
        /// Address that overrides the kubeconfig's, if one is given.
        master: Option<String>,
    },
    /// A folder of manifest files.
    Manifests(PathBuf),
}

fn bad(sentence: String) -> Failure {
    Failure::BadInput(sentence)
}

/// The mode's driver and the options of all modes.
pub(crate) struct Setup {
    /// The driver of the requested mode.
    pub(crate) driver: &'static Driver,
    /// The options of all modes, of which the driver reads its own.
    pub(crate) options: Options,
}

/// Finds the driver that --mode names. An empty name is the default, as in kube-proxy.
pub(crate) fn driver(text: &str) -> Result<&'static Driver, Failure> {
    let text = if text.is_empty() { DRIVERS[0].mode.as_str() } else { text };
    let built = || DRIVERS.each_ref().map(|driver| driver.mode.as_str()).join(" or ");
    let Some(mode) = Mode::ALL.into_iter().find(|mode| mode.as_str() == text) else {
        return Err(bad(format!("--mode {text:?} is not known; use {}", built())));
    };
    drivers::find(mode)
        .ok_or_else(|| bad(format!("--mode {mode}: this version has no {mode} dataplane yet; use {}", built())))
}

/// Parses the flags of the mode and the options of all modes.
pub(crate) fn setup(args: &ModeArg) -> Result<Setup, Failure> {
    let driver = driver(&args.mode)?;
    let mut iptables = iptables::Config::default();
    iptables.options.localhost_node_ports = args.iptables_localhost_nodeports;
    iptables.tree_above = match args.iptables_dispatch.as_str() {
        "auto" | "" => Some(iptables::TREE_ABOVE),
        "list" => None,
        "tree" => Some(0),
        other => {
            return Err(bad(format!("--iptables-dispatch {other:?} is not known; use auto, list or tree")));
        }
    };
    Ok(Setup { driver, options: Options { iptables } })
}

/// Parses the flags that select the source of Services.
pub(crate) fn source(args: &SourceArgs) -> Result<Source, Failure> {
    if let Some(folder) = &args.manifests {
        return match std::fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => Ok(Source::Manifests(folder.clone())),
            Ok(_) => Err(bad(format!("--manifests {}: not a folder", folder.display()))),
            Err(error) => Err(bad(format!("--manifests {}: {error}", folder.display()))),
        };
    }
    let (kubeconfig, master) = api(&args.api)?;
    Ok(Source::Api { kubeconfig, master })
}

/// Parses the flags of the API server: a kubeconfig file and an address, both optional.
pub(crate) fn api(args: &ApiArgs) -> Result<(Option<PathBuf>, Option<String>), Failure> {
    // kube-proxy treats empty values like missing ones.
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let master = given(&args.master);
    if let Some(master) = &master {
        let (scheme, host) = master.split_once("://").unwrap_or_default();
        if !matches!(scheme, "http" | "https") || host.trim_matches('/').is_empty() {
            return Err(bad(format!("--master {master:?}: not an address like https://host:6443")));
        }
    }
    let kubeconfig = given(&args.kubeconfig).map(PathBuf::from);
    if let Some(file) = &kubeconfig
        && let Err(error) = std::fs::metadata(file)
    {
        return Err(bad(format!("--kubeconfig {}: {error}", file.display())));
    }
    Ok((kubeconfig, master))
}

/// Parses --hostname-override: trimmed and in lower case (contract CFG-5), or `None` if it is not given.
pub(crate) fn given_node_name(args: &NameArg) -> Result<Option<String>, Failure> {
    let Some(given) = &args.hostname_override else { return Ok(None) };
    let name = given.trim().to_lowercase();
    if name.is_empty() {
        return Err(bad("empty hostname-override is invalid: --hostname-override needs the name of a Node".to_owned()));
    }
    Ok(Some(name))
}

/// The node's name if --hostname-override is not given: $NODE_NAME, else the host name.
pub(crate) fn default_node_name() -> Result<String, Failure> {
    let from_environment = std::env::var("NODE_NAME").unwrap_or_default();
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = if from_environment.trim().is_empty() { host() } else { from_environment };
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        return Err(bad("this host has no name: give the Node's with --hostname-override".to_owned()));
    }
    Ok(name)
}

/// Builds the model's configuration from the flags.
pub(crate) fn config(
    driver: &Driver,
    node_name: String,
    node: &NodeArgs,
    traffic: &TrafficArgs,
) -> Result<Config, Failure> {
    Ok(Config {
        node_name,
        masquerade_all: traffic.masquerade_all,
        refuse_unknown_ports: traffic.refuse_unknown_ports,
        masquerade_bit: masquerade_bit(&traffic.masquerade_bit)?,
        detect_local: detect_local(traffic)?,
        node_port_addresses: node_port_addresses(driver, &traffic.nodeport_addresses)?,
        node_ips: node_ips(&node.bind_address)?,
        ..Config::default()
    })
}

fn masquerade_bit(text: &str) -> Result<u8, Failure> {
    match text.parse() {
        Ok(bit) if bit <= 31 => Ok(bit),
        _ => Err(bad(format!("--masquerade-bit {text:?}: not a number from 0 to 31"))),
    }
}

fn node_ips(text: &str) -> Result<Vec<IpAddr>, Failure> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Ok(Vec::new()),
        Ok(address) => Ok(vec![address]),
        Err(_) => Err(bad(format!("--bind-address {text:?}: not an IP address"))),
    }
}

fn range(flag: &str, text: &str) -> Result<IpNet, Failure> {
    match text.trim().parse::<IpNet>() {
        Ok(range) => Ok(range.trunc()),
        Err(_) => Err(bad(format!("{flag} {text:?}: not an address range like 10.244.0.0/16 or fd00:244::/48"))),
    }
}

fn cluster_cidrs(text: &str) -> Result<Vec<IpNet>, Failure> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let ranges = text.split(',').map(|part| range("--cluster-cidr", part)).collect::<Result<Vec<_>, _>>()?;
    let family = |range: &IpNet| Family::of(range.addr());
    match ranges.as_slice() {
        [_] => Ok(ranges),
        [one, other] if family(one) != family(other) => Ok(ranges),
        [one, _] => Err(bad(format!(
            "--cluster-cidr {text:?}: both ranges are {}; give one range, or one of each",
            family(one)
        ))),
        _ => Err(bad(format!("--cluster-cidr {text:?}: more than two ranges; give one, or one of each family"))),
    }
}

fn detect_local(args: &TrafficArgs) -> Result<DetectLocal, Failure> {
    let cidrs = cluster_cidrs(&args.cluster_cidr)?;
    let interface = |flag: &str, name: &str| match name {
        "" => Err(bad(format!("--detect-local-mode {}: {flag} is needed with it", args.detect_local_mode))),
        // The kernel's IFNAMSIZ, less the closing zero.
        name if name.len() > 15 => {
            Err(bad(format!("{flag} {name:?}: longer than an interface name can be (15 bytes)")))
        }
        name => Ok(name.to_owned()),
    };
    match args.detect_local_mode.as_str() {
        "" | "ClusterCIDR" if cidrs.is_empty() => Ok(DetectLocal::None),
        "" | "ClusterCIDR" => Ok(DetectLocal::ClusterCidr(cidrs)),
        "NodeCIDR" => Ok(DetectLocal::NodeCidr),
        "BridgeInterface" => {
            interface("--pod-bridge-interface", &args.pod_bridge_interface).map(DetectLocal::BridgeInterface)
        }
        "InterfaceNamePrefix" => interface("--pod-interface-name-prefix", &args.pod_interface_name_prefix)
            .map(DetectLocal::InterfaceNamePrefix),
        other => Err(bad(format!(
            "--detect-local-mode {other:?} is not known; use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix"
        ))),
    }
}

/// Parses --nodeport-addresses (contract NP-1, NP-5).
fn node_port_addresses(driver: &Driver, values: &[String]) -> Result<NodePortSelection, Failure> {
    let mut selections = Vec::new();
    let mut ranges = Vec::new();
    for value in values.iter().map(|value| value.trim()).filter(|value| !value.is_empty()) {
        match value {
            "primary" => selections.push(NodePortSelection::Primary),
            "all" => selections.push(NodePortSelection::All),
            "localhost" if driver.takes_localhost => {
                ranges.push(range("--nodeport-addresses", "127.0.0.0/8")?);
            }
            "localhost" => {
                let why = "NodePorts are not served on loopback in this mode";
                return Err(bad(format!("--nodeport-addresses localhost: {why}; use ranges, primary or all")));
            }
            value if value.contains('/') => ranges.push(range("--nodeport-addresses", value)?),
            value => {
                return Err(bad(format!("--nodeport-addresses {value:?}: not an address range, primary or all")));
            }
        }
    }
    if !ranges.is_empty() {
        selections.push(NodePortSelection::Cidrs(ranges));
    }
    selections.dedup();
    Ok(match selections.len() {
        0 => driver.node_ports.clone(),
        1 => selections.remove(0),
        _ => NodePortSelection::AnyOf(selections),
    })
}

/// Parses the sync periods (contract CFG-8).
pub(crate) fn pacing(args: &PacingArgs) -> Result<Pacing, Failure> {
    let read = |flag: &str, text: &str| -> Result<Duration, Failure> {
        duration::parse(text).map_err(|error| bad(format!("{flag} {text:?}: {error}")))
    };
    let sync_period = read("--sync-period", &args.sync_period)?;
    let min_sync_period = read("--min-sync-period", &args.min_sync_period)?;
    if sync_period.is_zero() {
        return Err(bad("--sync-period must be longer than 0".to_owned()));
    }
    if min_sync_period > sync_period {
        let (min, max) = (&args.min_sync_period, &args.sync_period);
        return Err(bad(format!("--min-sync-period {min} must not be longer than --sync-period {max}")));
    }
    Ok(Pacing { sync_period, min_sync_period })
}

/// Parses the address of the metrics page; `None` if it is disabled (contract CFG-2, CFG-8).
pub(crate) fn metrics_address(args: &ObservationArgs) -> Result<Option<SocketAddr>, Failure> {
    let text = args.metrics_bind_address.as_str();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(Some(SocketAddr::new(address, METRICS_PORT)));
    }
    // As in Go, a port alone means every address.
    if let Some(Ok(port)) = text.strip_prefix(':').map(str::parse) {
        return Ok(Some(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)));
    }
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(bad(format!("--metrics-bind-address {text:?}: not an address like 127.0.0.1:10249"))),
    }
}

/// Parses the format of the log.
pub(crate) fn log_format(args: &ObservationArgs) -> Result<Format, Failure> {
    match args.logging_format.as_str() {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        other => Err(bad(format!("--logging-format {other:?} is not known; use text or json"))),
    }
}

/// Parses the log verbosity.
pub(crate) fn verbosity(args: &ObservationArgs) -> Result<u8, Failure> {
    match args.verbosity.parse() {
        Ok(verbosity) if verbosity <= 10 => Ok(verbosity),
        _ => Err(bad(format!("-v {:?}: not a number from 0 to 10", args.verbosity))),
    }
}

/// Warns of flags that are valid but probably not intended, in one sentence each (contract CFG-13, NFT-18).
pub(crate) fn warnings(setup: &Setup, traffic: &TrafficArgs, config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.detect_local == DetectLocal::None {
        let mode = &traffic.detect_local_mode;
        warnings.push(if mode.is_empty() {
            "neither --cluster-cidr nor --detect-local-mode is given: traffic from pods is not recognized, so pods that \
             use a load balancer or external address with externalTrafficPolicy Local are treated as external clients"
                .to_owned()
        } else {
            format!("--detect-local-mode {mode} without --cluster-cidr has no effect")
        });
    } else if !matches!(config.detect_local, DetectLocal::ClusterCidr(_)) && !traffic.cluster_cidr.is_empty() {
        warnings.push(format!("--cluster-cidr has no effect with --detect-local-mode {}", traffic.detect_local_mode));
    }
    if !(setup.driver.serves_loopback)(&setup.options) && selects_loopback(&config.node_port_addresses) {
        warnings.push(
            "--nodeport-addresses covers loopback addresses, but NodePorts are not served on loopback in this mode"
                .to_owned(),
        );
    }
    warnings
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
