//! No input panics, and what is accepted can be written and read again.

use proptest::prelude::*;

use super::{document, file, flags};
use crate::config::Settings;
use crate::config::file::schema::leaves;
use crate::config::flags::{FLAGS, Value};
use crate::config::v1alpha1::KubeProxyConfiguration;

/// Values that are right for some field, wrong for others, and odd.
fn value() -> impl Strategy<Value = String> {
    let words = [
        "true",
        "no",
        "0",
        "-1",
        "14",
        "99999999999999999999",
        "1.5",
        "30s",
        "-5s",
        "1m",
        "9999999h",
        "\"\"",
        "null",
        "~",
        "[]",
        "[primary, 10.0.0.0/8]",
        "{}",
        "{a: b}",
        "10.0.0.0/8",
        "fd00::/48,10.0.0.0/8",
        "127.0.0.1:10249",
        "\"[::]:1\"",
        "node",
        "nftables",
        "ClusterCIDR",
        "json",
        "\"\\0\"",
        "é",
        "*x",
        "&y z",
        "|",
        ">-",
        "!!str 5",
        "?",
        ".inf",
        "0x1F",
        "1_000",
    ];
    prop_oneof![proptest::sample::select(words.to_vec()).prop_map(str::to_owned), "[ -~]{0,12}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(text in "[-a-zA-Z0-9 :{}\\[\\],\"'\n#&*!|>%@~.]{0,120}") {
        let _ = file(&text);
        let _ = file(&document(&text));
    }

    #[test]
    fn no_value_of_any_field_panics(
        fields in proptest::collection::vec((proptest::sample::select(leaves(&KubeProxyConfiguration::example())), value()), 0..6)
    ) {
        let mut text = document("");
        for (path, value) in &fields {
            let keys: Vec<&str> = path.split('.').collect();
            for (depth, key) in keys.iter().enumerate() {
                let end = if depth + 1 == keys.len() { format!(" {value}\n") } else { "\n".to_owned() };
                text.push_str(&format!("{}{key}:{end}", "  ".repeat(depth)));
            }
        }
        if let Ok(file) = file(&text) {
            match Settings::resolve(&file.documents) {
                Ok(settings) => {
                    let written = settings.documents.to_yaml().unwrap();
                    let read = super::file(&written);
                    prop_assert!(read.is_ok(), "{written}\n{:?}", read.err());
                }
                Err(problems) => prop_assert_eq!(file.describe(&problems.0).len(), problems.0.len()),
            }
        }
    }

    #[test]
    fn no_value_of_any_flag_panics(given in proptest::collection::vec((0..FLAGS.len(), value()), 0..8)) {
        let arguments: Vec<String> = given
            .iter()
            .filter(|(index, _)| !matches!(FLAGS[*index].name, "manifests" | "kubeconfig" | "master"))
            .map(|(index, value)| match FLAGS[*index].value {
                Value::Switch | Value::One(_) | Value::List(_) => format!("--{}={value}", FLAGS[*index].name),
            })
            .collect();
        let given = flags(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let documents = given.alone();
        match Settings::resolve(&documents) {
            Ok(settings) => drop((settings.warnings(), settings.pacing())),
            Err(problems) => prop_assert!(!given.describe_all(&problems).is_empty()),
        }
    }
}
