//! Pods by the thousand: whole ranges of addresses that one namespace answers, each as a pod of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::{Cluster, Namespace};

/// The port at which every address of a field answers, over TCP.
pub const FIELD_PORT: u16 = 8080;

/// The two ends of the link between node-1 and the field. Nothing else has addresses of this range.
const NODE_END: &str = "169.254.77.1";
const FIELD_END: &str = "169.254.77.2";

/// What stands for the pods of a large cluster: servers at every address of some ranges, behind one link of node-1. The
/// server's name in an answer is the address that was reached.
#[derive(Debug)]
pub(super) struct Field {
    _namespace: Namespace,
}

impl Cluster {
    /// Makes every address of these IPv4 ranges, such as `10.128.0.0/9`, answer TCP connections at [`FIELD_PORT`]. May be
    /// called once.
    pub fn add_field(&mut self, ranges: &[&str]) -> io::Result<()> {
        let field = Namespace::new("field")?;
        // Loose ends of a reverse path would otherwise be a matter of the machine's own settings.
        field.run(|| std::fs::write("/proc/sys/net/ipv4/conf/default/rp_filter", "0"))?;
        let mut at_node = format!(
            "link add field type veth peer name eth0 netns {}\nlink set field up\naddress add {NODE_END}/30 dev field\n",
            field.path().display()
        );
        let mut at_field = format!(
            "link set lo up\nlink set eth0 up\naddress add {FIELD_END}/30 dev eth0\nroute add default via {NODE_END}\n"
        );
        for range in ranges {
            at_node.push_str(&format!("route add {range} via {FIELD_END}\n"));
            at_field.push_str(&format!("route add local {range} dev lo\n"));
        }
        self.node().output("ip", &["-batch", "-"], &at_node)?;
        field.output("ip", &["-batch", "-"], &at_field)?;
        self.echo.serve_field(&field, SocketAddr::from((Ipv4Addr::UNSPECIFIED, FIELD_PORT)))?;
        self.field = Some(Field { _namespace: field });
        Ok(())
    }
}
