//! What this mode needs of the kernel (contract NFT-16). It has no flags of its own and needs no nft program: portway
//! speaks netlink.

use std::io;

use crate::report::DataplaneError;

/// The oldest kernel that is served, as for kube-proxy's nftables mode; older ones have known faults in nf_tables.
/// portway is tested on 6.1 and later.
const MIN_KERNEL: (u32, u32) = (5, 13);

/// If this is set and not empty, the version is not looked at: some vendors' kernels carry newer parts than they say.
const SKIP_CHECK: &str = "KUBE_PROXY_NFTABLES_SKIP_KERNEL_VERSION_CHECK";

/// Checks that the running kernel is new enough for this mode.
pub(super) fn check_kernel() -> Result<(), DataplaneError> {
    if std::env::var_os(SKIP_CHECK).is_some_and(|value| !value.is_empty()) {
        return Ok(());
    }
    check_release(&rustix::system::uname().release().to_string_lossy())
}

/// Whether a kernel with this release, such as `6.1.0-28-amd64`, is new enough. One that cannot be read counts as such.
fn check_release(release: &str) -> Result<(), DataplaneError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return Ok(()) };
    if (major, minor) >= MIN_KERNEL {
        return Ok(());
    }
    let detail =
        format!("it is {release}, and nftables mode needs {}.{} (set {SKIP_CHECK} to try)", MIN_KERNEL.0, MIN_KERNEL.1);
    Err(DataplaneError::Unusable { what: "this kernel".to_owned(), source: io::Error::other(detail) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nft_16_kernels_before_5_13_are_refused_with_a_sentence() {
        for good in ["5.13.0", "6.1.0-28-amd64", "6.18.44-fc-v669", "7.3.1", "5.15", "a kernel of one's own"] {
            assert!(check_release(good).is_ok(), "{good}");
        }
        for old in ["5.12.19", "4.19.0-27-amd64", "5.4"] {
            let error = check_release(old).unwrap_err().to_string();
            assert!(error.contains(old) && error.contains("5.13"), "{error}");
        }
    }
}
