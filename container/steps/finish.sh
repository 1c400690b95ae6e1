#!/usr/bin/env bash
# The last step of every image: its own test and examples in place, the CUDA toolkit (a folder, empty on CPUs) under the
# name that everybody looks for.
#
#   finish.sh [TOOLKIT]
set -euo pipefail
cd "$(dirname "$0")"

install -m 0755 mds-image-test /usr/local/bin/
install -d /usr/local/share/mds
install -m 0644 share/* /usr/local/share/mds/
if [ -d ../examples ]; then
  install -d /usr/local/share/mds/examples
  install -m 0644 ../examples/* /usr/local/share/mds/examples/
fi
if [ -n "${1:-}" ]; then
  if [ -x "$1/bin/nvcc" ]; then ln -sfn "$1" /usr/local/cuda; else rmdir "$1"; fi
fi
