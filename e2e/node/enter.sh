# The first process of a node's namespaces (mount, network, PID), made by Main: makes them a machine of their own, then
# runs the tests as its child and, as an init, waits for whatever loses its parent. When it ends, the kernel ends the rest.
set -euo pipefail

mount -t proc proc /proc # of this PID namespace: what the node sees of processes are its own

# A /sys of this network namespace that keeps the control groups, which are the machine's. All of it before mounts are
# shared, or the machine's own would come along.
cgroups=$(mktemp -d)
mount --rbind /sys/fs/cgroup "$cgroups"
umount -R -l /sys
mount -t sysfs sysfs /sys
mount --rbind "$cgroups" /sys/fs/cgroup
umount -R -l "$cgroups"
rmdir "$cgroups"

# What a node writes is in memory, and vanishes with it. (/mnt has what the tests themselves write.)
for folder in /run /mnt /etc/cni /etc/kubernetes /opt/cni \
  /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/log/containers; do
  mkdir -p "$folder"
  mount -t tmpfs tmpfs "$folder"
done
mkdir -p /run/lock /run/netns /mnt/tmp /etc/kubernetes/manifests /etc/cni/net.d /opt/cni/bin

# The kubelet sets these, and they are the machine's: files of the same name stand before them.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=/mnt/sysctl/${setting%%=*}
  mkdir -p "${file%/*}"
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%%=*}"
done
# Another boot is another text in this file, see Node.Reboot.
cp /proc/sys/kernel/random/boot_id /mnt/boot_id
mount --bind /mnt/boot_id /proc/sys/kernel/random/boot_id

mount --make-rshared / # volumes with mount propagation need it, and nobody outside is a peer
ip link set lo up
export TMPDIR=/mnt/tmp
"$@" && status=0 || status=$?
exit "$status"
