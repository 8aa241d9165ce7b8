#!/usr/bin/env bash
# A Slurm of one node on loopback, for tests: munged, slurmctld and slurmd without systemd or cgroups. As root.
#   local_slurm.sh install | start | stop
# Everything but the link /etc/slurm/slurm.conf lies in $SLURM_TEST_DIR. The link has to be: the jobs of
# snakemake-executor-plugin-slurm drop SLURM_CONF from their environment.
set -euo pipefail
DIR=${SLURM_TEST_DIR:-${TMPDIR:-/tmp}/tilestack-slurm}
NODE=$(hostname -s)
# Jobs of a batch ask for four cores, and two should run at once; a node may claim more than it has.
CPUS=$(($(nproc) > 8 ? $(nproc) : 8))
MEMORY=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
CONF=$DIR/slurm.conf
LINK=/etc/slurm/slurm.conf

running() { # name: whether the daemon of our own pid file is alive
  local pid
  pid=$(cat "$DIR/$1.pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ]
}

until_true() { # command: tried for 20 s
  for _ in $(seq 80); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.25
  done
  echo "local_slurm.sh: gave up waiting for: $*" >&2
  tail -n 20 "$DIR"/*.log >&2
  return 1
}

install() {
  if command -v slurmctld >/dev/null && command -v munged >/dev/null; then return; fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -qq -y --no-install-recommends slurm-wlm munge
}

configure() {
  mkdir -p "$DIR/state" "$DIR/spool" "$DIR/munge"
  chmod 755 "$DIR"
  chmod 700 "$DIR/munge"
  if [ ! -s "$DIR/munge/key" ]; then (umask 077; head -c 128 /dev/urandom >"$DIR/munge/key"); fi
  cat >"$CONF" <<EOF
# tilestack, tests/slurm/local_slurm.sh
ClusterName=test
SlurmctldHost=$NODE(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/munge.socket
CredType=cred/munge
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0
ReturnToService=2
MinJobAge=3600
KillWait=5
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY State=UNKNOWN
PartitionName=main Nodes=$NODE Default=YES MaxTime=24:00:00 DefMemPerCPU=$((MEMORY / CPUS)) State=UP
EOF
  if [ -e "$LINK" ] && ! grep -q "^# tilestack" "$LINK"; then
    echo "local_slurm.sh: $LINK belongs to another Slurm; it stays as it is" >&2
    return 1
  fi
  mkdir -p /etc/slurm
  ln -sfn "$CONF" "$LINK"
}

start() {
  configure
  if ! running munged; then
    munged --force --key-file="$DIR/munge/key" --socket="$DIR/munge.socket" --pid-file="$DIR/munged.pid" \
      --log-file="$DIR/munge/munged.log" --seed-file="$DIR/munge/seed"
  fi
  until_true munge -n -S "$DIR/munge.socket"
  if ! running slurmctld; then slurmctld; fi
  until_true scontrol ping
  if ! running slurmd; then slurmd; fi
  until_true srun --nodes=1 --ntasks=1 --mem=50 true
}

stop() {
  if running slurmctld; then scancel --user=root --state=RUNNING --state=PENDING || true; fi
  for name in slurmd slurmctld munged; do
    if running "$name"; then
      pid=$(cat "$DIR/$name.pid")
      kill "$pid"
      for _ in $(seq 60); do if [ -d "/proc/$pid" ]; then sleep 0.25; fi; done
    fi
  done
  if [ "$(readlink "$LINK" || true)" = "$CONF" ]; then rm "$LINK"; fi
}

case ${1:-} in
  install | start | stop) "$1" ;;
  *) sed -n 2,5p "$0"; exit 2 ;;
esac
