//! The reference in docs/configuration.md is made from the tables, so that it says what the program does.

use std::path::PathBuf;

use crate::config::file::schema::leaves;
use crate::config::flags::{BesideConfig, FLAGS, Flag};
use crate::config::portway::PortwayConfiguration;
use crate::config::v1alpha1::KubeProxyConfiguration;

const BEGIN: &str =
    "<!-- The table is made from the code: UPDATE_DOCS=1 cargo test -p portway --lib documentation -->\n";
const END: &str = "<!-- End of the table. -->\n";

/// The fields that no flag sets, with what portway does with them.
const FIELDS: &[(&str, &str)] = &[
    ("apiVersion", "`kubeproxy.config.k8s.io/v1alpha1`"),
    ("kind", "`KubeProxyConfiguration`"),
    ("clientConnection.acceptContentTypes", "Content types to ask the API server for, in place of the content type"),
    ("portRange", "Checked; no effect, as in kube-proxy"),
    ("windowsRunAsService", "No effect: Windows"),
    ("winkernel.enableDSR", "No effect: Windows"),
    ("winkernel.forwardHealthCheckVip", "No effect: Windows"),
    ("winkernel.networkName", "No effect: Windows"),
    ("winkernel.rootHnsEndpointName", "No effect: Windows"),
    ("winkernel.sourceVip", "No effect: Windows"),
    ("portway.apiVersion", "`portway.dev/v1alpha1`"),
    ("portway.kind", "`PortwayConfiguration`"),
    ("portway.disableHealthz", "Switch the health server off, which kube-proxy's document cannot say"),
    ("portway.disableMetrics", "Switch the metrics server off, which kube-proxy's document cannot say"),
];

/// A cell of the table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn names(flag: &Flag) -> String {
    let mut text = format!("`{}`", flag.dashed());
    if flag.name == "v" {
        text.push_str(", `--v`");
    }
    if !flag.kube_proxy {
        text.push_str(" (portway)");
    }
    if flag.beside_config == BesideConfig::Counts {
        text.push_str(" ✓");
    }
    text
}

fn table() -> String {
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let mut rows =
        vec!["| flag | field of the file | default | what portway does |".to_owned(), "|---|---|---|---|".to_owned()];
    for flag in FLAGS {
        let fields: Vec<String> = flag.fields.iter().map(|field| code(field)).collect();
        let deprecated = flag.deprecated.map(|instead| format!(". Deprecated: {instead}")).unwrap_or_default();
        let help = cell(&format!("{}{deprecated}", flag.help));
        rows.push(format!("| {} | {} | {} | {help} |", names(flag), fields.join(", "), code(flag.default)));
    }
    rows.extend(FIELDS.iter().map(|(field, effect)| format!("| | `{field}` | | {} |", cell(effect))));
    rows.join("\n") + "\n"
}

#[test]
fn cfg_1_cfg_4_the_reference_has_every_flag_and_field() {
    let portway = leaves(&PortwayConfiguration::example()).into_iter().map(|field| format!("portway.{field}"));
    for field in leaves(&KubeProxyConfiguration::example()).into_iter().chain(portway) {
        let by_flag = FLAGS.iter().any(|flag| flag.fields.contains(&field.as_str()));
        let by_itself = FIELDS.iter().any(|(named, _)| *named == field);
        assert!(by_flag != by_itself, "{field} must be set by a flag or be in the list of fields, and not in both");
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the beginning of the table");
    let (written, after) = rest.split_once(END).expect("the page has the end of the table");
    let wanted = format!("\n{}\n", table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        written, wanted,
        "docs/configuration.md is not what the code does; the comment in it says how to renew it"
    );
}
