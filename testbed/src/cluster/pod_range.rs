//! Pods by the thousand: one namespace that answers at every address of a range, as if each were a pod.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::{Cluster, Namespace};

/// The TCP port at which every address of a pod range answers.
pub const POD_RANGE_PORT: u16 = 8080;

/// The two ends of the link between node-1 and the namespace. Nothing else has addresses of this range.
const NODE_END: &str = "169.254.77.1";
const POD_END: &str = "169.254.77.2";

/// The pods of a large cluster: a server at every address of some ranges, behind one link of node-1. The server's name
/// in an answer is the address that the client reached.
#[derive(Debug)]
pub(super) struct PodRange {
    _namespace: Namespace,
}

impl Cluster {
    /// Makes every address of these IPv4 ranges, such as `10.128.0.0/9`, answer TCP connections at [`POD_RANGE_PORT`]. Call this
    /// once at most.
    pub fn add_pod_range(&mut self, ranges: &[&str]) -> io::Result<()> {
        let namespace = Namespace::new("pod-range")?;
        // The default of a new namespace follows the settings of the machine.
        namespace.run(|| std::fs::write("/proc/sys/net/ipv4/conf/default/rp_filter", "0"))?;
        let mut at_node = format!(
            "link add pods type veth peer name eth0 netns {}\nlink set pods up\naddress add {NODE_END}/30 dev pods\n",
            namespace.path().display()
        );
        let mut at_pods = format!(
            "link set lo up\nlink set eth0 up\naddress add {POD_END}/30 dev eth0\nroute add default via {NODE_END}\n"
        );
        for range in ranges {
            at_node.push_str(&format!("route add {range} via {POD_END}\n"));
            at_pods.push_str(&format!("route add local {range} dev lo\n"));
        }
        self.node().output("ip", &["-batch", "-"], &at_node)?;
        namespace.output("ip", &["-batch", "-"], &at_pods)?;
        self.echo.serve_pod_range(&namespace, SocketAddr::from((Ipv4Addr::UNSPECIFIED, POD_RANGE_PORT)))?;
        self.pod_range = Some(PodRange { _namespace: namespace });
        Ok(())
    }
}
