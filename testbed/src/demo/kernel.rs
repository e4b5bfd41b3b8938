//! Picks the elements for one address out of the output of `nft list ruleset`.

use anyhow::{Context, Result};
use portway_testbed::cluster::Namespace;

/// Returns the elements whose keys begin with one of these, a line each after the name of its map or set.
pub(crate) fn excerpt(node: &Namespace, keys: &[&str]) -> Result<String> {
    let ruleset = node.output("nft", &["list", "ruleset"], "").context("nft list ruleset failed")?;
    let mut excerpt = String::new();
    for (holder, element) in elements(&ruleset) {
        if keys.iter().any(|key| element.starts_with(key)) {
            excerpt.push_str(&format!("  {holder:<24} {element}\n"));
        }
    }
    Ok(excerpt)
}

/// Returns every element of a printed rule set with the line that opens its map or set.
fn elements(ruleset: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut holder = String::new();
    let mut inside = false;
    for line in ruleset.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix(" {").filter(|name| name.starts_with("map ") || name.starts_with("set "))
        {
            holder = name.to_owned();
        }
        let rest = if let Some(rest) = line.strip_prefix("elements = {") {
            inside = true;
            rest
        } else {
            line
        };
        if !inside {
            continue;
        }
        let ended = rest.ends_with('}');
        for element in rest.trim_end_matches('}').split(',').map(str::trim).filter(|element| !element.is_empty()) {
            found.push((holder.clone(), element.to_owned()));
        }
        inside = !ended;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_over_several_lines() {
        let ruleset = "table ip portway {\n\tmap services {\n\t\ttypeof ip daddr : verdict\n\t\telements = { 10.0.0.1 . tcp . 80 : goto c2,\n\t\t\t     10.0.0.2 . tcp . 80 : goto c3 }\n\t}\n\tset ips {\n\t\telements = { 10.0.0.1 }\n\t}\n}\n";
        assert_eq!(
            elements(ruleset),
            [
                ("map services".to_owned(), "10.0.0.1 . tcp . 80 : goto c2".to_owned()),
                ("map services".to_owned(), "10.0.0.2 . tcp . 80 : goto c3".to_owned()),
                ("set ips".to_owned(), "10.0.0.1".to_owned()),
            ]
        );
    }
}
