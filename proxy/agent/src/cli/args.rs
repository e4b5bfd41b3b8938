//! The flags of each command, under kube-proxy's names where it has them (contract CFG-4).

use std::path::PathBuf;

use clap::{ArgAction, Args};

const RUN_EXAMPLES: &str = "\
Examples:
  In a pod on each node, with the pod's service account:
      portway run --cluster-cidr 10.244.0.0/16
  Beside the cluster, with a kubeconfig, as this node:
      portway run --kubeconfig /etc/kubernetes/kube-proxy.conf --hostname-override node-1
  Without any cluster, from a folder of YAML or JSON files that may change at any time:
      portway run --manifests /etc/portway/manifests

What is in the kernel stays when portway ends; portway cleanup removes it.";

const RENDER_EXAMPLES: &str = "\
Examples:
      portway render -f service.yaml -f slices.yaml
      kubectl get services,endpointslices,nodes -A -o yaml | portway render --node node-1 -f - | nft -c -f -";

const MASKING: &str = "Masking (the same becomes the same within one file; the key is random and not kept)";

const RECORD_EXAMPLES: &str = "\
Examples:
      portway record --kubeconfig ~/.kube/config --hostname-override node-1 --out cluster.trace
      portway record --kubeconfig ~/.kube/config --mask --duration 1h --out cluster.trace.gz

The file holds JSON lines: a header, each object that there was at the start, then each change with its time. Recorded \
are Services, EndpointSlices, this node's Node and ServiceCIDRs, and of them only the fields that a service proxy reads: \
no labels, annotations, selectors or owners but those that decide where traffic goes.

What masking keeps: which object belongs to which; how many there are of each; ports and all other numbers; times, \
policies and states; of addresses the family, and how long a prefix two of them share, so that what lies in a range stays \
in it. Unspecified, loopback, link-local and multicast addresses stay as they are, and so do the first two to six bits of \
any other. What it loses: the order of names and of addresses.";

/// What `portway run` takes.
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

/// Which dataplane.
#[derive(Debug, Args)]
pub(crate) struct ModeArg {
    /// How the kernel is told: nftables or iptables. A start in one mode removes the other's rules once its own stand.
    #[arg(long, alias = "proxy-mode", value_name = "MODE", default_value = "nftables", help_heading = "Dataplane")]
    pub(crate) mode: String,
    /// iptables mode: whether NodePorts answer at 127.0.0.0/8 too, where --nodeport-addresses allows it [default: true].
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
    /// iptables mode: how a packet finds its Service in KUBE-SERVICES: list, tree, or auto, which is a list up to 64
    /// rules and a tree of short chains above.
    #[arg(long, value_name = "FORM", default_value = "auto", help_heading = "Dataplane")]
    pub(crate) iptables_dispatch: String,
}

/// Where Services come from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where Services come from (default: the API server, as a pod's service account)")]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// Folder of YAML or JSON files with Services, EndpointSlices, Nodes and Lists, watched for changes; no API server
    /// is used then.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "master"])]
    pub(crate) manifests: Option<PathBuf>,
}

/// Which API server.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Kubeconfig file to reach the API server with.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<String>,
    /// Address of the API server; overrides the kubeconfig's, or is used without credentials.
    #[arg(long, value_name = "URL")]
    pub(crate) master: Option<String>,
}

/// Which node this is.
#[derive(Debug, Args)]
#[command(next_help_heading = "This node")]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) name: NameArg,
    /// This node's address, in place of the Node object's; 0.0.0.0 and :: leave the Node object's.
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub(crate) bind_address: String,
}

/// What this node is called.
#[derive(Debug, Args)]
pub(crate) struct NameArg {
    /// Name of this node's Node object [default: $NODE_NAME, else the host name].
    #[arg(long, alias = "node", value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,
}

/// What happens to traffic.
#[derive(Debug, Args)]
#[command(next_help_heading = "Traffic")]
pub(crate) struct TrafficArgs {
    /// Addresses of the cluster's pods: one range, or one IPv4 and one IPv6 range with a comma between.
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "", hide_default_value = true)]
    pub(crate) cluster_cidr: String,
    /// How to tell that a packet comes from a pod of this node: ClusterCIDR, NodeCIDR, BridgeInterface or
    /// InterfaceNamePrefix [default: ClusterCIDR if --cluster-cidr is given, else none].
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    pub(crate) detect_local_mode: String,
    /// The bridge of this node's pods, for BridgeInterface.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) pod_bridge_interface: String,
    /// What the names of this node's pod interfaces begin with, for InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(crate) pod_interface_name_prefix: String,
    /// Replace the source address of all traffic to cluster IPs with the node's.
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
    /// Which bit of the packet mark asks for masquerade, 0 to 31.
    #[arg(long, alias = "iptables-masquerade-bit", value_name = "N", default_value = "14")]
    pub(crate) masquerade_bit: String,
    /// Addresses of this node at which NodePorts answer: ranges, or the words primary (the Node object's addresses),
    /// all, and in iptables mode localhost; several with commas between [default: primary; in iptables mode all].
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',')]
    pub(crate) nodeport_addresses: Vec<String>,
}

/// How often.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pacing (durations like 30s, 1m30s, 100ms)")]
pub(crate) struct PacingArgs {
    /// How often to compare the kernel with what was written, and the longest wait between retries.
    #[arg(
        long,
        aliases = ["iptables-sync-period", "ipvs-sync-period"],
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub(crate) sync_period: String,
    /// Shortest time from the end of one write to the beginning of the next; a write after a pause is never held back.
    #[arg(
        long,
        aliases = ["iptables-min-sync-period", "ipvs-min-sync-period"],
        value_name = "DURATION",
        default_value = super::settings::DEFAULT_MIN_SYNC_PERIOD
    )]
    pub(crate) min_sync_period: String,
}

/// What can be seen of it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Observation")]
pub(crate) struct ObservationArgs {
    /// Where to serve /metrics: address and port, 10249 if none is given; empty for nowhere.
    #[arg(long, value_name = "IP[:PORT]", default_value = "127.0.0.1:10249")]
    pub(crate) metrics_bind_address: String,
    /// Form of the log on standard error: text or json.
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) logging_format: String,
    /// How much to log: 0 only what matters, 2 every write with its figures, 4 and more for developers; up to 10.
    #[arg(short, long = "v", value_name = "N", default_value = "0")]
    pub(crate) verbosity: String,
}

/// What `portway render` takes.
#[derive(Debug, Args)]
#[command(after_help = RENDER_EXAMPLES, after_long_help = RENDER_EXAMPLES)]
pub(crate) struct RenderArgs {
    /// YAML or JSON file with Services, EndpointSlices, Nodes and Lists; a folder stands for the files in it, - for
    /// standard input.
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) mode: ModeArg,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
}

/// What `portway record` takes.
#[derive(Debug, Args)]
#[command(after_help = RECORD_EXAMPLES, after_long_help = RECORD_EXAMPLES)]
pub(crate) struct RecordArgs {
    /// File to write; compressed if its name ends in .gz. - is standard output.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) out: PathBuf,
    /// Ends the recording so long after all objects were listed, in a form like 10m [default: until Ctrl-C or SIGTERM].
    #[arg(long, value_name = "DURATION")]
    pub(crate) duration: Option<String>,
    #[command(flatten, next_help_heading = "API server (default: this pod's, with its service account)")]
    pub(crate) api: ApiArgs,
    #[command(flatten, next_help_heading = "Which Node is recorded, and stands for the proxy's in a playback")]
    pub(crate) name: NameArg,
    /// Mask names and addresses.
    #[arg(long, help_heading = MASKING)]
    pub(crate) mask: bool,
    /// Replace each name of a namespace, object, port, zone and host by a name that says nothing.
    #[arg(long, help_heading = MASKING)]
    pub(crate) mask_names: bool,
    /// Replace each address and range by another of the same family and length. Names like ip-10-0-0-1 stay: mask them too.
    #[arg(long, help_heading = MASKING)]
    pub(crate) mask_addresses: bool,
}

/// What `portway cleanup` takes.
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    /// Remove only what this dataplane put there [default: all of them].
    #[arg(long, alias = "proxy-mode", value_name = "MODE")]
    pub(crate) mode: Option<String>,
}
