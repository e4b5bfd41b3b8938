//! The flow table: which client reaches which backend by which address, and what the backend sees, as the contract has it.
//!
//! A scenario is a text file: the proxy's options, the Services with their endpoints, and flows, each of which is sent
//! as real packets through a cluster of network namespaces. The files state all expected values; nothing is computed from
//! the Plan. Any [`Proxy`](crate::proxy::Proxy) can be under test.
//!
//! ```text
//! proxy cluster-cidr 10.1.0.0/16 fd00:1::/32    configuration of the proxy; also masquerade-all, node-cidr, bridge NAME,
//!                                               interface-prefix NAME, nodeport-addresses CIDR… | all | primary
//! zone a                                        the zone that node-1 is in
//!
//! service front LoadBalancer 10.96.0.30 fd00:96::30     type and cluster IPs; the next lines add to it
//!   port https 443/tcp -> 8443 nodePort 30443   443/tcp+udp makes two ports; the default target is 8080
//!   externalTrafficPolicy Local                 also internalTrafficPolicy
//!   ingress 203.0.113.5 2001:db8:113::5         `mode Proxy` at the end sets ipMode
//!   externalIPs 198.51.100.5
//!   sourceRanges 192.0.2.100/32
//!   affinity 600                                in seconds; or `none`
//!   endpoints pod-1-a pod-2-a                   ready ones
//!   endpoint pod-1-b terminating                also: unready, terminating-unserving, port=8081, zones=a,b, nodes=node-1
//!
//! client -> front.lb:443/tcp : pod-1-a, source own            [MASQ-4 TOPO-7]
//!
//! then                                          a later state of the same cluster; flows above have run
//! change front                                  the next lines change it; any endpoint line replaces all endpoints
//! gone front
//! wait 1500ms
//! ```
//!
//! A flow goes from a host (`pod-1-a`, `node-1`, `client`; `stranger` and `crowd` are other addresses of the client) to a
//! Service's cluster IP (`front`), load balancer address (`front.lb`), external IP (`front.external`), to a host
//! (`node-1`, `node-1.second`, `node-1.loopback`, `node-1.gateway`) or to an address, and is sent in every family that
//! the destination has.
//!
//! A client that is `holding` (`pod-1-c holding -> front:53/udp : pod-1-a, source own`) keeps its sockets, and later flows
//! of the same client to the same destination use them again. Each is answered by one of the expected backends: by the
//! one that answered it last if that is among them, else soon by another.
//!
//! A flow that proves REJ-4 or NFT-18 is for nftables only, one that proves NP-2 or NP-3 for iptables only; other modes
//! skip it and say so.
//!
//! The expected outcome is the set of backends that answer, every one of them in enough repetitions (`pod-1-a`, or
//! `pod-1-a:8081` where the port matters); `refused`; `dropped` (silence); `untouched` (it left the node as it came, and the
//! router of the wire answered). The source that the backend sees: `source own` (the client's; the node's where a backend
//! reaches itself, MASQ-5), `source node` (one of node-1's) or `source any`. For affinity: `sticks` (each
//! client address reaches one backend, which is recorded), `same` (each client reaches the recorded backend), `moved` (at
//! least one client does not), `kept` (each client whose recorded backend is among these does); `as NAME` shares the
//! records between destinations.

mod expect;
mod held;
mod parse;
mod report;
mod run;
mod scenario;

pub use parse::{ParseError, parse};
pub use report::{Summary, print_failures};
pub use run::{FlowResult, Verdict, run};
pub use scenario::{Affinity, AffinityKind, Destination, Expected, Flow, Scenario, Source, SourceSeen, Step};
