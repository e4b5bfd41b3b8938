//! Removes what portway, or a kube-proxy before it, has left in the tables (contract CFG-9).

use std::collections::BTreeSet;
use std::io;

use portway_kernel::netlink::NetlinkError;
use portway_kernel::nftables::{Connection, OwnPorts};
use portway_model::Family;

use super::counters::COUNTERS;
use super::diff::{SHARED, is_ours, used_by_others};
use super::localnet;
use super::restore;
use super::rule;
use super::tables::{Table, Tables};
use super::tool::{Flavour, Tool};
use crate::report::{Cleanup, DataplaneError};

/// The chains that the kernel has by itself, in any of the tables.
const BUILT_IN: [&str; 5] = ["INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"];

/// Chains that the line about a left table names.
const MAX_NAMED: usize = 3;

/// A table and one of its chains.
type TableChain = (Table, String);

/// Cleans up both families in both flavours, and the node's settings that portway changed. What kubelet shares stays
/// (contract IPT-15).
///
/// Whether chains are left is asked of the kernel, without any tool: nf_tables lists the chains of both flavours' newer
/// tools, and `/proc` names the tables of the legacy interface, though not their chains. Only removal needs the tools.
pub fn cleanup() -> Cleanup {
    let mut done = Cleanup::default();
    for family in Family::ALL {
        cleanup_nft(family, &mut done);
        cleanup_legacy(family, &mut done);
    }
    // The kernel keeps those that rules still count into.
    for counter in COUNTERS {
        let name = format!("nfacct counter {counter}");
        match portway_kernel::nfacct::delete(counter) {
            Ok(true) => done.removed.push(name),
            Ok(false) => {}
            Err(error) => done
                .leave(name, DataplaneError::Kernel { operation: "delete it".to_owned(), source: error.source.into() }),
        }
    }
    done
}

fn cleanup_nft(family: Family, done: &mut Cleanup) {
    let present = match nft_chains(family) {
        Ok(present) if present.is_empty() => return,
        Ok(present) => present,
        Err(source) => {
            let error = DataplaneError::Kernel { operation: "list chains".to_owned(), source: source.into() };
            done.skip(format!("nf_tables' chains of {family}"), error);
            return;
        }
    };
    match Tool::available(family, Flavour::Nft).and_then(|tool| cleanup_with(&tool, done)) {
        Ok(seen) => {
            let hidden: BTreeSet<TableChain> = present.difference(&seen).cloned().collect();
            if !hidden.is_empty() {
                let (what, detail) = ("iptables-nft-save".to_owned(), "it does not list these chains".to_owned());
                done.leave(describe(family, &hidden), DataplaneError::Answer { what, detail });
            }
        }
        Err(error) => done.leave(describe(family, &present), error),
    }
}

fn cleanup_legacy(family: Family, done: &mut Cleanup) {
    let names = match legacy_tables(family) {
        Some(names) if names.is_empty() => return,
        names => names.unwrap_or_else(|| Table::ALL.to_vec()),
    };
    let names = names.into_iter().map(Table::as_str).collect::<Vec<_>>().join(", ");
    let tables = format!("the legacy tables {names} of {family}");
    let tool = match Tool::available(family, Flavour::Legacy) {
        Ok(tool) => tool,
        Err(error) => return done.skip(tables, error),
    };
    if let Err(error) = cleanup_with(&tool, done) {
        done.leave(tables, error);
    }
}

/// The chains of portway's that nf_tables holds in the tables of iptables, read over netlink.
fn nft_chains(family: Family) -> Result<BTreeSet<TableChain>, NetlinkError> {
    let mut connection = Connection::open(&OwnPorts::default())?;
    let mut present = BTreeSet::new();
    for table in Table::ALL {
        match connection.chains(family, table.as_str()) {
            Ok(chains) => {
                let names = chains.iter().map(|chain| chain.name.to_string());
                present.extend(names.filter(|name| is_ours(name)).map(|name| (table, name)));
            }
            // The kernel has no such table, or no nf_tables at all.
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(present)
}

/// The tables of the legacy interface that this network namespace has; `None` if they cannot be read.
fn legacy_tables(family: Family) -> Option<Vec<Table>> {
    let file = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match std::fs::read_to_string(file) {
        Ok(names) => {
            Some(Table::ALL.into_iter().filter(|table| names.lines().any(|name| name == table.as_str())).collect())
        }
        // The kernel has no legacy interface, or has not loaded it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
        Err(_) => None,
    }
}

/// Names the first chains and the number of the others.
fn describe(family: Family, chains: &BTreeSet<TableChain>) -> String {
    let named: Vec<String> =
        chains.iter().take(MAX_NAMED).map(|(table, chain)| format!("{chain} of table {}", table.as_str())).collect();
    let more = match chains.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{family} chains {}{more}", named.join(", "))
}

/// Cleans up with one pair of tools. Returns the chains that the tool listed.
fn cleanup_with(tool: &Tool, done: &mut Cleanup) -> Result<BTreeSet<TableChain>, DataplaneError> {
    let mut tables = restore::parse_save(&tool.save()?);
    let chains = tables.iter().flat_map(|(table, chains)| chains.keys().map(|chain| (*table, chain.clone())));
    let seen = chains.collect();
    if tables.get(&Table::Mangle).is_some_and(|chains| chains.contains_key(localnet::MARK)) {
        match localnet::disable() {
            Ok(true) => done.removed.push(format!("{}=1", localnet::SYSCTL)),
            Ok(false) => {}
            Err(error) => {
                done.leave(localnet::SYSCTL, error);
                // The mark stays for the next try.
                tables.entry(Table::Mangle).or_default().remove(localnet::MARK);
            }
        }
    }
    let (text, removed) = script(&tables, tool.name());
    if !text.is_empty() {
        tool.restore(&text)?;
    }
    done.removed.extend(removed);
    Ok(seen)
}

/// The restore's input, and a line for each chain that it removes.
fn script(kernel: &Tables, name: &str) -> (String, Vec<String>) {
    let (mut text, mut removed) = (String::new(), Vec::new());
    for (table, chains) in kernel {
        let ours: BTreeSet<&str> = chains.keys().map(String::as_str).filter(|name| is_ours(name)).collect();
        let leads_to_us = |rule: &&String| rule::target(rule).is_some_and(|target| ours.contains(target));
        let jumps = chains.iter().filter(|(chain, _)| BUILT_IN.contains(&chain.as_str()));
        let mut lines: Vec<String> =
            jumps.flat_map(|(_, rules)| rules).filter(leads_to_us).map(|rule| rule.replacen("-A ", "-D ", 1)).collect();
        // A chain that another program's rule leads to cannot be deleted; it is emptied.
        let kept =
            used_by_others(chains, |chain| is_ours(chain) || SHARED.contains(&chain) || BUILT_IN.contains(&chain));
        lines.extend(ours.iter().filter(|chain| !kept.contains(*chain)).map(|chain| format!("-X {chain}")));
        if ours.is_empty() {
            continue;
        }
        let declared: String = ours.iter().map(|chain| format!(":{chain} - [0:0]\n")).collect();
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        text += &format!("*{}\n{declared}{lines}COMMIT\n", table.as_str());
        removed.extend(ours.iter().map(|chain| format!("{name} chain {chain} of table {}", table.as_str())));
    }
    (text, removed)
}
