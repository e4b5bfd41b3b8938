//! The table of flags. Names, defaults and deprecations of kube-proxy's are those of its version 1.36 on Linux.

use super::given::Version;
use super::parse::{duration, extend, gates, number, qps, switch, verbosity, vmodule};
use super::{BesideConfig, Commands, Flag, Given, Value};

const CONFIGURATION: &str = "Configuration";
const DATAPLANE: &str = "Dataplane";
const SOURCE: &str = "Source of Services (default: the API server, with the pod's service account)";
const NODE: &str = "This node";
const TRAFFIC: &str = "Traffic";
const PACING: &str = "Pacing (durations like 30s, 1m30s, 100ms)";
const OBSERVATION: &str = "Health, metrics and log";
const KERNEL: &str = "Kernel and process";
const IPVS: &str = "IPVS mode, which this version does not have: checked and kept";
const WITHOUT_EFFECT: &str = "Taken for kube-proxy's sake, without effect";

/// A flag of kube-proxy.
const fn theirs(
    heading: &'static str,
    name: &'static str,
    value: Value,
    default: &'static str,
    fields: &'static [&'static str],
    help: &'static str,
    set: fn(&mut Given, &str) -> Result<(), String>,
) -> Flag {
    Flag {
        name,
        value,
        default,
        help,
        heading,
        fields,
        kube_proxy: true,
        commands: Commands::Run,
        beside_config: BesideConfig::Overridden,
        deprecated: None,
        set,
    }
}

/// A flag of portway.
const fn ours(
    heading: &'static str,
    name: &'static str,
    value: Value,
    default: &'static str,
    fields: &'static [&'static str],
    help: &'static str,
    set: fn(&mut Given, &str) -> Result<(), String>,
) -> Flag {
    Flag { kube_proxy: false, ..theirs(heading, name, value, default, fields, help, set) }
}

impl Flag {
    const fn on(self, commands: Commands) -> Self {
        Self { commands, ..self }
    }

    const fn counts(self) -> Self {
        Self { beside_config: BesideConfig::Counts, ..self }
    }

    const fn deprecated(self, instead: &'static str) -> Self {
        Self { deprecated: Some(instead), ..self }
    }
}

/// Stores a value that is checked later, with those of the file.
fn text(field: &mut Option<String>, value: &str) -> Result<(), String> {
    *field = Some(value.to_owned());
    Ok(())
}

/// Stores what a parser makes of the value.
fn store<T>(field: &mut Option<T>, parsed: Result<T, String>) -> Result<(), String> {
    *field = Some(parsed?);
    Ok(())
}

/// Every flag, in the order of help.
pub(crate) static FLAGS: &[Flag] = &[
    theirs(
        CONFIGURATION,
        "config",
        Value::One("FILE"),
        "",
        &[],
        "Configuration file: KubeProxyConfiguration as YAML or JSON, and PortwayConfiguration as a second YAML document. \
         It overrides the flags, but for --hostname-override, --master, those of the log and portway's own. When it \
         changes, portway ends with an error so that it is restarted",
        |given, value| text(&mut given.config, value),
    )
    .counts(),
    theirs(
        CONFIGURATION,
        "write-config-to",
        Value::One("FILE"),
        "",
        &[],
        "Write the configuration, with all defaults, to this file and end",
        |given, value| text(&mut given.write_config_to, value),
    )
    .counts(),
    theirs(
        CONFIGURATION,
        "feature-gates",
        Value::One("NAME=BOOL,…"),
        "",
        &["featureGates"],
        "Feature gates of Kubernetes to switch on or off. A name that Kubernetes does not have is refused",
        |given, value| gates(&mut given.documents.kube_proxy.feature_gates, value),
    ),
    theirs(
        CONFIGURATION,
        "cleanup",
        Value::Switch,
        "false",
        &[],
        "Remove the rules of all modes and of kube-proxy, and end, as portway cleanup does",
        |given, value| {
            given.cleanup = switch(value)?;
            Ok(())
        },
    )
    .counts(),
    theirs(
        CONFIGURATION,
        "init-only",
        Value::Switch,
        "false",
        &[],
        "Make the settings of the node that need all rights, and end: for an init container, so that portway itself runs \
         with fewer",
        |given, value| {
            given.init_only = switch(value)?;
            Ok(())
        },
    )
    .counts(),
    theirs(CONFIGURATION, "version", Value::Switch, "false", &[], "Print the version and end", |given, value| {
        given.version = match value {
            "raw" => Some(Version::Raw),
            value => switch(value)?.then_some(Version::Line),
        };
        Ok(())
    })
    .counts(),
    ours(
        DATAPLANE,
        "mode",
        Value::One("MODE"),
        "nftables",
        &["mode"],
        "Which kernel mechanism programs Services: nftables or iptables. After its first sync, portway removes the rules \
         of the other mode and of kube-proxy",
        |given, value| text(&mut given.documents.kube_proxy.mode, value),
    )
    .on(Commands::RunAndRender),
    theirs(
        DATAPLANE,
        "proxy-mode",
        Value::One("MODE"),
        "nftables",
        &["mode"],
        "The same as --mode. An empty one means nftables, where it means iptables in kube-proxy 1.36",
        |given, value| text(&mut given.documents.kube_proxy.mode, value),
    )
    .on(Commands::RunAndRender),
    theirs(
        DATAPLANE,
        "iptables-localhost-nodeports",
        Value::Switch,
        "true",
        &["iptables.localhostNodePorts"],
        "iptables mode: serve NodePorts on 127.0.0.0/8 too, if --nodeport-addresses allows it",
        |given, value| store(&mut given.documents.kube_proxy.iptables.localhost_node_ports, switch(value)),
    )
    .on(Commands::RunAndRender),
    ours(
        DATAPLANE,
        "iptables-dispatch",
        Value::One("FORM"),
        "auto",
        &["portway.iptablesDispatch"],
        "iptables mode: how KUBE-SERVICES finds the Service of a packet: list (one long chain), tree (short chains), or \
         auto, which is a list up to 64 rules and a tree above",
        |given, value| text(&mut given.documents.portway.iptables_dispatch, value),
    )
    .on(Commands::RunAndRender)
    .counts(),
    theirs(
        SOURCE,
        "kubeconfig",
        Value::One("FILE"),
        "",
        &["clientConnection.kubeconfig"],
        "Kubeconfig file with the address and credentials of the API server",
        |given, value| text(&mut given.documents.kube_proxy.client_connection.kubeconfig, value),
    )
    .on(Commands::RunAndRecord),
    theirs(
        SOURCE,
        "master",
        Value::One("URL"),
        "",
        &["portway.master"],
        "Address of the API server. It overrides the kubeconfig's; without a kubeconfig, an https address is given the \
         pod's service account. A pod that replaces kube-proxy needs it: KUBERNETES_SERVICE_HOST is a cluster IP, which \
         nothing serves yet",
        |given, value| text(&mut given.documents.portway.master, value),
    )
    .on(Commands::RunAndRecord)
    .counts(),
    theirs(
        SOURCE,
        "kube-api-content-type",
        Value::One("TYPE"),
        "application/vnd.kubernetes.protobuf",
        &["clientConnection.contentType"],
        "Content type to ask the API server for",
        |given, value| text(&mut given.documents.kube_proxy.client_connection.content_type, value),
    ),
    theirs(
        SOURCE,
        "kube-api-qps",
        Value::One("N"),
        "5",
        &["clientConnection.qps"],
        "Requests to the API server in a second",
        |given, value| store(&mut given.documents.kube_proxy.client_connection.qps, qps(value)),
    ),
    theirs(
        SOURCE,
        "kube-api-burst",
        Value::One("N"),
        "10",
        &["clientConnection.burst"],
        "Requests to the API server that may come at once",
        |given, value| store(&mut given.documents.kube_proxy.client_connection.burst, number(value)),
    ),
    ours(
        SOURCE,
        "manifests",
        Value::One("DIR"),
        "",
        &["portway.manifests"],
        "Folder of YAML or JSON files with Services, EndpointSlices, Nodes and Lists, watched for changes. It replaces \
         the API server",
        |given, value| text(&mut given.documents.portway.manifests, value),
    )
    .counts(),
    theirs(
        NODE,
        "hostname-override",
        Value::One("NAME"),
        "$NODE_NAME, else the host name",
        &["hostnameOverride"],
        "Name of this node's Node object",
        |given, value| text(&mut given.documents.kube_proxy.hostname_override, value),
    )
    .on(Commands::All)
    .counts(),
    theirs(
        NODE,
        "bind-address",
        Value::One("IP"),
        "0.0.0.0",
        &["bindAddress"],
        "Address of this node, instead of the Node object's. 0.0.0.0 and :: mean the Node object's",
        |given, value| text(&mut given.documents.kube_proxy.bind_address, value),
    )
    .on(Commands::RunAndRender),
    theirs(
        TRAFFIC,
        "cluster-cidr",
        Value::One("CIDR[,CIDR]"),
        "",
        &["clusterCIDR"],
        "Pod address range of the cluster, or one IPv4 and one IPv6 range separated by a comma",
        |given, value| text(&mut given.documents.kube_proxy.cluster_cidr, value),
    )
    .on(Commands::RunAndRender),
    theirs(
        TRAFFIC,
        "detect-local-mode",
        Value::One("MODE"),
        "ClusterCIDR",
        &["detectLocalMode"],
        "How to recognize traffic from pods of this node: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
        |given, value| text(&mut given.documents.kube_proxy.detect_local_mode, value),
    )
    .on(Commands::RunAndRender),
    theirs(
        TRAFFIC,
        "pod-bridge-interface",
        Value::One("NAME"),
        "",
        &["detectLocal.bridgeInterface"],
        "Bridge interface of this node's pods, for BridgeInterface",
        |given, value| text(&mut given.documents.kube_proxy.detect_local.bridge_interface, value),
    )
    .on(Commands::RunAndRender),
    theirs(
        TRAFFIC,
        "pod-interface-name-prefix",
        Value::One("PREFIX"),
        "",
        &["detectLocal.interfaceNamePrefix"],
        "Common prefix of the names of this node's pod interfaces, for InterfaceNamePrefix",
        |given, value| text(&mut given.documents.kube_proxy.detect_local.interface_name_prefix, value),
    )
    .on(Commands::RunAndRender),
    theirs(
        TRAFFIC,
        "masquerade-all",
        Value::Switch,
        "false",
        &["iptables.masqueradeAll", "nftables.masqueradeAll"],
        "Masquerade all traffic to cluster IPs, so that it has the node's source address",
        |given, value| {
            let config = &mut given.documents.kube_proxy;
            config.iptables.masquerade_all = Some(switch(value)?);
            config.nftables.masquerade_all = config.iptables.masquerade_all;
            Ok(())
        },
    )
    .on(Commands::RunAndRender),
    ours(
        TRAFFIC,
        "refuse-unknown-ports",
        Value::Switch,
        "true",
        &["portway.refuseUnknownPorts"],
        "Refuse packets to ports that no Service has at a load balancer's or external IP, instead of sending them back to \
         the router. Switch it off if somebody else listens at such an address behind this node",
        |given, value| store(&mut given.documents.portway.refuse_unknown_ports, switch(value)),
    )
    .on(Commands::RunAndRender)
    .counts(),
    ours(
        TRAFFIC,
        "masquerade-bit",
        Value::One("N"),
        "14",
        &["iptables.masqueradeBit", "nftables.masqueradeBit"],
        "Bit of the packet mark that requests masquerading, 0 to 31",
        masquerade_bit,
    )
    .on(Commands::RunAndRender),
    theirs(
        TRAFFIC,
        "iptables-masquerade-bit",
        Value::One("N"),
        "14",
        &["iptables.masqueradeBit", "nftables.masqueradeBit"],
        "The same as --masquerade-bit",
        masquerade_bit,
    )
    .on(Commands::RunAndRender),
    theirs(
        TRAFFIC,
        "nodeport-addresses",
        Value::List("CIDR,…"),
        "primary; in iptables mode all",
        &["nodePortAddresses"],
        "Addresses of this node that serve NodePorts: ranges, primary (the Node object's addresses), all, and in iptables \
         mode localhost, separated by commas",
        |given, value| {
            extend(&mut given.documents.kube_proxy.node_port_addresses, value);
            Ok(())
        },
    )
    .on(Commands::RunAndRender),
    ours(
        PACING,
        "sync-period",
        Value::One("DURATION"),
        "30s",
        &["iptables.syncPeriod", "nftables.syncPeriod", "ipvs.syncPeriod"],
        "How often to audit the kernel's rules and repair them, and the longest wait between retries",
        |given, value| {
            let period = Some(duration(value)?);
            let config = &mut given.documents.kube_proxy;
            (config.iptables.sync_period, config.nftables.sync_period, config.ipvs.sync_period) =
                (period, period, period);
            Ok(())
        },
    ),
    ours(
        PACING,
        "min-sync-period",
        Value::One("DURATION"),
        "portway's own pacing",
        &["iptables.minSyncPeriod", "nftables.minSyncPeriod", "ipvs.minSyncPeriod"],
        "Shortest time from the end of one sync to the start of the next. A sync after a pause is never delayed",
        |given, value| {
            let period = Some(duration(value)?);
            let config = &mut given.documents.kube_proxy;
            (config.iptables.min_sync_period, config.nftables.min_sync_period, config.ipvs.min_sync_period) =
                (period, period, period);
            Ok(())
        },
    ),
    theirs(
        PACING,
        "iptables-sync-period",
        Value::One("DURATION"),
        "30s",
        &["iptables.syncPeriod", "nftables.syncPeriod"],
        "--sync-period in iptables and nftables mode",
        |given, value| {
            let period = Some(duration(value)?);
            given.documents.kube_proxy.iptables.sync_period = period;
            given.documents.kube_proxy.nftables.sync_period = period;
            Ok(())
        },
    ),
    theirs(
        PACING,
        "iptables-min-sync-period",
        Value::One("DURATION"),
        "portway's own pacing; kube-proxy: 1s",
        &["iptables.minSyncPeriod", "nftables.minSyncPeriod"],
        "--min-sync-period in iptables and nftables mode",
        |given, value| {
            let period = Some(duration(value)?);
            given.documents.kube_proxy.iptables.min_sync_period = period;
            given.documents.kube_proxy.nftables.min_sync_period = period;
            Ok(())
        },
    ),
    theirs(
        PACING,
        "config-sync-period",
        Value::One("DURATION"),
        "15m0s",
        &["configSyncPeriod"],
        "Without effect: a watch goes on where it was, and lists again only if it cannot",
        |given, value| store(&mut given.documents.kube_proxy.config_sync_period, duration(value)),
    ),
    theirs(
        OBSERVATION,
        "healthz-bind-address",
        Value::One("IP[:PORT]"),
        "0.0.0.0:10256",
        &["healthzBindAddress"],
        "Address and port of the health server; the port defaults to 10256. Empty disables it",
        |given, value| text(&mut given.documents.kube_proxy.healthz_bind_address, value),
    ),
    theirs(
        OBSERVATION,
        "metrics-bind-address",
        Value::One("IP[:PORT]"),
        "127.0.0.1:10249",
        &["metricsBindAddress"],
        "Address and port of the metrics page; the port defaults to 10249. Empty disables it",
        |given, value| text(&mut given.documents.kube_proxy.metrics_bind_address, value),
    ),
    theirs(
        OBSERVATION,
        "bind-address-hard-fail",
        Value::Switch,
        "false",
        &["bindAddressHardFail"],
        "End if the address of the health or metrics server cannot be bound, instead of trying again",
        |given, value| store(&mut given.documents.kube_proxy.bind_address_hard_fail, switch(value)),
    ),
    theirs(
        OBSERVATION,
        "profiling",
        Value::Switch,
        "false",
        &["enableProfiling"],
        "Serve profiles on the metrics server, under /debug/pprof",
        |given, value| store(&mut given.documents.kube_proxy.enable_profiling, switch(value)),
    ),
    theirs(
        OBSERVATION,
        "show-hidden-metrics-for-version",
        Value::One("VERSION"),
        "",
        &["showHiddenMetricsForVersion"],
        "Show the metrics that were hidden in this version: only 1.35, the one before, which hid none that portway has",
        |given, value| text(&mut given.documents.kube_proxy.show_hidden_metrics_for_version, value),
    ),
    theirs(
        OBSERVATION,
        "logging-format",
        Value::One("FORM"),
        "text",
        &["logging.format"],
        "Format of the log on standard error: text or json",
        |given, value| text(&mut given.documents.kube_proxy.logging.format, value),
    )
    .counts(),
    theirs(
        OBSERVATION,
        "v",
        Value::One("N"),
        "0",
        &["logging.verbosity"],
        "Log verbosity: 0 logs what operators need, 2 adds each sync, 4 and above is for developers; all above 10 are the \
         same as 10",
        |given, value| store(&mut given.documents.kube_proxy.logging.verbosity, verbosity(value)),
    )
    .counts(),
    theirs(
        KERNEL,
        "conntrack-max-per-core",
        Value::One("N"),
        "32768",
        &["conntrack.maxPerCore"],
        "Connections that the kernel tracks for each core; 0 leaves its limit, whatever --conntrack-min says",
        |given, value| store(&mut given.documents.kube_proxy.conntrack.max_per_core, number(value)),
    ),
    theirs(
        KERNEL,
        "conntrack-min",
        Value::One("N"),
        "131072",
        &["conntrack.min"],
        "Connections that the kernel tracks at least, whatever the number of cores",
        |given, value| store(&mut given.documents.kube_proxy.conntrack.min, number(value)),
    ),
    theirs(
        KERNEL,
        "conntrack-tcp-timeout-established",
        Value::One("DURATION"),
        "24h0m0s",
        &["conntrack.tcpEstablishedTimeout"],
        "Time after which the kernel forgets an idle TCP connection; 0 leaves it",
        |given, value| store(&mut given.documents.kube_proxy.conntrack.tcp_established_timeout, duration(value)),
    ),
    theirs(
        KERNEL,
        "conntrack-tcp-timeout-close-wait",
        Value::One("DURATION"),
        "1h0m0s",
        &["conntrack.tcpCloseWaitTimeout"],
        "Time after which the kernel forgets a TCP connection in CLOSE_WAIT; 0 leaves it",
        |given, value| store(&mut given.documents.kube_proxy.conntrack.tcp_close_wait_timeout, duration(value)),
    ),
    theirs(
        KERNEL,
        "conntrack-tcp-be-liberal",
        Value::Switch,
        "false",
        &["conntrack.tcpBeLiberal"],
        "Let the kernel track TCP packets that are out of the window, instead of calling them invalid",
        |given, value| store(&mut given.documents.kube_proxy.conntrack.tcp_be_liberal, switch(value)),
    ),
    theirs(
        KERNEL,
        "conntrack-udp-timeout",
        Value::One("DURATION"),
        "0s",
        &["conntrack.udpTimeout"],
        "Time after which the kernel forgets a UDP flow without an answer; 0 leaves it",
        |given, value| store(&mut given.documents.kube_proxy.conntrack.udp_timeout, duration(value)),
    ),
    theirs(
        KERNEL,
        "conntrack-udp-timeout-stream",
        Value::One("DURATION"),
        "0s",
        &["conntrack.udpStreamTimeout"],
        "Time after which the kernel forgets a UDP flow with answers; 0 leaves it",
        |given, value| store(&mut given.documents.kube_proxy.conntrack.udp_stream_timeout, duration(value)),
    ),
    theirs(
        KERNEL,
        "oom-score-adj",
        Value::One("N"),
        "-999",
        &["oomScoreAdj"],
        "oom_score_adj of the process, -1000 to 1000",
        |given, value| store(&mut given.documents.kube_proxy.oom_score_adj, number(value)),
    ),
    theirs(
        IPVS,
        "ipvs-sync-period",
        Value::One("DURATION"),
        "30s",
        &["ipvs.syncPeriod"],
        "--sync-period in IPVS mode",
        |given, value| store(&mut given.documents.kube_proxy.ipvs.sync_period, duration(value)),
    ),
    theirs(
        IPVS,
        "ipvs-min-sync-period",
        Value::One("DURATION"),
        "0s",
        &["ipvs.minSyncPeriod"],
        "--min-sync-period in IPVS mode",
        |given, value| store(&mut given.documents.kube_proxy.ipvs.min_sync_period, duration(value)),
    ),
    theirs(
        IPVS,
        "ipvs-scheduler",
        Value::One("NAME"),
        "",
        &["ipvs.scheduler"],
        "Scheduler, rr if it is empty",
        |given, value| text(&mut given.documents.kube_proxy.ipvs.scheduler, value),
    ),
    theirs(
        IPVS,
        "ipvs-exclude-cidrs",
        Value::List("CIDR,…"),
        "",
        &["ipvs.excludeCIDRs"],
        "Ranges whose virtual servers are not cleaned up",
        |given, value| {
            extend(&mut given.documents.kube_proxy.ipvs.exclude_cidrs, value);
            Ok(())
        },
    ),
    theirs(
        IPVS,
        "ipvs-strict-arp",
        Value::Switch,
        "false",
        &["ipvs.strictARP"],
        "Set arp_ignore to 1 and arp_announce to 2",
        |given, value| store(&mut given.documents.kube_proxy.ipvs.strict_arp, switch(value)),
    ),
    theirs(
        IPVS,
        "ipvs-tcp-timeout",
        Value::One("DURATION"),
        "0s",
        &["ipvs.tcpTimeout"],
        "Timeout of idle TCP connections; 0 leaves it",
        |given, value| store(&mut given.documents.kube_proxy.ipvs.tcp_timeout, duration(value)),
    ),
    theirs(
        IPVS,
        "ipvs-tcpfin-timeout",
        Value::One("DURATION"),
        "0s",
        &["ipvs.tcpFinTimeout"],
        "Timeout of TCP connections after a FIN; 0 leaves it",
        |given, value| store(&mut given.documents.kube_proxy.ipvs.tcp_fin_timeout, duration(value)),
    ),
    theirs(
        IPVS,
        "ipvs-udp-timeout",
        Value::One("DURATION"),
        "0s",
        &["ipvs.udpTimeout"],
        "Timeout of UDP; 0 leaves it",
        |given, value| store(&mut given.documents.kube_proxy.ipvs.udp_timeout, duration(value)),
    ),
    theirs(
        WITHOUT_EFFECT,
        "vmodule",
        Value::One("PATTERN=N,…"),
        "",
        &["logging.vmodule"],
        "Verbosity of single source files of kube-proxy, which portway does not have",
        |given, value| vmodule(&mut given.documents.kube_proxy.logging.vmodule, value),
    )
    .counts(),
    theirs(
        WITHOUT_EFFECT,
        "log-flush-frequency",
        Value::One("DURATION"),
        "5s",
        &["logging.flushFrequency"],
        "Longest time between flushes of the log, which is not buffered",
        |given, value| store(&mut given.documents.kube_proxy.logging.flush_frequency, duration(value)),
    )
    .counts(),
    theirs(
        WITHOUT_EFFECT,
        "log-json-split-stream",
        Value::Switch,
        "false",
        &["logging.options.json.splitStream"],
        "JSON: errors to standard error and the rest to standard output. All goes to standard error",
        |given, value| store(&mut given.documents.kube_proxy.logging.options.json.split_stream, switch(value)),
    )
    .counts(),
    theirs(
        WITHOUT_EFFECT,
        "log-json-info-buffer-size",
        Value::One("SIZE"),
        "0",
        &["logging.options.json.infoBufferSize"],
        "JSON: bytes to buffer of standard output",
        |given, value| text(&mut given.documents.kube_proxy.logging.options.json.info_buffer_size, value),
    )
    .counts(),
    theirs(
        WITHOUT_EFFECT,
        "log-text-split-stream",
        Value::Switch,
        "false",
        &["logging.options.text.splitStream"],
        "Text: errors to standard error and the rest to standard output. All goes to standard error",
        |given, value| store(&mut given.documents.kube_proxy.logging.options.text.split_stream, switch(value)),
    )
    .counts(),
    theirs(
        WITHOUT_EFFECT,
        "log-text-info-buffer-size",
        Value::One("SIZE"),
        "0",
        &["logging.options.text.infoBufferSize"],
        "Text: bytes to buffer of standard output",
        |given, value| text(&mut given.documents.kube_proxy.logging.options.text.info_buffer_size, value),
    )
    .counts(),
    theirs(
        WITHOUT_EFFECT,
        "boot-id-file",
        Value::One("FILE"),
        "/proc/sys/kernel/random/boot_id",
        &[],
        "File of the boot ID, which portway does not read",
        |_, _| Ok(()),
    )
    .counts(),
    theirs(
        WITHOUT_EFFECT,
        "machine-id-file",
        Value::One("FILE"),
        "/etc/machine-id,/var/lib/dbus/machine-id",
        &[],
        "File of the machine ID, which portway does not read",
        |_, _| Ok(()),
    )
    .counts(),
    theirs(
        OBSERVATION,
        "healthz-port",
        Value::One("N"),
        "10256",
        &[],
        "Port of the health server, if --healthz-bind-address has none; 0 disables the server",
        |given, value| store(&mut given.healthz_port, number(value)),
    )
    .deprecated("use --healthz-bind-address; the port counts only if that address is given without one, and 0 disables the server"),
    theirs(
        OBSERVATION,
        "metrics-port",
        Value::One("N"),
        "10249",
        &[],
        "Port of the metrics server, if --metrics-bind-address has none; 0 disables the server",
        |given, value| store(&mut given.metrics_port, number(value)),
    )
    .deprecated("use --metrics-bind-address; the port counts only if that address is given without one, and 0 disables the server"),
];

fn masquerade_bit(given: &mut Given, value: &str) -> Result<(), String> {
    let bit = Some(number(value)?);
    given.documents.kube_proxy.iptables.masquerade_bit = bit;
    given.documents.kube_proxy.nftables.masquerade_bit = bit;
    Ok(())
}
