//! Network namespaces of a test's own.

use std::io::Write;

/// Runs a test in a network namespace of its own, which goes when the test ends, however it ends. Without the rights to
/// make one the test is skipped, and says so.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let entered = std::thread::spawn(move || {
        #[expect(deprecated, reason = "safe for network namespaces: no other thread shares what is unshared")]
        let unshared = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET);
        if let Err(error) = unshared {
            assert!(error == rustix::io::Errno::PERM, "unshare(CLONE_NEWNET): {error}");
            return false;
        }
        test();
        true
    });
    match entered.join() {
        Ok(true) => {}
        Ok(false) => skip("making a network namespace needs root"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Says that a test is skipped where nobody can overlook it; under CI (`CI` in the environment) it fails instead.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped: {why}");
    let _ = writeln!(std::io::stderr(), "\n*** TEST SKIPPED: {why} ***\n");
}
