//! What kube-proxy has left in the kernel that belongs to none of portway's modes (contract OWN-5): the tables of its
//! nftables mode, and what its ipvs mode leaves. Its iptables chains have the same names as portway's, and iptables mode
//! takes them over or removes them.

use std::io;

use portway_kernel::nftables::{Connection, OwnPorts};
use portway_model::Family;

use crate::nftables;
use crate::report::{Cleanup, DataplaneError, Leftover};

/// The table that kube-proxy's nftables mode keeps in each family.
const TABLE: &str = "kube-proxy";

/// The device that carries the Services' addresses in kube-proxy's ipvs mode.
const IPVS_DEVICE: &str = "kube-ipvs0";

/// The network devices of the calling thread's network namespace.
const DEVICES: &str = "/proc/thread-self/net/dev";

/// Removes the tables of kube-proxy's nftables mode, and names what its ipvs mode has left.
pub fn cleanup() -> Cleanup {
    let mut done = remove_tables();
    done.left.extend(ipvs_leftover());
    done
}

/// Removes the tables of kube-proxy's nftables mode in both families.
pub fn remove_tables() -> Cleanup {
    nftables::cleanup_tables(TABLE)
}

/// Names the tables of kube-proxy's nftables mode that stand in the kernel.
///
/// # Errors
/// If the kernel's tables cannot be listed.
pub fn tables() -> Result<Vec<String>, DataplaneError> {
    let failed = |source: portway_kernel::netlink::NetlinkError| DataplaneError::Kernel {
        operation: "list tables".to_owned(),
        source: source.into(),
    };
    let mut connection = Connection::open(&OwnPorts::default()).map_err(failed)?;
    let mut found = Vec::new();
    for family in Family::ALL {
        if connection.tables(family).map_err(failed)?.iter().any(|table| **table == *TABLE) {
            found.push(nftables::name_of(family, TABLE));
        }
    }
    Ok(found)
}

/// Names the device of kube-proxy's ipvs mode, if it is there. This version of portway removes nothing of IPVS: neither the
/// device nor the virtual servers and sets that go with it.
pub fn ipvs_leftover() -> Option<Leftover> {
    let devices = std::fs::read_to_string(DEVICES).ok()?;
    devices
        .lines()
        .any(|line| line.trim_start().strip_prefix(IPVS_DEVICE).is_some_and(|rest| rest.starts_with(':')))
        .then(|| Leftover {
            object: format!(
                "device {IPVS_DEVICE} of kube-proxy's ipvs mode, with its virtual servers and its sets KUBE-*"
            ),
            error: DataplaneError::Kernel {
                operation: "remove it".to_owned(),
                source: io::Error::other(
                    "portway removes nothing of IPVS; `kube-proxy --cleanup` does, or a restart of the node",
                ),
            },
        })
}
