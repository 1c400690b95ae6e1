#!/usr/bin/env bash
# Gathers the libraries of the wheels that mdstrain loads into /usr/local/lib/mds: all that an image for CPUs needs of
# PyTorch, a third of its size.
set -euo pipefail

packages=$(echo /usr/local/lib/python3*/dist-packages)
mkdir -p /usr/local/lib/mds
ldd /usr/local/bin/mdstrain | awk -v ours="$packages/" 'index($3, ours) == 1 { print $3 }' |
  while read -r library; do cp -L "$library" /usr/local/lib/mds/; done
[ -e /usr/local/lib/mds/libtorch_cpu.so ] || { echo "mdstrain does not link the installed PyTorch" >&2; exit 1; }
for library in /usr/local/lib/mds/*.so*; do
  # shellcheck disable=SC2016  # the loader reads $ORIGIN, not the shell
  patchelf --set-rpath '$ORIGIN' "$library"
done
patchelf --set-rpath /usr/local/lib/mds /usr/local/bin/mdstrain
! ldd /usr/local/bin/mdstrain | grep 'not found'
