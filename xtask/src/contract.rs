//! Checks which test proves which behaviour: docs/contract.md lists the behaviours, and test names begin with their IDs.
//!
//! `svc_7_proxy_mode_ingress_gets_no_rule` proves SVC-7; a name may have several IDs (`rej_1_np_7_…`). A flow of the flow
//! table proves the IDs at its end (`[MASQ-4 TOPO-7]`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::tool;

/// Options of `cargo xtask contract`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Writes the tests that were found into docs/contract.md.
    #[arg(long)]
    write: bool,
}

const LIST: &str = "docs/contract.md";

/// Marks a behaviour that is not implemented yet; the reason follows.
const LATER: &str = "later: ";

/// A test whose name has at least one ID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    name: String,
    file: PathBuf,
}

/// Maps each ID to its tests.
type Proofs = BTreeMap<String, Vec<Test>>;

/// Prints or writes the list of behaviours with their tests.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let list = read_list()?;
    let filled = fill(&list, &proofs()?);
    if options.write {
        fs::write(tool::root().join(LIST), filled).with_context(|| format!("cannot write {LIST}"))?;
    } else {
        print!("{filled}");
    }
    Ok(if check()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks that every behaviour has a test or a reason to come later, that every ID of a test is listed, and that the list
/// names the existing tests. Prints the complaints.
pub(crate) fn check() -> Result<bool> {
    println!("==> contract coverage: {LIST}");
    let proofs = proofs()?;
    let list = read_list()?;
    let complaints = complaints(&list, &proofs);
    for complaint in &complaints {
        println!("    {complaint}");
    }
    let rows: Vec<_> = list.lines().filter_map(row).collect();
    let later = rows.iter().filter(|row| row.proof.starts_with(LATER)).count();
    let verdict = if complaints.is_empty() { "passed" } else { "FAILED" };
    let proven = rows.iter().filter(|row| proofs.contains_key(row.id)).count();
    println!("    {verdict}: {} behaviours, {proven} proven, {later} later", rows.len());
    Ok(complaints.is_empty())
}

fn read_list() -> Result<String> {
    fs::read_to_string(tool::root().join(LIST)).with_context(|| format!("cannot read {LIST}"))
}

/// The complaints about the list.
fn complaints(list: &str, proofs: &Proofs) -> Vec<String> {
    let mut complaints = Vec::new();
    let rows: BTreeMap<_, _> = list.lines().filter_map(row).map(|row| (row.id, row.proof)).collect();
    for (id, proof) in &rows {
        if !proofs.contains_key(*id) && !proof.starts_with(LATER) {
            complaints.push(format!("{id} has no test: name one {}_…, or write `{LATER}reason`", prefix(id)));
        }
    }
    for (id, tests) in proofs {
        if !rows.contains_key(id.as_str()) {
            complaints.push(format!("{id} is not listed, but {} names it", tests[0].name));
        }
    }
    if complaints.is_empty() && fill(list, proofs) != list {
        complaints.push(format!("{LIST} does not name the existing tests: run cargo xtask contract --write"));
    }
    complaints
}

/// The list with the tests filled in.
fn fill(list: &str, proofs: &Proofs) -> String {
    let mut filled = String::with_capacity(list.len());
    for line in list.lines() {
        match row(line).and_then(|row| proofs.get(row.id).map(|tests| (row, tests))) {
            Some((row, tests)) => {
                let tests: Vec<_> =
                    tests.iter().map(|test| format!("[`{}`](../{})", test.name, test.file.display())).collect();
                filled.push_str(&format!("| {} | {} | {} |", row.id, row.behaviour, tests.join(", ")));
            }
            None => filled.push_str(line),
        }
        filled.push('\n');
    }
    filled
}

/// A row of the list.
struct Row<'a> {
    id: &'a str,
    behaviour: &'a str,
    proof: &'a str,
}

fn row(line: &str) -> Option<Row<'_>> {
    let cells: Vec<_> = line.strip_prefix("| ")?.strip_suffix('|')?.splitn(3, " | ").collect();
    let [id, behaviour, proof] = cells[..] else { return None };
    let (section, number) = id.split_once('-')?;
    let is_id = section.bytes().all(|byte| byte.is_ascii_uppercase()) && number.parse::<u16>().is_ok();
    is_id.then(|| Row { id, behaviour: behaviour.trim(), proof: proof.trim() })
}

fn prefix(id: &str) -> String {
    id.to_lowercase().replace('-', "_")
}

/// All tests of portway whose names have an ID.
fn proofs() -> Result<Proofs> {
    let mut proofs = Proofs::new();
    for folder in ["proxy", "testbed", "benches"] {
        collect(Path::new(folder), &mut proofs)?;
    }
    for tests in proofs.values_mut() {
        tests.sort();
        tests.dedup();
    }
    Ok(proofs)
}

fn collect(directory: &Path, proofs: &mut Proofs) -> Result<()> {
    let entries = fs::read_dir(tool::root().join(directory)).with_context(|| format!("cannot read {directory:?}"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {directory:?}"))?;
        let path = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if !NOT_PORTWAY.iter().any(|folder| path.ends_with(folder)) {
                collect(&path, proofs)?;
            }
            continue;
        }
        let read = || fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path:?}"));
        let named: Vec<(String, String)> = match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => {
                let text = read()?;
                test_names(&text).flat_map(|name| ids(name).into_iter().map(|id| (id, name.to_owned()))).collect()
            }
            Some("flow") => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                flow_ids(&read()?).into_iter().map(|id| (id, name.clone())).collect()
            }
            _ => Vec::new(),
        };
        for (id, name) in named {
            proofs.entry(id).or_default().push(Test { name, file: path.clone() });
        }
    }
    Ok(())
}

/// Names of the functions that carry a test attribute.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if !(line.starts_with("#[") || line.starts_with("//")) {
            let was = std::mem::take(&mut marked);
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
            return was.then(|| function.split(['(', '<']).next()).flatten();
        }
        None
    })
}

/// The IDs at the beginning of a test's name.
fn ids(name: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut words = name.split('_');
    while let (Some(section), Some(number)) = (words.next(), words.next()) {
        if !SECTIONS.contains(&section) || !number.bytes().all(|byte| byte.is_ascii_digit()) || number.is_empty() {
            break;
        }
        ids.push(format!("{}-{number}", section.to_uppercase()));
    }
    ids
}

/// The IDs at the end of a scenario's flows.
fn flow_ids(text: &str) -> Vec<String> {
    let lists = text.lines().filter_map(|line| line.trim_end().strip_suffix(']')?.rsplit_once('[').map(|(_, ids)| ids));
    let is_id = |word: &&str| {
        let Some((section, number)) = word.split_once('-') else { return false };
        SECTIONS.contains(&section.to_lowercase().as_str()) && number.parse::<u16>().is_ok()
    };
    lists.flat_map(|ids| ids.split_whitespace().filter(is_id)).map(str::to_owned).collect()
}

/// The prefixes of the IDs, in the order of the contract's sections.
const SECTIONS: &[&str] = &[
    "svc", "ep", "watch", "topo", "rej", "masq", "np", "aff", "ipt", "nft", "ipvs", "hc", "hz", "ct", "met", "cfg",
    "own",
];

/// Folders whose tests show something about the API server for tests, and nothing about portway.
const NOT_PORTWAY: &[&str] = &["testbed/apiserver"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_proves_the_ids_at_its_beginning() {
        assert_eq!(ids("svc_7_proxy_mode"), ["SVC-7"]);
        assert_eq!(ids("rej_1_np_7_refused"), ["REJ-1", "NP-7"]);
        assert_eq!(ids("ct_3"), ["CT-3"]);
        assert!(ids("services_7_are_there").is_empty());
        assert!(ids("svc_seven").is_empty());
    }

    #[test]
    fn flows_prove_the_ids_at_their_end() {
        let text = "pod-1-a -> x : pod-1-b   [MASQ-4 TOPO-7]\nclient -> y : dropped\n# [SVC-x]\n";
        assert_eq!(flow_ids(text), ["MASQ-4", "TOPO-7"]);
    }

    #[test]
    fn only_functions_marked_as_tests_count() {
        let text =
            "#[test]\nfn a() {}\nfn b() {}\n#[tokio::test(flavor = \"x\")]\n/// Why.\n#[cfg(y)]\nasync fn c() {}\n";
        assert_eq!(test_names(text).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn every_id_has_a_test_or_comes_later() {
        let list = "| ID | Behaviour | Proof |\n|---|---|---|\n| SVC-1 | One. | |\n| SVC-2 | Two. | later: why |\n";
        assert_eq!(complaints(list, &Proofs::new()).len(), 1);
        let test = Test { name: "svc_1_x".into(), file: "a.rs".into() };
        let proofs = Proofs::from([("SVC-1".to_owned(), vec![test])]);
        assert_eq!(complaints(list, &proofs).len(), 1, "the list does not name the test");
        let filled = fill(list, &proofs);
        assert!(filled.contains("| SVC-1 | One. | [`svc_1_x`](../a.rs) |\n"), "{filled}");
        assert!(complaints(&filled, &proofs).is_empty());
        assert_eq!(fill(&filled, &proofs), filled);
    }

    #[test]
    fn an_id_that_is_not_listed_is_named() {
        let test = Test { name: "svc_99_x".into(), file: "a.rs".into() };
        let proofs = Proofs::from([("SVC-99".to_owned(), vec![test])]);
        assert_eq!(complaints("", &proofs), ["SVC-99 is not listed, but svc_99_x names it"]);
    }
}
