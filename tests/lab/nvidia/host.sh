#!/bin/sh
# STAND-IN for GPUs and their driver, for a lab host (run there as root; it reads nothing but itself).
#
#   docker exec -i -e GPUS=2 HOST sh -s < host.sh
#
# DRIVER=570.195.03 takes another driver; BARE=1 none at all: GPUs that wait for a driver (the stand-in's packages bring one).
#
# What it lays down is what a host with a driver has, as far as a container toolkit looks at it:
#   /dev/nvidia0 …, /dev/nvidiactl, /dev/nvidia-uvm   a harmless character device of the kernel under those names: it can
#                                       be opened, and only where the device cgroup allows it (not one of the engine's defaults)
#   /usr/bin/nvidia-smi                 prints what a recorded machine's said, for the device nodes that are there
#   libcuda.so.1, libnvidia-ml.so.1     text files with the right names
#   /lib/modules/$(uname -r)/modules.dep    names nvidia.ko, which NVIDIA's refresh unit looks for
#   /proc/driver/nvidia/version        what a module of that version says there, in a tmpfs over /proc/driver
#   /usr/local/sbin/modprobe           "loads" the module that is installed, when asked for nvidia
# A module stays loaded until the host restarts, as a real one does: with another driver installed, nvidia-smi then says that
# they do not match. The real thing replaces all this by not running it.
# GPU processes: one line "pid, name" each in /etc/devnode-lab-gpu/processes. Number of GPUs: /etc/devnode-lab-gpu/count.
set -eu
driver=${DRIVER:-580.95.05}
libs=/usr/lib/$(uname -m)-linux-gnu

mkdir -p /etc/devnode-lab-gpu /usr/local/libexec "$libs"
printf '%s\n' "${GPUS:-2}" >/etc/devnode-lab-gpu/count

if [ -z "${BARE:-}" ]; then
mkdir -p /usr/lib/devnode-lab-gpu
echo "$driver open" >/usr/lib/devnode-lab-gpu/module
cat >/usr/bin/nvidia-smi <<'SMI'
#!/bin/sh
# STAND-IN for nvidia-smi: a recorded machine's output, for the device nodes that are there. As the real one, it numbers
# only what it sees, so that inside a container the first device is GPU 0.
uuid() {
  case $1 in
    0) echo GPU-3f1a7c52-8d0e-4b6f-9a41-c2e57d90b813 ;;
    1) echo GPU-b86e04d9-27c3-4f15-8e6a-5d19f3a07c44 ;;
    2) echo GPU-71d5e9a0-4c38-4a2b-b7f6-09e8c1d2a35f ;;
    *) echo "GPU-c0a8f3d7-15b2-4e94-a6c1-$(printf '%012x' "$1")" ;;
  esac
}
seen() {
  n=0
  while [ "$n" -lt 16 ]; do
    [ -e "/dev/nvidia$n" ] && echo "$n"
    n=$((n + 1))
  done
}
driver=@DRIVER@
list= apps= query= header=1 units=1
for word; do
  case $word in
    -L | --list-gpus) list=1 ;;
    --query-gpu=*) query=${word#*=} ;;
    --query-compute-apps=*) apps=${word#*=} ;;
    --format=*)
      case ,${word#*=}, in *,csv,*) ;; *) echo "\"--format=${word#*=}\" is not valid. 'csv' is expected." && exit 2 ;; esac
      case $word in *noheader*) header= ;; esac
      case $word in *nounits*) units= ;; esac
      ;;
    *) echo "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help." && exit 2 ;;
  esac
done
# On the host it needs the driver's module. (Containers have a /proc of their own, without the stand-in's.)
if [ -d /etc/devnode-lab-gpu ]; then
  if [ ! -e /proc/driver/nvidia/version ]; then
    echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running."
    exit 9
  fi
  if ! grep -qF " $driver " /proc/driver/nvidia/version; then
    echo "Failed to initialize NVML: Driver/library version mismatch"
    echo "NVML library version: ${driver%.*}"
    exit 18
  fi
fi
if [ -z "$(seen)" ] || [ ! -e /dev/nvidiactl ]; then
  echo "No devices were found"
  exit 6
fi
if [ -n "$list" ]; then
  index=0
  for n in $(seen); do
    echo "GPU $index: NVIDIA L4 (UUID: $(uuid "$n"))"
    index=$((index + 1))
  done
elif [ -n "$apps" ]; then
  [ -z "$header" ] || echo "$apps" | sed 's/,/, /g'
  cat /etc/devnode-lab-gpu/processes 2>/dev/null || true
elif [ -n "$query" ]; then
  [ -z "$header" ] || echo "$query" | sed 's/,/, /g'
  index=0
  for n in $(seen); do
    row=
    for field in $(echo "$query" | tr ',' ' '); do
      case $field in
        index) value=$index ;;
        uuid | gpu_uuid) value=$(uuid "$n") ;;
        name | gpu_name) value='NVIDIA L4' ;;
        pci.bus_id | gpu_bus_id) value="00000000:0$((n + 1)):00.0" ;;
        driver_version) value=$driver ;;
        compute_cap) value=8.9 ;;
        mig.mode.current) value='[N/A]' ;;
        memory.total) value="23034${units:+ MiB}" ;;
        memory.used) value="1${units:+ MiB}" ;;
        memory.free) value="22563${units:+ MiB}" ;;
        utilization.gpu) value="0${units:+ %}" ;;
        temperature.gpu) value=41 ;;
        *) echo "Field \"$field\" is not a valid field to query." && exit 2 ;;
      esac
      row="${row:+$row, }$value"
    done
    echo "$row"
    index=$((index + 1))
  done
else
  case $driver in 570.*) cuda=12.8 ;; 580.*) cuda=13.0 ;; *) cuda=13.1 ;; esac
  line='+-----------------------------------------------------------------------------------------+'
  echo "$line"
  printf '| %-87s |\n' "NVIDIA-SMI $driver              Driver Version: $driver      CUDA Version: $cuda"
  echo "$line"
  index=0
  for n in $(seen); do
    printf '| %-87s |\n' "  $index  NVIDIA L4                      Off |   00000000:0$((n + 1)):00.0 Off |        0"
    printf '| %-87s |\n' "N/A   41C    P8             16W /   72W |       1MiB /  23034MiB |      0%      Default"
    index=$((index + 1))
  done
  echo "$line"
fi
SMI
sed -i "s/@DRIVER@/$driver/" /usr/bin/nvidia-smi
chmod 0755 /usr/bin/nvidia-smi

for name in libcuda libnvidia-ml; do
  echo "STAND-IN for $name of driver $driver" >"$libs/$name.so.$driver"
  ln -sf "$name.so.$driver" "$libs/$name.so.1"
done
fi

cat >/usr/local/libexec/devnode-lab-gpu <<'UP'
#!/bin/sh
# STAND-IN for a driver that loads: what its module says in /proc, device nodes, and a module list that names it.
set -eu
if [ ! -e /usr/lib/devnode-lab-gpu/module ]; then
  echo "modprobe: FATAL: Module nvidia not found in directory /lib/modules/$(uname -r)" >&2
  exit 1
fi
if [ ! -e /proc/driver/nvidia/version ]; then
  read -r version flavour </usr/lib/devnode-lab-gpu/module
  case $flavour in
    open) what="UNIX Open Kernel Module for $(uname -m)" ;;
    *) what="UNIX $(uname -m) Kernel Module" ;;
  esac
  mount -t tmpfs -o mode=0555 devnode-lab-gpu /proc/driver
  mkdir -p /proc/driver/nvidia
  echo "NVRM version: NVIDIA $what  $version  Release Build  (STAND-IN)" >/proc/driver/nvidia/version
fi
number=$(awk '$2 == "fuse" { print $1 }' /proc/misc)
set -- c "${number:+10}" "${number:-}"
[ -n "$number" ] || set -- c 1 3
count=$(cat /etc/devnode-lab-gpu/count)
rm -f /dev/nvidia[0-9]*
n=0
while [ "$n" -lt "$count" ]; do
  mknod -m 0666 "/dev/nvidia$n" "$@"
  n=$((n + 1))
done
for name in nvidiactl nvidia-uvm nvidia-uvm-tools; do
  rm -f "/dev/$name"
  [ "$count" = 0 ] || mknod -m 0666 "/dev/$name" "$@"
done
modules=/lib/modules/$(uname -r)
mkdir -p "$modules"
[ "$count" != 0 ] || { rm -f "$modules/modules.dep"; exit 0; }
grep -qs nvidia.ko "$modules/modules.dep" || echo 'updates/dkms/nvidia.ko:' >>"$modules/modules.dep"
UP
chmod 0755 /usr/local/libexec/devnode-lab-gpu

cat >/usr/local/sbin/modprobe <<'PROBE'
#!/bin/sh
# STAND-IN for modprobe where the module is nvidia; the host's own for all others.
for word; do :; done
[ "${word:-}" != nvidia ] || exec /usr/local/libexec/devnode-lab-gpu
exec /usr/sbin/modprobe "$@"
PROBE
chmod 0755 /usr/local/sbin/modprobe

cat >/etc/systemd/system/devnode-lab-gpu.service <<'UNIT'
[Unit]
Description=STAND-IN for the NVIDIA driver: device nodes
ConditionPathExists=/usr/lib/devnode-lab-gpu/module
DefaultDependencies=no
After=systemd-tmpfiles-setup-dev.service
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/libexec/devnode-lab-gpu

[Install]
WantedBy=sysinit.target
UNIT
systemctl daemon-reload
systemctl enable --quiet devnode-lab-gpu.service
systemctl restart devnode-lab-gpu.service
[ -n "${BARE:-}" ] || nvidia-smi -L || [ "${GPUS:-2}" = 0 ]
