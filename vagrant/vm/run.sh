#!/bin/bash
# `./run vm`: the real `vagrant up` of this checkout on a machine without Vagrant's servers, KVM or systemd; and its datapath on
# other kernels.
# usage: run.sh DEBIAN-PACKAGES up[@SUITE] [PYTEST-ARG...]
#        run.sh DEBIAN-PACKAGES KERNEL[@SUITE]... [PYTEST-ARG...]
set -euo pipefail
cd "$(dirname "$0")/../.."
packages=$1
shift
export TMPDIR=$PWD/build/vm VAGRANT_HOME=$PWD/build/vm/vagrant VAGRANT_DOTFILE_PATH=$PWD/build/vm/state
export VAGRANT_DEFAULT_PROVIDER=libvirt VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_BOX_UPDATE_CHECK_DISABLE=1

usage() {
  cat <<'TEXT'
usage: ./run vm up[@SUITE] [ARG...]
       ./run vm KERNEL[@SUITE]... [ARG...]

  up [ARG...]       makes a box of the packages of Debian's bookworm, or of SUITE, does the real `vagrant up` of this
                    checkout with it (libvirt, software emulation, namespaces of its own), runs `./run test --quick ARG...`
                    inside (without ARG tests/datapath: what another kernel could change) and a benchmark, provisions it
                    again, reloads and destroys it. The machine's network, firewall and libvirt are not touched; the box
                    stays in build/vm for the next time. VSFW_HOSTS=2 for two machines
  6.1 6.12@trixie   boots Debian's newest kernel of each version, with the userland of bookworm or of SUITE, runs those tests of
                    the datapath in which the kernel has a part, and notes what came of them in README.md, "Kernels"; or
                    what ARG... says to pytest (files, -k WORDS), and notes nothing. Twenty minutes each at most
TEXT
}

# Tests in which the kernel itself has a part: devices, hooks, segments, its verifier.
kernel_tests=(-m "not deep" tests/datapath/test_{kernel,verdicts,wire,attach}.py)

begun=${VSFW_VM_BEGUN:-$(date +%s)}
step() { printf '==> [%4d s] %s\n' $(($(date +%s) - begun)) "$*"; }

quietly() {  # the machine says thousands of times how far a copy is
  stdbuf -oL tr '\r' '\n' | grep --line-buffered -v 'Progress: '
}

box_of() {  # box_of SUITE KERNEL: the file's name; made if there is none of these packages
  local file
  file=build/vm/$1-$2-$(cat vagrant/vm/box.sh pyproject.toml - <<< "$packages" | sha256sum | cut -c -12).box
  if [ ! -e "$file" ]; then
    step "box: $1 with $2 and what the project needs of Debian" >&2
    # shellcheck disable=SC2086  # a list of words
    vagrant/vm/box.sh "$file" "$1" "$2" $packages > build/vm/box.log 2>&1 || { tail -n 20 build/vm/box.log >&2; return 1; }
  fi
  echo "$file"
}

up() {  # up SUITE [PYTEST-ARG...]
  local box
  box=$(box_of "$1" linux-image-cloud-amd64)
  export VSFW_BOX=debian/${1}64
  shift
  VSFW_VM_BEGUN=$begun vagrant/vm/isolated.sh "$PWD/build/vm/libvirt" "$0" "$packages" inside "$box" "$@"
}

kernels() {  # kernels KERNEL[@SUITE]... [PYTEST-ARG...]
  local wanted=() each suite box disk kernel noted="" result=0
  while [[ ${1:-} == [0-9]* ]]; do
    wanted+=("$1")
    shift
  done
  [ $# -gt 0 ] || { set -- "${kernel_tests[@]}"; noted=1; }
  for each in "${wanted[@]}"; do
    suite=bookworm
    [[ $each != *@* ]] || suite=${each#*@}
    box=$(box_of "$suite" linux-image-cloud-amd64)
    disk=${box%.box}.qcow2
    [ -e "$disk" ] || { tar -xOf "$box" box.img > "$disk.part" && mv "$disk.part" "$disk"; }
    step "kernel ${each%@*}"
    kernel=$(vagrant/vm/kernel.sh build/vm/kernels "${each%@*}" 2> build/vm/kernel.log) ||
      { tail -n 3 build/vm/kernel.log >&2; return 1; }
    step "$(basename "$kernel") with $suite"
    vagrant/vm/boot.sh "$kernel" "$disk" "build/vm/results/$each" "$@"
    python3 vagrant/vm/kernels.py "build/vm/results/$each/junit.xml" ${noted:+"$each"} || result=$?
  done
  step "ended with status $result"
  return $result
}

inside() {  # with libvirt at hand
  local box=$1 result=0
  shift
  step "box added under the name that the Vagrantfile says"
  vagrant box add --force --name "$VSFW_BOX" --provider libvirt "$box" 2>&1 | quietly > build/vm/add.log
  whole_life "$@" || result=$?
  [ $result = 0 ] || in_host1 "journalctl --no-pager -b -p warning -n 40" || true
  step "vagrant destroy"
  vagrant destroy -f --no-color
  left=$(virsh -q -c qemu:///system list --all --name)
  [ -z "$left" ] || { echo "left: $left" >&2; result=1; }
  step "ended with status $result"
  return $result
}

whole_life() {  # every line ends it that fails: `set -e` is off where the status is asked for
  [ $# -gt 0 ] || set -- tests/datapath
  step "vagrant up"
  timeout 3600 vagrant up --no-color 2>&1 | quietly || return
  enforced || return
  step "./run test --quick $* inside"
  VSFW_TEST="$*" timeout 3600 vagrant provision host1 --no-color --provision-with test 2>&1 | quietly || return
  step "./run bench --quick traffic inside"
  timeout 1800 vagrant provision host1 --no-color --provision-with bench 2>&1 | quietly || return
  step "vagrant provision: once more, and nothing changes"
  local before
  before=$(unchanging)
  timeout 1200 vagrant provision --no-color 2>&1 | quietly || return
  diff <(echo "$before") <(unchanging) || return
  step "vagrant reload"
  timeout 1200 vagrant reload --no-color 2>&1 | quietly || return
  enforced || return
}

in_host1() { vagrant ssh host1 --no-tty -c "sudo sh -c '$1'"; }

enforced() {  # what `vagrant up` ends with, and is there again after a boot: the client reaches web, web app, and not db
  step "the three-tier policy is in force"
  local of="ip netns exec vsfw-tiers-vm" ping="ping -c3 -W5"
  in_host1 "timeout 600 sh -c \"until systemctl is-active vsfw-tiers; do sleep 2; done\" && vsfwctl status && vsfwctl hosts &&
            $of-client $ping 10.20.0.10 && timeout 600 sh -c \"until $of-web $ping 10.20.0.11; do sleep 2; done\" &&
            ! $of-web $ping 10.20.0.12 && ! $of-client $ping 10.20.0.12"
}

unchanging() {  # identities, passwords, and which processes serve
  in_host1 "find /etc/vsfwd /etc/rabbitmq/rabbitmq.conf /root/.config/vsfwctl/manager.toml -type f -exec sha256sum {} +
            systemctl show -p Id,MainPID vsfwd vsfwd-manager rabbitmq-server"
}

mkdir -p build/vm
case ${1:-} in
  up) shift; up bookworm "$@" ;;
  up@*) suite=${1#up@}; shift; up "$suite" "$@" ;;
  inside) "$@" ;;
  [0-9]*) kernels "$@" ;;
  -h|--help) usage ;;
  *) usage >&2; exit 2 ;;
esac
