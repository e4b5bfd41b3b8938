//! Changes of the file while the program runs (contract CFG-7).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::document;
use crate::config::{ConfigFile, changed};

/// Longer than a change takes to be noticed, and shorter than the next look without a hint.
const SOON: Duration = Duration::from_secs(5);

/// Long enough for a change to be noticed that must not end the program.
const A_WHILE: Duration = Duration::from_millis(1500);

/// A folder as kubelet makes it for a ConfigMap: the file is a link through `..data` to a folder that is replaced.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(text: &str) -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        mount.publish("first", text);
        symlink("..data/config.conf", mount.file()).unwrap();
        mount
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("config.conf")
    }

    fn publish(&self, name: &str, text: &str) {
        let folder = self.0.path();
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("config.conf"), text).unwrap();
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }
}

/// Makes a change while the file is watched, and tells whether the change would end the program in this time.
async fn ends_after(path: &Path, wait: Duration, change: impl FnOnce()) -> bool {
    let file = ConfigFile::read(path).unwrap();
    let watching = tokio::spawn(async move { changed(&file).await });
    // The watch is there once the first look is over.
    tokio::time::sleep(Duration::from_millis(200)).await;
    change();
    timeout(wait, watching).await.is_ok()
}

fn file_with(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.conf");
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[tokio::test]
async fn cfg_7_a_file_that_is_written_or_renamed_over_ends_the_program() {
    let (folder, path) = file_with(&document("mode: nftables\n"));
    assert!(ends_after(&path, SOON, || fs::write(&path, document("mode: iptables\n")).unwrap()).await);
    let beside = folder.path().join("new");
    let rename = || {
        fs::write(&beside, document("mode: \"\"\n")).unwrap();
        fs::rename(&beside, &path).unwrap();
    };
    assert!(ends_after(&path, SOON, rename).await);
}

#[tokio::test]
async fn cfg_7_a_config_map_that_is_updated_ends_the_program() {
    let mount = Mount::new(&document("mode: nftables\n"));
    let file = mount.file();
    assert!(!ends_after(&file, A_WHILE, || mount.publish("same", &document("mode: nftables\n"))).await);
    assert!(ends_after(&file, SOON, || mount.publish("second", &document("mode: iptables\n"))).await);
}

#[tokio::test]
async fn cfg_7_a_file_that_cannot_be_used_does_not_end_the_program() {
    let good = document("mode: nftables\n");
    let (_folder, path) = file_with(&good);
    for bad in ["", "kind: [", &document("mode: userspace\n"), "kind: KubeProxyConfiguration\n"] {
        assert!(!ends_after(&path, A_WHILE, || fs::write(&path, bad).unwrap()).await, "{bad:?}");
        fs::write(&path, &good).unwrap();
    }
    assert!(!ends_after(&path, A_WHILE, || fs::remove_file(&path).unwrap()).await);
}

#[tokio::test]
async fn cfg_7_a_file_that_is_put_right_ends_the_program_then() {
    let (_folder, path) = file_with(&document("mode: nftables\n"));
    let file = ConfigFile::read(&path).unwrap();
    let mut watching = tokio::spawn(async move { changed(&file).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    fs::write(&path, "").unwrap();
    assert!(timeout(A_WHILE, &mut watching).await.is_err());
    fs::write(&path, document("mode: iptables\n")).unwrap();
    assert!(timeout(SOON, watching).await.is_ok());
}
