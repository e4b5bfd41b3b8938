//! Which address families the kernel has (contract CFG-14).

use std::path::Path;

use portway_model::Family;

/// Whether the kernel serves this family. A kernel that was built without IPv6, or started with `ipv6.disable=1`, has no
/// list of its addresses.
pub fn supports(family: Family) -> bool {
    supported_below(Path::new("/"), family)
}

/// The families that a mode of both serves, with a line in the log if that is IPv4 alone.
pub(crate) fn supported() -> Vec<Family> {
    let supported: Vec<Family> = Family::ALL.into_iter().filter(|family| supports(*family)).collect();
    if supported == [Family::V4] {
        tracing::info!("only IPv4 is served; this kernel has no IPv6");
    }
    supported
}

fn supported_below(root: &Path, family: Family) -> bool {
    match family {
        Family::V4 => true,
        Family::V6 => root.join("proc/net/if_inet6").exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_14_a_kernel_without_ipv6_serves_ipv4_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |root: &Path| Family::ALL.map(|family| supported_below(root, family));
        assert_eq!(of(folder.path()), [true, false]);
        std::fs::create_dir_all(folder.path().join("proc/net")).expect("a folder");
        // Empty, as where no interface has an address.
        std::fs::write(folder.path().join("proc/net/if_inet6"), "").expect("a file");
        assert_eq!(of(folder.path()), [true, true]);
    }
}
