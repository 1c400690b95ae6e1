#!/usr/bin/env bash
# Builds mdslaunch, mdsagent and mdstrain from source/ against the PyTorch that is installed, into /usr/local. Or takes
# offline/programs, an installation that was made on the same Debian (make install PREFIX=...).
#
#   programs.sh [CMAKE ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."

torch=$(dirname "$(find /usr/local/lib/python3*/dist-packages/torch -maxdepth 1 -name __init__.py)")
if [ -x offline/programs/bin/mdslaunch ]; then
  cp -a offline/programs/. /usr/local/
else
  # Wheels before 2.6 have the old layout of std::string, and whatever shares strings with them must have it, too.
  abi=1
  [[ $(nm -DC "$torch/lib/libc10.so") != *'c10::Error::Error(c10::SourceLocation, std::string)'* ]] || abi=0
  cmake -G Ninja -S source -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr/local \
    -DBUILD_TESTING=OFF -DCMAKE_PREFIX_PATH="$torch" \
    -DCMAKE_CXX_FLAGS="-D_GLIBCXX_USE_CXX11_ABI=$abi ${CXXFLAGS:-}" "$@"
  # A file that includes ATen takes up to 1.5 GB to compile.
  jobs=$(awk -v cores="$(nproc)" '/^MemAvailable/ { n = int($2 / 1.5e6); print n < 1 ? 1 : n < cores ? n : cores }' \
    /proc/meminfo)
  cmake --build build --parallel "$jobs"
  cmake --install build
  rm -rf build
fi
patchelf --set-rpath "$torch/lib" /usr/local/bin/mdstrain
