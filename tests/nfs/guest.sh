#!/bin/bash
# The first process of the guest: makes an NFS server, mounts it of itself by v3 and by v4.2, and runs a command there.
#
# Usage: guest.sh OUTCOME HIDDEN... -- COMMAND...
# OUTCOME is a folder of the host that gets the command's exit status. HIDDEN are folders below /tmp that the command
# needs to see: /tmp is the guest's own. The root is the host's, read-only; everything is written below mounts of the
# guest, and OUTCOME is mounted at /mnt/outcome.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8

outcome=$1
shift
mount -t proc proc /proc
# The end of the first process would be a kernel panic; whatever happens, the machine goes off instead.
trap 'sync; echo o >/proc/sysrq-trigger; sleep 60' EXIT
trap 'echo "the guest could not be set up: line $LINENO of guest.sh failed"' ERR

dmesg --console-off
mount -t sysfs sysfs /sys
for folder in /run /mnt /tmp /var/lib/nfs; do
    mount -t tmpfs tmpfs "$folder"
done
mkdir -p /dev/shm /mnt/outcome
mount -o remount,mode=1777,size=80% /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t hostfs none /mnt/outcome -o "$outcome"
while [ "$1" != -- ]; do
    mkdir -p "$1"
    mount -r -t hostfs none "$1" -o "$1"
    shift
done
shift
cd "$PWD"  # which may be among them

ip link set lo up
for module in ipv6 nfsd nfsv3 nfsv4 nfs; do
    modprobe -d /mnt/outcome/modules "$module"
done
mkdir -p /run/rpcbind /run/sendsigs.omit.d /mnt/export /mnt/v3 /mnt/v4.2
mkdir -p /var/lib/nfs/{v4recovery,sm,sm.bak,rpc_pipefs,nfsdcltrack,nfsdcld}
touch /var/lib/nfs/{etab,rmtab}
mount -t ext4 /dev/ubda /mnt/export
mount -t nfsd nfsd /proc/fs/nfsd
rpcbind -w
rpc.statd
# The options that a test returns to when it has tried others are in tests/nfs/server.py.
exportfs -o rw,no_root_squash,fsid=0,insecure,no_subtree_check,sync 127.0.0.1:/mnt/export
rpc.nfsd --grace-time 10 --lease-time 10 4
rpc.mountd
# Hard mounts, as production has them: a call waits for its server for ever.
mount -t nfs -o vers=3,hard 127.0.0.1:/mnt/export /mnt/v3
mount -t nfs4 -o vers=4.2,hard 127.0.0.1:/ /mnt/v4.2

export B10_NFS_GUEST=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
status=0
# Through a pipe, because the console is a terminal.
"$@" </dev/null 2>&1 | cat || status=$?
echo "$status" >/mnt/outcome/status
