//! The fields that a document may have, told by an example that has them all.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::config::portway::PortwayConfiguration;
use crate::config::v1alpha1::{KubeProxyConfiguration, VModule};
use crate::documents::FieldPath;

/// The name of the one feature gate of the example: any name stands there.
const ANY: &str = "*";

impl KubeProxyConfiguration {
    /// A configuration that has every field, each with its default where there is one.
    pub(crate) fn example() -> Value {
        let mut example = Self::default().complete("nftables");
        example.feature_gates = BTreeMap::from([(ANY.to_owned(), true)]);
        example.logging.vmodule = vec![VModule { file_pattern: "proxier".to_owned(), verbosity: 2 }];
        example.ipvs.exclude_cidrs = Some(Vec::new());
        example.windows_run_as_service = Some(true);
        for streams in [&mut example.logging.options.json, &mut example.logging.options.text] {
            streams.split_stream = Some(true);
        }
        as_value(&example)
    }
}

impl PortwayConfiguration {
    /// A document that has every field.
    pub(crate) fn example() -> Value {
        as_value(&Self::default().complete())
    }
}

fn as_value(example: &impl Serialize) -> Value {
    serde_json::to_value(example).unwrap_or_default()
}

/// The fields of a document that the example does not have.
pub(super) fn unknown(value: &Value, example: &Value) -> Vec<FieldPath> {
    let mut found = Vec::new();
    collect(value, example, "", &mut found);
    found.iter().map(|path| FieldPath::parse(path)).collect()
}

fn collect(value: &Value, example: &Value, path: &str, found: &mut Vec<String>) {
    match (value, example) {
        (Value::Object(fields), Value::Object(known)) if !known.contains_key(ANY) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(example) => collect(value, example, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(items), Value::Array(known)) => {
            for (index, item) in items.iter().enumerate() {
                let Some(example) = known.first() else { continue };
                collect(item, example, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// All paths of an example's fields, without those that have fields themselves.
#[cfg(test)]
pub(crate) fn leaves(example: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &str, to: &mut Vec<String>) {
        match value {
            Value::Object(fields) if !fields.contains_key(ANY) => {
                for (key, value) in fields {
                    walk(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, to);
                }
            }
            _ => to.push(path.to_owned()),
        }
    }
    let mut paths = Vec::new();
    walk(example, "", &mut paths);
    paths
}

/// Turns the words that YAML 1.1 takes for truth values into them where the example has a truth value: kube-proxy's parser
/// reads `yes` and `off` so.
pub(super) fn lenient_booleans(mut value: Value) -> Value {
    let examples = [KubeProxyConfiguration::example(), PortwayConfiguration::example()];
    for example in &examples {
        convert(&mut value, example);
    }
    value
}

fn convert(value: &mut Value, example: &Value) {
    match (&mut *value, example) {
        (Value::Object(fields), Value::Object(known)) => {
            for (key, value) in fields {
                if let Some(example) = known.get(key).or_else(|| known.get(ANY)) {
                    convert(value, example);
                }
            }
        }
        (Value::String(word), Value::Bool(_)) => match word.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" => *value = Value::Bool(true),
            "no" | "off" | "n" => *value = Value::Bool(false),
            _ => {}
        },
        _ => {}
    }
}
