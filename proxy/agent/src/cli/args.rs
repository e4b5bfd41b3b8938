//! The flags of each command, under kube-proxy's names where it has them (contract CFG-4).

use std::path::PathBuf;

use clap::{ArgAction, Args};

const RUN_EXAMPLES: &str = "\
Examples:
  In a pod on each node, with the pod's service account:
      portway run --master https://192.0.2.10:6443 --cluster-cidr 10.244.0.0/16
  On a node, with a kubeconfig:
      portway run --kubeconfig /etc/kubernetes/kube-proxy.conf --hostname-override node-1
  Without a cluster, from a folder of YAML or JSON files that may change at any time:
      portway run --manifests /etc/portway/manifests

The rules stay in the kernel when portway ends; portway cleanup removes them.

One portway runs in each network namespace. A second one names the first and ends with status 1; for one that is ending \
it waits, up to 15 s.";

const RENDER_EXAMPLES: &str = "\
Examples:
      portway render -f service.yaml -f slices.yaml
      kubectl get services,endpointslices,nodes -A -o yaml | portway render --node node-1 -f - | nft -c -f -";

const MASKING: &str = "Masking (equal values stay equal within one file; the key is random and not stored)";

const RECORD_EXAMPLES: &str = "\
Examples:
      portway record --kubeconfig ~/.kube/config --hostname-override node-1 --out cluster.trace
      portway record --kubeconfig ~/.kube/config --mask --duration 1h --out cluster.trace.gz

The file holds JSON lines: a header, each object that exists at the start, then each change with its time. It contains \
Services, EndpointSlices, this node's Node and ServiceCIDRs, with only the fields that a service proxy reads: no labels, \
annotations, selectors or owners except those that decide where traffic goes.

Masking keeps which object belongs to which, how many there are of each, ports and all other numbers, times, policies \
and conditions. Of addresses it keeps the family and the length of the prefix that two of them share, so an address \
stays inside its range. Unspecified, loopback, link-local and multicast addresses are not changed, nor are the first two \
to six bits of any other address. Masking loses the order of names and of addresses.";

/// The flags of `portway run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES, after_long_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) mode: ModeArg,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
    #[command(flatten)]
    pub(crate) observation: ObservationArgs,
}

/// The flags that select and configure the dataplane.
#[derive(Debug, Args)]
pub(crate) struct ModeArg {
    /// Which kernel mechanism programs Services: nftables or iptables. After its first sync, portway removes the rules
    /// of the other mode.
    #[arg(long, alias = "proxy-mode", value_name = "MODE", default_value = "nftables", help_heading = "Dataplane")]
    pub(crate) mode: String,
    /// iptables mode: serve NodePorts on 127.0.0.0/8 too, if --nodeport-addresses allows it [default: true].
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        hide_default_value = true,
        default_missing_value = "true",
        hide_possible_values = true,
        action = ArgAction::Set,
        help_heading = "Dataplane"
    )]
    pub(crate) iptables_localhost_nodeports: bool,
    /// iptables mode: how KUBE-SERVICES finds the Service of a packet: list (one long chain), tree (short chains), or
    /// auto, which is a list up to 64 rules and a tree above.
    #[arg(long, value_name = "FORM", default_value = "auto", help_heading = "Dataplane")]
    pub(crate) iptables_dispatch: String,
}

/// The flags that select the source of Services.
#[derive(Debug, Args)]
#[command(next_help_heading = "Source of Services (default: the API server, with the pod's service account)")]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// Folder of YAML or JSON files with Services, EndpointSlices, Nodes and Lists, watched for changes. It replaces
    /// the API server.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "master"])]
    pub(crate) manifests: Option<PathBuf>,
}

/// The flags that name the API server.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Kubeconfig file with the address and credentials of the API server.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<String>,
    /// Address of the API server. It overrides the kubeconfig's; without a kubeconfig, an https address is given the pod's
    /// service account. A pod that replaces kube-proxy needs it: KUBERNETES_SERVICE_HOST is a cluster IP, which nothing
    /// serves yet.
    #[arg(long, value_name = "URL")]
    pub(crate) master: Option<String>,
}

/// The flags that describe this node.
#[derive(Debug, Args)]
#[command(next_help_heading = "This node")]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) name: NameArg,
    /// Address of this node, instead of the Node object's. 0.0.0.0 and :: mean the Node object's.
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub(crate) bind_address: String,
}

/// The flag that names this node.
#[derive(Debug, Args)]
pub(crate) struct NameArg {
    /// Name of this node's Node object [default: $NODE_NAME, else the host name].
    #[arg(long, alias = "node", value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,
}

/// The flags that decide how traffic is treated.
#[derive(Debug, Args)]
#[command(next_help_heading = "Traffic")]
pub(crate) struct TrafficArgs {
    /// Pod address range of the cluster, or one IPv4 and one IPv6 range separated by a comma.
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "", hide_default_value = true)]
    pub(crate) cluster_cidr: String,
    /// How to recognize traffic from pods of this node: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix
    /// [default: ClusterCIDR if --cluster-cidr is given, else none].
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    pub(crate) detect_local_mode: String,
    /// Bridge interface of this node's pods, for BridgeInterface.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) pod_bridge_interface: String,
    /// Common prefix of the names of this node's pod interfaces, for InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(crate) pod_interface_name_prefix: String,
    /// Masquerade all traffic to cluster IPs, so that it has the node's source address.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        hide_default_value = true,
        default_missing_value = "true",
        hide_possible_values = true,
        action = ArgAction::Set
    )]
    pub(crate) masquerade_all: bool,
    /// Refuse packets to ports that no Service has at a load balancer's or external IP, instead of sending them back to
    /// the router. Switch it off if somebody else listens at such an address behind this node [default: true].
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        hide_default_value = true,
        default_missing_value = "true",
        hide_possible_values = true,
        action = ArgAction::Set
    )]
    pub(crate) refuse_unknown_ports: bool,
    /// Bit of the packet mark that requests masquerading, 0 to 31.
    #[arg(long, alias = "iptables-masquerade-bit", value_name = "N", default_value = "14")]
    pub(crate) masquerade_bit: String,
    /// Addresses of this node that serve NodePorts: ranges, primary (the Node object's addresses), all, and in iptables
    /// mode localhost, separated by commas [default: primary; in iptables mode all].
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',')]
    pub(crate) nodeport_addresses: Vec<String>,
}

/// The flags that decide how often the kernel is written and audited.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pacing (durations like 30s, 1m30s, 100ms)")]
pub(crate) struct PacingArgs {
    /// How often to audit the kernel's rules and repair them, and the longest wait between retries.
    #[arg(
        long,
        aliases = ["iptables-sync-period", "ipvs-sync-period"],
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub(crate) sync_period: String,
    /// Shortest time from the end of one sync to the start of the next. A sync after a pause is never delayed.
    #[arg(
        long,
        aliases = ["iptables-min-sync-period", "ipvs-min-sync-period"],
        value_name = "DURATION",
        default_value = super::settings::DEFAULT_MIN_SYNC_PERIOD
    )]
    pub(crate) min_sync_period: String,
}

/// The flags of metrics and logs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Observation")]
pub(crate) struct ObservationArgs {
    /// Address and port of the metrics page; the port defaults to 10249. Empty disables it.
    #[arg(long, value_name = "IP[:PORT]", default_value = "127.0.0.1:10249")]
    pub(crate) metrics_bind_address: String,
    /// Format of the log on standard error: text or json.
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) logging_format: String,
    /// Log verbosity, 0 to 10: 0 logs what operators need, 2 adds each sync, 4 and above is for developers.
    #[arg(short, long = "v", value_name = "N", default_value = "0")]
    pub(crate) verbosity: String,
}

/// The flags of `portway render`.
#[derive(Debug, Args)]
#[command(after_help = RENDER_EXAMPLES, after_long_help = RENDER_EXAMPLES)]
pub(crate) struct RenderArgs {
    /// YAML or JSON file with Services, EndpointSlices, Nodes and Lists, a folder of such files, or - for standard
    /// input.
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) mode: ModeArg,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
}

/// The flags of `portway record`.
#[derive(Debug, Args)]
#[command(after_help = RECORD_EXAMPLES, after_long_help = RECORD_EXAMPLES)]
pub(crate) struct RecordArgs {
    /// File to write, compressed if its name ends in .gz; - for standard output. An earlier file of this name is
    /// replaced once all objects are listed, not before.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) out: PathBuf,
    /// How long to record after all objects are listed, such as 10m [default: until Ctrl-C or SIGTERM].
    #[arg(long, value_name = "DURATION")]
    pub(crate) duration: Option<String>,
    #[command(flatten, next_help_heading = "API server (default: this pod's, with its service account)")]
    pub(crate) api: ApiArgs,
    #[command(flatten, next_help_heading = "The Node to record, which is the proxy's own node in a replay")]
    pub(crate) name: NameArg,
    /// Mask both names and addresses.
    #[arg(long, help_heading = MASKING)]
    pub(crate) mask: bool,
    /// Replace each name of a namespace, object, port, zone and host with a meaningless one.
    #[arg(long, help_heading = MASKING)]
    pub(crate) mask_names: bool,
    /// Replace each address and range with another of the same family and length. Names such as ip-10-0-0-1 are kept
    /// unless --mask-names is given.
    #[arg(long, help_heading = MASKING)]
    pub(crate) mask_addresses: bool,
}

/// The flags of `portway cleanup`.
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    /// Remove only the rules of this mode [default: all modes].
    #[arg(long, alias = "proxy-mode", value_name = "MODE")]
    pub(crate) mode: Option<String>,
}
