//! kube-proxy 1.36's defaults (contract CFG-2), and which values count as given.

use super::addresses::{HEALTH_PORT, METRICS_PORT, host_port};
use super::duration::GoDuration;
use super::portway::{self, PortwayConfiguration};
use super::v1alpha1::{self, KubeProxyConfiguration};

/// The default content type of requests to the API server.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The default bit of the packet mark that requests masquerading.
pub(crate) const MASQUERADE_BIT: i32 = 14;

/// The default period of audits.
pub(crate) const SYNC_PERIOD: GoDuration = GoDuration::from_secs(30);

/// The text, if it is not empty.
pub(super) fn given_text(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// The duration, if it is not 0: kube-proxy's file cannot tell a 0 from a field that is not there.
pub(super) fn given_period(period: Option<GoDuration>) -> Option<GoDuration> {
    period.filter(|period| !period.is_zero())
}

/// Makes of an address what kube-proxy makes of it: with the default port, or the default address if there is none. What
/// is not an address stays as it is.
fn address(given: Option<&str>, default: &str, default_port: u16) -> String {
    let text = given.unwrap_or(default);
    match host_port(text, default_port) {
        Ok(address) if text.trim_matches(['[', ']']).parse() == Ok(address.ip()) => address.to_string(),
        _ => text.to_owned(),
    }
}

impl KubeProxyConfiguration {
    /// Takes for "not given" what kube-proxy takes for it in a file: empty texts and durations of 0, but for two timeouts.
    pub(super) fn without_empty(mut self) -> Self {
        for text in [&mut self.healthz_bind_address, &mut self.metrics_bind_address, &mut self.hostname_override] {
            *text = text.take().filter(|text| !text.is_empty());
        }
        for period in [
            &mut self.iptables.sync_period,
            &mut self.iptables.min_sync_period,
            &mut self.nftables.sync_period,
            &mut self.nftables.min_sync_period,
            &mut self.ipvs.sync_period,
            &mut self.ipvs.min_sync_period,
            &mut self.config_sync_period,
        ] {
            *period = given_period(*period);
        }
        self
    }

    /// Fills in all that is not given. `mode` is the mode that an empty one means.
    ///
    /// `minSyncPeriod` stays 0 where it is not given: portway paces itself then, where kube-proxy waits 1 s. A pause of 0
    /// that a flag asks for is written as one nanosecond, because the file cannot say 0.
    pub(crate) fn complete(mut self, mode: &str) -> Self {
        self.api_version = Some(v1alpha1::API_VERSION.to_owned());
        self.kind = Some(v1alpha1::KIND.to_owned());
        let text = |field: &mut Option<String>, default: &str| {
            *field = Some(given_text(field.as_deref()).unwrap_or(default).to_owned());
        };
        let period = |field: &mut Option<GoDuration>, default: GoDuration| {
            *field = Some(given_period(*field).unwrap_or(default));
        };
        let zero = GoDuration::default();

        for optional in [
            &mut self.hostname_override,
            &mut self.show_hidden_metrics_for_version,
            &mut self.cluster_cidr,
            &mut self.port_range,
            &mut self.client_connection.kubeconfig,
            &mut self.client_connection.accept_content_types,
            &mut self.ipvs.scheduler,
            &mut self.detect_local.bridge_interface,
            &mut self.detect_local.interface_name_prefix,
            &mut self.winkernel.network_name,
            &mut self.winkernel.source_vip,
            &mut self.winkernel.root_hns_endpoint_name,
        ] {
            text(optional, "");
        }
        for switch in [
            &mut self.bind_address_hard_fail,
            &mut self.enable_profiling,
            &mut self.windows_run_as_service,
            &mut self.iptables.masquerade_all,
            &mut self.nftables.masquerade_all,
            &mut self.ipvs.strict_arp,
            &mut self.conntrack.tcp_be_liberal,
            &mut self.winkernel.enable_dsr,
            &mut self.winkernel.forward_health_check_vip,
            &mut self.logging.options.json.split_stream,
            &mut self.logging.options.text.split_stream,
        ] {
            switch.get_or_insert(false);
        }
        self.iptables.localhost_node_ports.get_or_insert(true);

        text(&mut self.bind_address, "0.0.0.0");
        let is_ipv6 = self.bind_address.as_deref().is_some_and(|text| text.contains(':'));
        let (every, loopback) = if is_ipv6 { ("::", "::1") } else { ("0.0.0.0", "127.0.0.1") };
        // An empty text is one from the command line, which disables the server.
        self.healthz_bind_address = Some(match self.healthz_bind_address.as_deref() {
            Some("") => String::new(),
            given => address(given, every, HEALTH_PORT),
        });
        self.metrics_bind_address = Some(match self.metrics_bind_address.as_deref() {
            Some("") => String::new(),
            given => address(given, loopback, METRICS_PORT),
        });

        text(&mut self.mode, mode);
        text(&mut self.detect_local_mode, "ClusterCIDR");
        if self.node_port_addresses.as_ref().is_none_or(Vec::is_empty) && self.mode.as_deref() == Some("nftables") {
            self.node_port_addresses = Some(vec!["primary".to_owned()]);
        }

        for bit in [&mut self.iptables.masquerade_bit, &mut self.nftables.masquerade_bit] {
            bit.get_or_insert(MASQUERADE_BIT);
        }
        for field in [&mut self.iptables.sync_period, &mut self.nftables.sync_period, &mut self.ipvs.sync_period] {
            period(field, SYNC_PERIOD);
        }
        for field in [&mut self.iptables.min_sync_period, &mut self.nftables.min_sync_period] {
            // Kept apart from one that is not given.
            *field = Some(match *field {
                None => zero,
                Some(given) if given.is_zero() => GoDuration::from_nanos(1),
                Some(given) => given,
            });
        }
        for field in [
            &mut self.ipvs.min_sync_period,
            &mut self.ipvs.tcp_timeout,
            &mut self.ipvs.tcp_fin_timeout,
            &mut self.ipvs.udp_timeout,
            &mut self.conntrack.udp_timeout,
            &mut self.conntrack.udp_stream_timeout,
        ] {
            period(field, zero);
        }
        self.conntrack.max_per_core.get_or_insert(32 * 1024);
        self.conntrack.min.get_or_insert(128 * 1024);
        // Pointers in kube-proxy: here a 0 is given, and leaves the kernel's timeout.
        self.conntrack.tcp_established_timeout.get_or_insert(GoDuration::from_secs(24 * 3600));
        self.conntrack.tcp_close_wait_timeout.get_or_insert(GoDuration::from_secs(3600));
        self.oom_score_adj.get_or_insert(-999);
        period(&mut self.config_sync_period, GoDuration::from_secs(15 * 60));

        text(&mut self.client_connection.content_type, CONTENT_TYPE);
        self.client_connection.qps = Some(self.client_connection.qps.filter(|qps| *qps != 0.0).unwrap_or(5.0));
        self.client_connection.burst = Some(self.client_connection.burst.filter(|burst| *burst != 0).unwrap_or(10));

        text(&mut self.logging.format, "text");
        period(&mut self.logging.flush_frequency, GoDuration::from_secs(5));
        self.logging.verbosity.get_or_insert(0);
        text(&mut self.logging.options.json.info_buffer_size, "0");
        text(&mut self.logging.options.text.info_buffer_size, "0");
        self
    }
}

impl PortwayConfiguration {
    /// Fills in all that is not given.
    pub(crate) fn complete(mut self) -> Self {
        self.api_version = Some(portway::API_VERSION.to_owned());
        self.kind = Some(portway::KIND.to_owned());
        self.manifests.get_or_insert_default();
        self.master.get_or_insert_default();
        self.refuse_unknown_ports.get_or_insert(true);
        if given_text(self.iptables_dispatch.as_deref()).is_none() {
            self.iptables_dispatch = Some("auto".to_owned());
        }
        self.disable_healthz.get_or_insert(false);
        self.disable_metrics.get_or_insert(false);
        self
    }
}
