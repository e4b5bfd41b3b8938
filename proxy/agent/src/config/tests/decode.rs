//! Decoding of the file (contract CFG-1, CFG-3).

use super::{document, file, load_with};
use crate::config::file::schema::leaves;
use crate::config::v1alpha1::KubeProxyConfiguration;

#[test]
fn cfg_1_every_field_is_there_under_kube_proxys_name() {
    let expected = "apiVersion bindAddress bindAddressHardFail clientConnection.acceptContentTypes \
        clientConnection.burst clientConnection.contentType clientConnection.kubeconfig clientConnection.qps clusterCIDR \
        configSyncPeriod conntrack.maxPerCore conntrack.min conntrack.tcpBeLiberal conntrack.tcpCloseWaitTimeout \
        conntrack.tcpEstablishedTimeout conntrack.udpStreamTimeout conntrack.udpTimeout detectLocal.bridgeInterface \
        detectLocal.interfaceNamePrefix detectLocalMode enableProfiling featureGates healthzBindAddress hostnameOverride \
        iptables.localhostNodePorts iptables.masqueradeAll iptables.masqueradeBit iptables.minSyncPeriod \
        iptables.syncPeriod ipvs.excludeCIDRs ipvs.minSyncPeriod ipvs.scheduler ipvs.strictARP ipvs.syncPeriod \
        ipvs.tcpFinTimeout ipvs.tcpTimeout ipvs.udpTimeout kind logging.flushFrequency logging.format \
        logging.options.json.infoBufferSize logging.options.json.splitStream logging.options.text.infoBufferSize \
        logging.options.text.splitStream logging.verbosity logging.vmodule metricsBindAddress mode \
        nftables.masqueradeAll nftables.masqueradeBit nftables.minSyncPeriod nftables.syncPeriod nodePortAddresses \
        oomScoreAdj portRange showHiddenMetricsForVersion windowsRunAsService winkernel.enableDSR \
        winkernel.forwardHealthCheckVip winkernel.networkName winkernel.rootHnsEndpointName winkernel.sourceVip";
    let fields = leaves(&KubeProxyConfiguration::example());
    assert_eq!(fields.join(" "), expected.split_whitespace().collect::<Vec<_>>().join(" "));
}

#[test]
fn cfg_1_yaml_and_json_give_the_same() {
    let yaml = document("mode: iptables\niptables: {masqueradeBit: 3, syncPeriod: 1m}\nclientConnection: {qps: 7.5}\n");
    let json = r#"{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "iptables", "iptables": {"masqueradeBit": 3, "syncPeriod": "1m0s"}, "clientConnection": {"qps": 7.5}}"#;
    assert_eq!(file(&yaml).unwrap().documents, file(json).unwrap().documents);
}

#[test]
fn cfg_1_truth_values_are_read_as_yaml_1_1_has_them() {
    let config =
        file(&document("bindAddressHardFail: yes\nfeatureGates: {AllAlpha: off}\n")).unwrap().documents.kube_proxy;
    assert_eq!((config.bind_address_hard_fail, config.feature_gates["AllAlpha"]), (Some(true), false));
}

#[test]
fn cfg_3_fields_that_are_not_known_and_fields_that_are_there_twice_are_warnings() {
    let text = document(
        "mode: nftables\nudpIdleTimeout: 250ms\nconntrack:\n  max: 0\n  min: 1\n  min: 2\niptables: {Masqueradeall: true}\n",
    );
    let file = file(&text).unwrap();
    assert_eq!(
        file.warnings,
        [
            "config.conf:4:17: udpIdleTimeout: is not a field of kube-proxy's configuration; ignored",
            "config.conf:6:8: conntrack.max: is not a field of kube-proxy's configuration; ignored",
            "config.conf:8:8: conntrack.min: is there twice; the last one counts",
            "config.conf:9:27: iptables.Masqueradeall: is not a field of kube-proxy's configuration; ignored",
        ]
    );
    assert_eq!(file.documents.kube_proxy.conntrack.min, Some(2));
    assert_eq!(file.documents.kube_proxy.iptables.masquerade_all, None);
}

#[test]
fn cfg_3_what_cannot_be_decoded_is_named_with_line_and_field() {
    for (text, sentence) in [
        ("", "config.conf: the file is empty"),
        ("# nothing\n---\n", "config.conf: the file is empty"),
        ("mode: [", "config.conf:1:7: mode: unclosed bracket"),
        (
            "- a\n",
            "config.conf:1:1: is not an object; write apiVersion: kubeproxy.config.k8s.io/v1alpha1 and kind: \
                   KubeProxyConfiguration",
        ),
        ("mode: iptables\n", "config.conf:1:1: kind: is missing; write apiVersion: "),
        ("kind: KubeProxyConfiguration\n", "config.conf:1:1: apiVersion: is missing; write apiVersion: "),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha2\nkind: KubeProxyConfiguration\n",
            "config.conf:1:13: apiVersion \"kubeproxy.config.k8s.io/v1alpha2\": not known; write apiVersion: ",
        ),
        (
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n",
            "config.conf:2:7: kind \"KubeletConfiguration\": not known; write apiVersion: ",
        ),
        (
            &document("iptables:\n  masqueradeBit: many\n"),
            "config.conf:4:18: iptables.masqueradeBit: invalid type: string",
        ),
        (&document("iptables:\n  syncPeriod: 30\n"), "config.conf:4:15: iptables.syncPeriod: invalid type: integer"),
        (
            &document("iptables:\n  syncPeriod: soon\n"),
            "config.conf:4:15: iptables.syncPeriod: not a duration; write it",
        ),
        (&document("nodePortAddresses: primary\n"), "config.conf:3:20: nodePortAddresses: invalid type: string"),
        (&document("conntrack: 5\n"), "config.conf:3:12: conntrack: invalid type: integer"),
        (
            &format!("{}---\n{}", document(""), document("")),
            "config.conf:5:7: kind: a second KubeProxyConfiguration; kube-proxy and portway read one",
        ),
    ] {
        let sentences = file(text).expect_err(text);
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        assert!(sentences[0].starts_with(sentence), "{text:?}: {}", sentences[0]);
    }
}

#[test]
fn portways_own_document_stands_behind_kube_proxys() {
    let own = "---\napiVersion: portway.dev/v1alpha1\nkind: PortwayConfiguration\n";
    let settings = load_with(
        &format!("{}{own}refuseUnknownPorts: false\niptablesDispatch: tree\ndisableHealthz: true\n", document("")),
        &[],
    );
    let settings = settings.unwrap().settings;
    assert!(!settings.refuse_unknown_ports && settings.healthz_bind_address.is_none());
    assert_eq!(settings.options.iptables.tree_above, Some(0));
    // By itself it is enough.
    assert!(load_with(own, &[]).is_ok());

    let refused = load_with(&format!("{}{own}iptablesDispatch: bush\n", document("")), &[]).err().unwrap();
    assert_eq!(refused, ["config.conf:6:19: iptablesDispatch \"bush\": not known; use auto, list or tree"]);
    let refused = load_with(&format!("{}{own}a: 1\nmaster: http://h\nb: 1\nmaster: http://i\n", document("")), &[]);
    assert_eq!(
        refused.err().unwrap(),
        [
            "config.conf:6:4: a: is not a setting of portway",
            "config.conf:8:4: b: is not a setting of portway",
            "config.conf:9:9: master: is there twice; remove one of them",
        ]
    );
    let refused = load_with(&format!("{own}{}", document("").replacen("api", "---\napi", 1)), &[]).err().unwrap();
    assert_eq!(
        refused,
        ["config.conf:6:7: kind: KubeProxyConfiguration must be the first document: kube-proxy reads no other"]
    );
}

#[test]
fn documents_that_kube_proxy_does_not_read_are_named() {
    let text = format!("{}---\napiVersion: v1\nkind: ConfigMap\n", document(""));
    assert_eq!(file(&text).unwrap().warnings, ["config.conf:5:7: kind: a document of kind \"ConfigMap\" is ignored"]);
}
