//! Parses the values of flags as kube-proxy's flag library does.

use std::collections::BTreeMap;

use crate::config::duration::GoDuration;
use crate::config::v1alpha1::VModule;

/// Parses a switch, in any form that Go takes.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("not true or false".to_owned()),
    }
}

/// Parses a whole number of 32 bits.
pub(super) fn number(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| "not a whole number".to_owned())
}

/// Parses a log verbosity.
pub(super) fn verbosity(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(verbosity) if i32::try_from(verbosity).is_ok() => Ok(verbosity),
        _ => Err("not a whole number from 0 on".to_owned()),
    }
}

/// Parses requests a second.
pub(super) fn qps(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|qps: &f32| qps.is_finite()).ok_or_else(|| "not a number".to_owned())
}

/// Parses a duration in the form of Go, such as `1m30s`.
pub(super) fn duration(text: &str) -> Result<GoDuration, String> {
    text.parse().map_err(|error: crate::config::duration::DurationError| error.to_string())
}

/// Adds the items of a list.
pub(super) fn extend(list: &mut Option<Vec<String>>, text: &str) {
    let items = text.split(',').filter(|item| !item.is_empty()).map(str::to_owned);
    list.get_or_insert_default().extend(items);
}

/// Adds feature gates like `A=true,B=false`.
pub(super) fn gates(to: &mut BTreeMap<String, bool>, text: &str) -> Result<(), String> {
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("{pair} is not like Name=true"))?;
        let value = switch(value.trim()).map_err(|reason| format!("{pair}: {reason}"))?;
        to.insert(name.trim().to_owned(), value);
    }
    Ok(())
}

/// Adds verbosities like `pattern=2,other=4`.
pub(super) fn vmodule(to: &mut Vec<VModule>, text: &str) -> Result<(), String> {
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let item = pair.split_once('=').and_then(|(pattern, level)| Some((pattern, verbosity(level).ok()?)));
        let Some((pattern, verbosity)) = item.filter(|(pattern, _)| !pattern.is_empty()) else {
            return Err(format!("{pair} is not like pattern=2"));
        };
        to.push(VModule { file_pattern: pattern.to_owned(), verbosity });
    }
    Ok(())
}
