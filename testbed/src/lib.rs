//! What portway's tests, demo and benches run on. Nothing of the program itself uses this crate.
//!
//! * [`agent`]: portway itself, as a process on a node;
//! * [`apiserver`]: a small Kubernetes API server with faults on demand;
//! * [`cluster`]: hosts made of network namespaces, and the links between them;
//! * [`echo`]: servers that say who they are and whom they saw;
//! * [`probe`]: requests from a host, and what became of them;
//! * [`objects`]: Services and their endpoints in such a cluster;
//! * [`proxy`]: what stands under test on its first node;
//! * [`stream`]: connections without pause, and connections that stay;
//! * [`flows`]: the flow table, who reaches what from where;
//! * [`trace`]: recorded clusters, played back through the API server.
//!
//! Everything that sends packets stays in namespaces that end with this process.

pub mod agent;
pub mod apiserver;
pub mod cluster;
pub mod echo;
pub mod flows;
pub mod objects;
pub mod probe;
pub mod proxy;
pub mod stream;
pub mod trace;

/// What this machine lacks for clusters of network namespaces, if it lacks anything: root, or a program.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let lacking: Vec<&str> = ["ip", "nft", "setpriv"].into_iter().filter(|program| !is_there(program)).collect();
    if lacking.is_empty() { None } else { Some(format!("{} in PATH", lacking.join(", "))) }
}
