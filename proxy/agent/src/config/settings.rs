//! The one struct that the program runs with, made from both documents (contract CFG-2, CFG-8, CFG-13).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use portway_dataplane::{Mode, iptables};
use portway_model::{Config, DetectLocal, NodePortSelection};

use super::addresses::{HEALTH_PORT, METRICS_PORT, host_port, ip};
use super::check::check;
use super::defaults::{CONTENT_TYPE, MASQUERADE_BIT, SYNC_PERIOD, given_period, given_text};
use super::duration::GoDuration;
use super::gates::FeatureGates;
use super::portway::PortwayConfiguration;
use super::problem::Problems;
use super::traffic::{detect_local, node_port_addresses};
use super::v1alpha1::KubeProxyConfiguration;
use crate::drivers::{self, DRIVERS, Driver, Options};
use crate::logging::Format;
use crate::sources::kubernetes::ContentType;
use crate::sync::Pacing;

/// The two documents of a configuration, from a file or filled in by flags.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Documents {
    /// The document that kube-proxy reads too.
    pub(crate) kube_proxy: KubeProxyConfiguration,
    /// The document with what only portway has.
    pub(crate) portway: PortwayConfiguration,
}

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

/// How to talk to the API server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClientSettings {
    /// How objects are asked for.
    pub(crate) content_type: ContentType,
    /// The Accept header, if it is given; else it follows from the content type.
    pub(crate) accept: Option<HeaderValue>,
    /// Requests a second; negative for any number.
    pub(crate) qps: f32,
    /// Requests that may come at once.
    pub(crate) burst: u32,
}

/// What to set in the kernel's connection tracking (kube-proxy's `conntrack`). `None` and `false` leave what the kernel
/// has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConntrackSettings {
    /// Connections for each core; `None` leaves the limit, whatever [`min`](Self::min) says.
    pub(crate) max_per_core: Option<u32>,
    /// The least number of connections, however few processors there are.
    pub(crate) min: u32,
    /// The timeout of idle established TCP connections.
    pub(crate) tcp_established_timeout: Option<Duration>,
    /// The timeout of TCP connections in CLOSE_WAIT.
    pub(crate) tcp_close_wait_timeout: Option<Duration>,
    /// Whether packets out of the window are not called invalid.
    pub(crate) tcp_be_liberal: bool,
    /// The timeout of UDP without an answer.
    pub(crate) udp_timeout: Option<Duration>,
    /// The timeout of UDP with answers.
    pub(crate) udp_stream_timeout: Option<Duration>,
}

/// The form of the log and how much it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSettings {
    /// Whether lines are text or JSON.
    pub(crate) format: Format,
    /// The verbosity; all above 10 show the same as 10.
    pub(crate) verbosity: u8,
}

/// What the program runs with.
#[derive(Clone)]
#[cfg_attr(not(test), expect(dead_code, reason = "the servers and the settings of the node read the rest"))]
pub(crate) struct Settings {
    /// The driver of the mode.
    pub(crate) driver: &'static Driver,
    /// Whether the mode is named; if not, it is portway's default.
    pub(crate) mode_given: bool,
    /// The options of all modes, of which the driver reads its own.
    pub(crate) options: Options,
    /// Where Services come from.
    pub(crate) source: Source,
    /// The name of the Node object, trimmed and in lower case, if it is given (contract CFG-5).
    pub(crate) node_name: Option<String>,
    /// The address of this node, if it is given and is not 0.0.0.0 or ::.
    pub(crate) bind_address: Option<IpAddr>,
    /// How packets from local pods are recognized.
    pub(crate) detect_local: DetectLocal,
    /// The addresses that serve NodePorts.
    pub(crate) node_port_addresses: NodePortSelection,
    /// Whether all traffic to cluster IPs is masqueraded.
    pub(crate) masquerade_all: bool,
    /// The bit of the packet mark that requests masquerading, 0 to 31.
    pub(crate) masquerade_bit: u8,
    /// Whether ports that no Service has at a load balancer's or external IP are refused (contract OWN-8).
    pub(crate) refuse_unknown_ports: bool,
    /// The period of audits, and the longest wait between retries.
    pub(crate) sync_period: Duration,
    /// The shortest time from the end of one sync to the start of the next, if it is given; portway paces itself if not.
    pub(crate) min_sync_period: Option<Duration>,
    /// How often kube-proxy lists again; informational, because a watch that continues needs no new list.
    pub(crate) config_sync_period: Duration,
    /// The address of the health server; `None` if it is disabled (contract HZ-7).
    pub(crate) healthz_bind_address: Option<SocketAddr>,
    /// The address of the metrics server; `None` if it is disabled.
    pub(crate) metrics_bind_address: Option<SocketAddr>,
    /// Whether the process ends when it cannot bind one of these addresses; if not, it retries.
    pub(crate) bind_address_hard_fail: bool,
    /// Whether the metrics server serves profiles.
    pub(crate) profiling: bool,
    /// Whether metrics that the version before still showed are shown.
    pub(crate) show_hidden_metrics: bool,
    /// What to set in the kernel's connection tracking.
    pub(crate) conntrack: ConntrackSettings,
    /// The oom_score_adj of the process, -1000 to 1000.
    pub(crate) oom_score_adj: i16,
    /// How to talk to the API server.
    pub(crate) client: ClientSettings,
    /// The form of the log and how much it says.
    pub(crate) logging: LogSettings,
    /// The feature gates with their values.
    pub(crate) feature_gates: FeatureGates,
    /// Both documents with every default filled in, as `/configz` and `--write-config-to` show them.
    pub(crate) documents: Documents,
}

impl Settings {
    /// Validates the documents and makes the settings.
    ///
    /// # Errors
    /// Every value that is refused.
    pub(crate) fn resolve(documents: &Documents) -> Result<Self, Problems> {
        let Documents { kube_proxy: config, portway } = documents;
        let mut problems = Problems::default();
        let mode_given = given_text(config.mode.as_deref());
        let driver = problems.take("mode", mode_given.unwrap_or_default(), driver(mode_given));
        // What depends on the mode is checked as for the default, so that all errors are named at once.
        let driver = driver.unwrap_or(&DRIVERS[0]);
        let shared = Shared::of(config, mode_given);

        let feature_gates = FeatureGates::new(config.feature_gates.clone()).unwrap_or_else(|refused| {
            for (name, reason) in refused {
                problems.add("featureGates", name, reason);
            }
            FeatureGates::default()
        });
        let refused_bits = [("iptables", config.iptables.masquerade_bit), ("nftables", config.nftables.masquerade_bit)];
        for (section, bit) in refused_bits {
            if let Some(bit) = bit.filter(|bit| !(0..=31).contains(bit)) {
                problems.add(&format!("{section}.masqueradeBit"), bit, "not a number from 0 to 31");
            }
        }
        let sync_period = shared.sync_period(&mut problems);
        let min_sync_period = shared.min_sync_period(sync_period, &mut problems);
        check(config, feature_gates.enabled("LoggingAlphaOptions"), &mut problems);

        let settings = Self {
            driver,
            mode_given: mode_given.is_some(),
            options: options(config, portway, &mut problems),
            source: source(config, portway, &mut problems),
            node_name: node_name(config, &mut problems),
            bind_address: bind_address(config, &mut problems),
            detect_local: detect_local(config, &mut problems),
            node_port_addresses: node_port_addresses(
                driver,
                config.node_port_addresses.as_deref().unwrap_or_default(),
                &mut problems,
            ),
            masquerade_all: shared.masquerade_all,
            masquerade_bit: u8::try_from(shared.masquerade_bit).unwrap_or_default(),
            refuse_unknown_ports: portway.refuse_unknown_ports.unwrap_or(true),
            sync_period,
            min_sync_period,
            config_sync_period: config_sync_period(config, &mut problems),
            healthz_bind_address: None,
            metrics_bind_address: None,
            bind_address_hard_fail: config.bind_address_hard_fail.unwrap_or(false),
            profiling: config.enable_profiling.unwrap_or(false),
            show_hidden_metrics: given_text(config.show_hidden_metrics_for_version.as_deref()).is_some(),
            conntrack: conntrack(config, &mut problems),
            oom_score_adj: oom_score_adj(config, &mut problems),
            client: client(config, &mut problems),
            logging: logging(config, &mut problems),
            feature_gates,
            documents: Documents {
                kube_proxy: config.clone().complete(driver.mode.as_str()),
                portway: portway.clone().complete(),
            },
        };
        let settings = settings.with_servers(&mut problems);
        if problems.0.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// Adds the addresses of the servers, whose defaults depend on the address of the node.
    fn with_servers(mut self, problems: &mut Problems) -> Self {
        let Documents { kube_proxy, portway } = &mut self.documents;
        let mut server = |path: &str, text: &mut Option<String>, disabled: &mut Option<bool>, port: u16| {
            // An empty text comes from the command line; the file says it in portway's document.
            if disabled == &Some(true) || text.as_deref() == Some("") {
                *disabled = Some(true);
                *text = Some(String::new());
                return None;
            }
            let text = text.clone().unwrap_or_default();
            problems.take(path, &text, host_port(&text, port))
        };
        let (healthz, metrics) = (&mut kube_proxy.healthz_bind_address, &mut kube_proxy.metrics_bind_address);
        self.healthz_bind_address = server("healthzBindAddress", healthz, &mut portway.disable_healthz, HEALTH_PORT);
        self.metrics_bind_address = server("metricsBindAddress", metrics, &mut portway.disable_metrics, METRICS_PORT);
        self
    }

    /// The pacing of the sync loop.
    pub(crate) fn pacing(&self) -> Pacing {
        Pacing { sync_period: self.sync_period, min_sync_period: self.min_sync_period }
    }

    /// The model's configuration of the node with this name.
    pub(crate) fn model(&self, node_name: String) -> Config {
        Config {
            node_name,
            masquerade_all: self.masquerade_all,
            masquerade_bit: self.masquerade_bit,
            detect_local: self.detect_local.clone(),
            node_port_addresses: self.node_port_addresses.clone(),
            node_ips: self.bind_address.into_iter().collect(),
            refuse_unknown_ports: self.refuse_unknown_ports,
            external_ips: self.feature_gates.enabled("AllowServiceExternalIPs"),
            ..Config::default()
        }
    }
}

/// The settings that kube-proxy's file has once for each mode.
struct Shared<'a> {
    section: &'a str,
    masquerade_bit: i32,
    masquerade_all: bool,
    sync_period: Option<GoDuration>,
    min_sync_period: Option<GoDuration>,
}

impl<'a> Shared<'a> {
    /// The settings for a mode. IPVS mode masquerades as the section of iptables says, as in kube-proxy. If no mode is
    /// named, the section of iptables counts, which kube-proxy reads then, but for what that of nftables has.
    fn of(config: &KubeProxyConfiguration, mode: Option<&'a str>) -> Self {
        let (iptables, nftables, ipvs) = (&config.iptables, &config.nftables, &config.ipvs);
        let from_iptables = Self {
            section: "iptables",
            masquerade_bit: iptables.masquerade_bit.unwrap_or(MASQUERADE_BIT),
            masquerade_all: iptables.masquerade_all.unwrap_or(false),
            sync_period: iptables.sync_period,
            min_sync_period: iptables.min_sync_period,
        };
        match mode {
            Some("iptables") => from_iptables,
            Some("ipvs") => Self {
                section: "ipvs",
                sync_period: ipvs.sync_period,
                min_sync_period: ipvs.min_sync_period,
                ..from_iptables
            },
            Some(_) => Self {
                section: "nftables",
                masquerade_bit: nftables.masquerade_bit.unwrap_or(MASQUERADE_BIT),
                masquerade_all: nftables.masquerade_all.unwrap_or(false),
                sync_period: nftables.sync_period,
                min_sync_period: nftables.min_sync_period,
            },
            None => {
                let nftables_paces = given_period(nftables.sync_period.or(nftables.min_sync_period)).is_some();
                Self {
                    section: if nftables_paces { "nftables" } else { "iptables" },
                    masquerade_bit: nftables.masquerade_bit.unwrap_or(from_iptables.masquerade_bit),
                    masquerade_all: nftables.masquerade_all.unwrap_or(false) || from_iptables.masquerade_all,
                    sync_period: given_period(nftables.sync_period).or(from_iptables.sync_period),
                    min_sync_period: nftables.min_sync_period.or(from_iptables.min_sync_period),
                }
            }
        }
    }

    fn sync_period(&self, problems: &mut Problems) -> Duration {
        let given = self.sync_period.unwrap_or(SYNC_PERIOD);
        let period = given.to_std().filter(|period| !period.is_zero());
        if period.is_none() {
            problems.add(&format!("{}.syncPeriod", self.section), given, "must be longer than 0");
        }
        period.or(SYNC_PERIOD.to_std()).unwrap_or_default()
    }

    fn min_sync_period(&self, sync_period: Duration, problems: &mut Problems) -> Option<Duration> {
        let given = self.min_sync_period?;
        let path = format!("{}.minSyncPeriod", self.section);
        match given.to_std() {
            None => problems.add(&path, given, "must not be negative"),
            Some(period) if period > sync_period => {
                let longest = self.sync_period.unwrap_or(SYNC_PERIOD);
                problems.add(&path, given, format!("must not be longer than the sync period, which is {longest}"));
            }
            Some(_) => {}
        }
        given.to_std()
    }
}

/// The driver of a mode; of portway's default if none is named.
pub(crate) fn driver(mode: Option<&str>) -> Result<&'static Driver, String> {
    let Some(text) = mode else { return Ok(&DRIVERS[0]) };
    let built = || DRIVERS.each_ref().map(|driver| driver.mode.as_str()).join(" or ");
    let Some(mode) = Mode::ALL.into_iter().find(|mode| mode.as_str() == text) else {
        return Err(format!("not known; use {}", built()));
    };
    drivers::find(mode).ok_or_else(|| format!("this version has no {mode} dataplane yet; use {}", built()))
}

fn options(config: &KubeProxyConfiguration, portway: &PortwayConfiguration, problems: &mut Problems) -> Options {
    let mut iptables = iptables::Config::default();
    iptables.options.localhost_node_ports = config.iptables.localhost_node_ports.unwrap_or(true);
    match portway.iptables_dispatch.as_deref().unwrap_or_default() {
        "auto" | "" => iptables.tree_above = Some(iptables::TREE_ABOVE),
        "list" => iptables.tree_above = None,
        "tree" => iptables.tree_above = Some(0),
        other => problems.add("portway.iptablesDispatch", other, "not known; use auto, list or tree"),
    }
    Options { iptables }
}

fn source(config: &KubeProxyConfiguration, portway: &PortwayConfiguration, problems: &mut Problems) -> Source {
    if let Some(folder) = given_text(portway.manifests.as_deref()) {
        match std::fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => problems.add("portway.manifests", folder, "not a folder"),
            Err(error) => problems.add("portway.manifests", folder, error.to_string()),
        }
        return Source::Manifests(PathBuf::from(folder));
    }
    let master = given_text(portway.master.as_deref());
    if let Some(address) = master {
        let (scheme, host) = address.split_once("://").unwrap_or_default();
        if !matches!(scheme, "http" | "https") || host.trim_matches('/').is_empty() {
            problems.add("portway.master", address, "not an address like https://host:6443");
        }
    }
    let kubeconfig = given_text(config.client_connection.kubeconfig.as_deref());
    if let Some(file) = kubeconfig
        && let Err(error) = std::fs::metadata(file)
    {
        problems.add("clientConnection.kubeconfig", file, error.to_string());
    }
    Source::Api { kubeconfig: kubeconfig.map(PathBuf::from), master: master.map(str::to_owned) }
}

fn node_name(config: &KubeProxyConfiguration, problems: &mut Problems) -> Option<String> {
    let given = config.hostname_override.as_deref()?;
    let name = given.trim().to_lowercase();
    if name.is_empty() {
        let reason = "empty hostname-override is invalid: it needs the name of a Node";
        problems.add("hostnameOverride", given, reason);
    }
    Some(name)
}

/// The node's name if none is given: $NODE_NAME, else the host name.
pub(crate) fn default_node_name() -> Result<String, String> {
    let from_environment = std::env::var("NODE_NAME").unwrap_or_default();
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = if from_environment.trim().is_empty() { host() } else { from_environment };
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        return Err("this host has no name: give the Node's with --hostname-override".to_owned());
    }
    Ok(name)
}

fn bind_address(config: &KubeProxyConfiguration, problems: &mut Problems) -> Option<IpAddr> {
    let text = given_text(config.bind_address.as_deref())?;
    problems.take("bindAddress", text, ip(text)).filter(|address| !address.is_unspecified())
}

fn config_sync_period(config: &KubeProxyConfiguration, problems: &mut Problems) -> Duration {
    let given = config.config_sync_period.unwrap_or(GoDuration::from_secs(15 * 60));
    let period = given.to_std().filter(|period| !period.is_zero());
    if period.is_none() {
        problems.add("configSyncPeriod", given, "must be longer than 0");
    }
    period.unwrap_or_default()
}

fn conntrack(config: &KubeProxyConfiguration, problems: &mut Problems) -> ConntrackSettings {
    let given = &config.conntrack;
    let mut number = |field: &str, value: Option<i32>, default: u32| match value.map(u32::try_from) {
        None => default,
        Some(Ok(number)) => number,
        Some(Err(_)) => {
            problems.add(&format!("conntrack.{field}"), value.unwrap_or_default(), "must not be negative");
            default
        }
    };
    let max_per_core = number("maxPerCore", given.max_per_core, 32 * 1024);
    let min = number("min", given.min, 128 * 1024);
    let mut timeout = |field: &str, value: Option<GoDuration>| {
        let value = value?;
        if value.to_std().is_none() {
            problems.add(&format!("conntrack.{field}"), value, "must not be negative");
        }
        value.to_std().filter(|timeout| !timeout.is_zero())
    };
    let or = |value: Option<GoDuration>, hours: i64| value.or(Some(GoDuration::from_secs(hours * 3600)));
    ConntrackSettings {
        max_per_core: Some(max_per_core).filter(|max| *max > 0),
        min,
        tcp_established_timeout: timeout("tcpEstablishedTimeout", or(given.tcp_established_timeout, 24)),
        tcp_close_wait_timeout: timeout("tcpCloseWaitTimeout", or(given.tcp_close_wait_timeout, 1)),
        tcp_be_liberal: given.tcp_be_liberal.unwrap_or(false),
        udp_timeout: timeout("udpTimeout", given.udp_timeout),
        udp_stream_timeout: timeout("udpStreamTimeout", given.udp_stream_timeout),
    }
}

fn oom_score_adj(config: &KubeProxyConfiguration, problems: &mut Problems) -> i16 {
    let given = config.oom_score_adj.unwrap_or(-999);
    match i16::try_from(given) {
        Ok(score) if (-1000..=1000).contains(&score) => score,
        _ => {
            problems.add("oomScoreAdj", given, "not a number from -1000 to 1000");
            0
        }
    }
}

fn client(config: &KubeProxyConfiguration, problems: &mut Problems) -> ClientSettings {
    let given = &config.client_connection;
    let burst = given.burst.filter(|burst| *burst != 0).unwrap_or(10);
    let burst = u32::try_from(burst).unwrap_or_else(|_| {
        problems.add("clientConnection.burst", burst, "must not be negative");
        0
    });
    let content_type = given_text(given.content_type.as_deref()).unwrap_or(CONTENT_TYPE);
    let parsed = content_type.parse().map_err(|_| format!("not known; use {CONTENT_TYPE} or application/json"));
    let accept = given_text(given.accept_content_types.as_deref());
    ClientSettings {
        content_type: problems.take("clientConnection.contentType", content_type, parsed).unwrap_or_default(),
        accept: accept.and_then(|text| {
            let header = HeaderValue::from_str(text).map_err(|_| "not a list of content types".to_owned());
            problems.take("clientConnection.acceptContentTypes", text, header)
        }),
        qps: given.qps.filter(|qps| *qps != 0.0).unwrap_or(5.0),
        burst,
    }
}

fn logging(config: &KubeProxyConfiguration, problems: &mut Problems) -> LogSettings {
    let format = match given_text(config.logging.format.as_deref()).unwrap_or("text") {
        "text" => Format::Text,
        "json" => Format::Json,
        other => {
            problems.add("logging.format", other, "not known; use text or json");
            Format::Text
        }
    };
    let verbosity = config.logging.verbosity.unwrap_or(0);
    if i32::try_from(verbosity).is_err() {
        problems.add("logging.verbosity", verbosity, format!("must not be above {}", i32::MAX));
    }
    LogSettings { format, verbosity: u8::try_from(verbosity.min(10)).unwrap_or(10) }
}
