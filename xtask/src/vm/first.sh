#!/bin/busybox sh
# The virtual machine's first program: puts the host's root file system, read-only, under a layer in memory that takes
# what is written, and goes over to it. Runs from the archive that the kernel starts with.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t devtmpfs dev /dev
$B mount -t sysfs sys /sys
for module in /modules/*.ko; do $B insmod "$module" || echo "cannot load $module"; done

SHARE=trans=virtio,version=9p2000.L,msize=524288
$B mount -t 9p -o $SHARE,ro,cache=loose root /lower || echo "the host's files are not there"
$B mount -t tmpfs tmpfs /upper
$B mkdir /upper/files /upper/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /new || echo "no overlay"

for directory in proc sys dev run; do $B mkdir -p /new/$directory; done
RELEASE=$($B uname -r)
for directory in proc dev sys; do $B mount --move /$directory /new/$directory; done
$B mount -t tmpfs tmpfs /new/run
$B mkdir -p /new/run/netns /new/run/control /new/dev/pts /new/dev/shm "/new/usr/lib/modules/$RELEASE"
$B mount -t 9p -o $SHARE,ro,cache=loose modules "/new/usr/lib/modules/$RELEASE"
$B mount -t 9p -o $SHARE control /new/run/control
# Where the command may leave files behind on the host.
if [ -e /new/run/control/results ]; then
  RESULTS=$($B cat /new/run/control/results)
  $B mkdir -p "/new$RESULTS"
  $B mount -t 9p -o $SHARE results "/new$RESULTS"
fi
$B mount -t devpts devpts /new/dev/pts
$B mount -t tmpfs tmpfs /new/dev/shm
$B mount -t bpf bpf /new/sys/fs/bpf
$B mount -t cgroup2 cgroup /new/sys/fs/cgroup
$B cp $B /second /new/run/
# Process 1 itself changes its root, so that the kernel finds modprobe there.
exec $B switch_root /new /run/busybox sh /run/second
