#!/usr/bin/env bash
# Installs named sets of Debian packages into the image that is being built.
#
#   packages.sh SET...
#
# Debian's official images say in their sources which snapshot of the archive they were made from. Packages come from
# that same snapshot, so that the digest of the base pins every one of them. APT_MIRROR (scheme://host/path of a Debian
# archive) is used instead where it is given; a base without a snapshot keeps its own sources.
set -euo pipefail

declare -A sets=(
  # What mdslaunch, mdsagent and mdstrain link.
  [run]="ca-certificates libdw1 libhwloc15 libpugixml1v5 libssl3 libstdc++6 libyaml-0-2"
  # What compiles them (the same list as build_packages in .ci/setup; container/lint.py compares).
  [build]="cmake ninja-build g++ make pkg-config python3 python3-venv libboost-dev libboost-program-options-dev
           libpugixml-dev libyaml-dev libdw-dev libhwloc-dev libspdlog-dev libtomlplusplus-dev nlohmann-json3-dev
           libssl-dev libpmix-dev catch2"
  # pip installs wheels below /usr/local, where Debian's python3 finds them whatever the environment says.
  [wheels]="python3 python3-pip python3-setuptools patchelf"
  # Python with a compiler: torch.compile, Triton and DeepSpeed start one when they need code that is not built yet.
  [python]="ca-certificates python3 python3-pip python3-dev g++ make ninja-build pkg-config"
  # Without libibverbs and its providers in the image NCCL falls back to TCP, and says so only in its debug output.
  [network]="libibverbs1 ibverbs-providers ibverbs-utils librdmacm1 libucx0 ucx-utils libnuma1 numactl iproute2
             openmpi-bin libpmix2 libpmi2-0 openssh-client"
  [source]="git ca-certificates xz-utils patch"
)

pin_to_snapshot() {
  local file
  if [ -n "${APT_MIRROR:-}" ]; then
    # shellcheck disable=SC1091
    (. /etc/os-release && echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $APT_MIRROR \
$VERSION_CODENAME main" >/etc/apt/sources.list)
    rm -f /etc/apt/sources.list.d/*
    return
  fi
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    # "# URL-of-the-snapshot" stands above the line that it was replaced by.
    awk '/^# https?:.*\/archive\// { snapshot = $2; next }
         /^URIs:/ && snapshot { print "URIs: " snapshot; print "Check-Valid-Until: no"; snapshot = ""; next }
         { print }' "$file" >"$file.new"
    mv "$file.new" "$file"
  done
}

packages=()
for set in "$@"; do
  [ -n "${sets[$set]:-}" ] || { echo "packages.sh: no set named '$set'; there are: ${!sets[*]}" >&2; exit 2; }
  read -ra more <<<"${sets[$set]//$'\n'/ }"
  packages+=("${more[@]}")
done

pin_to_snapshot
export DEBIAN_FRONTEND=noninteractive
# One user id is all that a build without privileges may have: apt must not change to its own user.
apt=(apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3)
"${apt[@]}" update
# With one user id some packages cannot give their files to the groups that they make: fakeroot lets them believe so.
probe=$(mktemp)
if ! chown 0:42 "$probe" 2>/dev/null; then
  "${apt[@]}" install -y --no-install-recommends fakeroot
  apt=(env FAKEROOTDONTTRYCHOWN=1 fakeroot -- "${apt[@]}")
fi
rm -f "$probe"
"${apt[@]}" install -y --no-install-recommends "${packages[@]}"
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
mkdir -p /usr/local/share/mds
dpkg-query -W -f='${Package}=${Version}\n' >/usr/local/share/mds/debian-packages.txt
