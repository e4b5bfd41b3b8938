//! What portway's tests, demo and benchmarks run on. The program itself does not use this crate.
//!
//! * [`apiserver`]: a small Kubernetes API server with faults on demand (a crate of its own);
//! * [`cluster`]: hosts made of network namespaces, and the links between them;
//! * [`echo`]: servers that answer with their own name and the source address that they saw;
//! * [`probe`]: one request from a host, and its outcome;
//! * [`load`]: continuous new connections, and connections that stay open;
//! * [`objects`]: Services, EndpointSlices, Nodes and ServiceCIDRs, as events of the model and as JSON of the API;
//! * [`proxy`]: the proxy under test: any program as a process, or a dataplane within this process;
//! * [`foreign`], [`table_owner`]: other programs that write nf_tables at the same time;
//! * [`flows`]: the flow table: which client reaches which backend, and what the backend sees;
//! * [`trace`]: recorded clusters, replayed through the API server.
//!
//! All packets stay in namespaces that end with this process.

pub mod cluster;
pub mod echo;
pub mod flows;
pub mod foreign;
pub mod load;
pub mod objects;
pub mod probe;
pub mod proxy;
pub mod table_owner;
pub mod trace;

pub use portway_apiserver as apiserver;

/// Names what this machine lacks for clusters of network namespaces: root, or programs in PATH. `None` if nothing.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let lacking: Vec<&str> = ["ip", "nft", "setpriv"].into_iter().filter(|program| !is_there(program)).collect();
    if lacking.is_empty() { None } else { Some(format!("{} in PATH", lacking.join(", "))) }
}
