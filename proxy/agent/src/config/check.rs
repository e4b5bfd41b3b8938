//! Checks of values that nothing is built from: kube-proxy refuses them, and so does portway (contract CFG-8).

use super::addresses::range;
use super::defaults::given_text;
use super::duration::GoDuration;
use super::problem::Problems;
use super::v1alpha1::{KubeProxyConfiguration, Streams};

/// The minor version of Kubernetes whose hidden metrics may be asked for: the one before.
const HIDDEN_METRICS_OF: &str = "1.35";

/// Checks everything that [`Settings`](super::Settings) is not built from.
pub(super) fn check(config: &KubeProxyConfiguration, logging_alpha: bool, problems: &mut Problems) {
    let mut not_negative = |path: &str, value: Option<GoDuration>| {
        if let Some(value) = value.filter(|value| value.to_std().is_none()) {
            problems.add(path, value, "must not be negative");
        }
    };
    let ipvs = &config.ipvs;
    not_negative("ipvs.tcpTimeout", ipvs.tcp_timeout);
    not_negative("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout);
    not_negative("ipvs.udpTimeout", ipvs.udp_timeout);
    for (index, text) in ipvs.exclude_cidrs.iter().flatten().enumerate() {
        problems.take(&format!("ipvs.excludeCIDRs[{index}]"), text, range(text));
    }
    if let Some(text) = given_text(config.port_range.as_deref())
        && !is_port_range(text)
    {
        problems.add("portRange", text, "not a range of ports like 300-2000");
    }
    if let Some(version) = given_text(config.show_hidden_metrics_for_version.as_deref())
        && version != HIDDEN_METRICS_OF
    {
        let reason = format!("only {HIDDEN_METRICS_OF} can be asked for, the version before Kubernetes 1.36");
        problems.add("showHiddenMetricsForVersion", version, reason);
    }
    if let Some(flush) = config.logging.flush_frequency
        && flush.to_std().is_none()
    {
        problems.add("logging.flushFrequency", flush, "must not be negative");
    }
    let is_text = given_text(config.logging.format.as_deref()).is_none_or(|format| format == "text");
    for (index, item) in config.logging.vmodule.iter().enumerate() {
        let path = format!("logging.vmodule[{index}]");
        if item.file_pattern.is_empty() {
            problems.add(&path, "", "has no file pattern");
        } else if item.file_pattern.contains(['=', ',']) {
            problems.add(&path, &item.file_pattern, "a file pattern must not contain an equal sign or a comma");
        } else if !is_text {
            problems.add(&path, &item.file_pattern, "is possible only with the log format text");
        }
    }
    streams("json", &config.logging.options.json, logging_alpha, problems);
    streams("text", &config.logging.options.text, logging_alpha, problems);
}

/// Checks the options of one format of the log.
fn streams(format: &str, options: &Streams, logging_alpha: bool, problems: &mut Problems) {
    let needs = "needs the feature gate LoggingAlphaOptions";
    if options.split_stream == Some(true) && !logging_alpha {
        problems.add(&format!("logging.options.{format}.splitStream"), true, needs);
    }
    if let Some(size) = given_text(options.info_buffer_size.as_deref()) {
        let path = format!("logging.options.{format}.infoBufferSize");
        match quantity(size) {
            None => problems.add(&path, size, "not a quantity like 512, 64Ki or 1M"),
            Some(0) => {}
            Some(_) if !logging_alpha => problems.add(&path, size, needs),
            Some(_) => {}
        }
    }
}

/// Parses a quantity of bytes: digits and a suffix, as Kubernetes has them. Its size is not needed exactly.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let known = ["", "k", "K", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    known.contains(&suffix).then(|| number.parse().ok()).flatten()
}

/// Whether a text is a port, `first-last` or `first+number`.
fn is_port_range(text: &str) -> bool {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    match (text.split_once('-'), text.split_once('+')) {
        (Some((first, last)), _) => matches!((port(first), port(last)), (Some(first), Some(last)) if first <= last),
        (None, Some((first, number))) => {
            matches!((port(first), port(number)), (Some(first), Some(number)) if first.checked_add(number).is_some())
        }
        (None, None) => port(text).is_some(),
    }
}
