#!/bin/bash
# A real Slurm of two nodes on this machine, in namespaces of its own; all of it ends with COMMAND.
#
# usage, as root: slurm.sh DIR COMMAND...     DIR: empty, on a path of at most 40 characters
# Wants Debian's slurm-wlm and munge. The controller and COMMAND share one namespace of processes
# and network, the nodes n1 and n2 have one each: `ray stop` on a node sees that node's only.
set -eu
if [ "${1:-}" != inside ]; then
    code=0
    FREEZER=/sys/fs/cgroup/freezer/slurm-$$
    export FREEZER
    unshare --mount --net --pid --uts --ipc --fork --kill-child --mount-proc \
        "$0" inside "$@" || code=$?
    [ ! -d "$FREEZER" ] || find "$FREEZER" -depth -type d -exec rmdir {} \; 2> /dev/null
    exit "$code"
fi
dir=$(realpath "$2")
shift 2
mkdir -p "$dir/state" "$dir/spool/n1" "$dir/spool/n2" "$dir/netns" /run/netns

# What belongs to a job is known by its control group, as on real clusters, or by its process group.
track=pgid
if [ -d /sys/fs/cgroup/freezer ]; then
    track=cgroup
    mkdir -p "$FREEZER/n1" "$FREEZER/n2"
fi

hostname ctl
printf '%s\n' '127.0.0.1 localhost' '10.77.0.254 ctl' '10.77.0.1 n1' '10.77.0.2 n2' > "$dir/hosts"
mount --bind "$dir/hosts" /etc/hosts
mount --bind "$dir/netns" /run/netns
mount --make-shared /run/netns
ip link set lo up
ip link add br0 type bridge
ip addr add 10.77.0.254/24 dev br0
ip link set br0 up
for i in 1 2; do
    ip netns add "n$i"
    ip link add "v$i" type veth peer name eth0 netns "n$i"
    ip link set "v$i" master br0 up
    ip -n "n$i" link set lo up
    ip -n "n$i" addr add "10.77.0.$i/24" dev eth0
    ip -n "n$i" link set eth0 up
done

cat > "$dir/slurm.conf" << CONF
ClusterName=here
SlurmctldHost=ctl(10.77.0.254)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
ProctrackType=proctrack/$track
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=20
GresTypes=gpu
NodeName=n[1-2] CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=60 State=UP
CONF
echo 'CgroupPlugin=cgroup/v1' > "$dir/cgroup.conf"
export SLURM_CONF=$dir/slurm.conf
(umask 077 && head -c 1024 /dev/urandom > "$dir/munge.key")
munged --force --foreground --num-threads=2 --key-file="$dir/munge.key" \
    --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" \
    --seed-file="$dir/munged.seed" 2> "$dir/munged.err" &
while [ ! -S "$dir/munge.socket" ]; do sleep 0.2; done
slurmctld -D > "$dir/slurmctld.out" 2>&1 &
for i in 1 2; do    # the shell stays, to reap what loses its parent
    # shellcheck disable=SC2016
    nsenter --net="/run/netns/n$i" unshare --mount --uts --pid --ipc --fork --kill-child --mount-proc \
        bash -c 'hostname "$1"; [ ! -d "$2" ] || mount --bind "$2" /sys/fs/cgroup/freezer
            slurmd -D -N "$1" & wait' node "n$i" "$FREEZER/n$i" > "$dir/n$i.out" 2>&1 &
done
for _ in $(seq 120); do
    [ "$(sinfo -h -t idle -o %D 2> /dev/null)" != 2 ] || break
    sleep 0.5
done
"$@"
