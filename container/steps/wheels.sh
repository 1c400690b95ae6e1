#!/usr/bin/env bash
# Installs Python packages at the versions and sha256 sums of requirement files.
#
#   wheels.sh FILE...
#
# offline/wheels beside steps/, where it exists, is the only place that they are taken from; else pip's index, which
# WHEEL_INDEX may name. The sums are the same either way.
set -euo pipefail
cd "$(dirname "$0")/.."

options=(--no-deps --require-hashes --no-build-isolation --no-cache-dir --disable-pip-version-check --no-input
  --root-user-action=ignore --break-system-packages)
if compgen -G 'offline/wheels/*' >/dev/null; then
  options+=(--no-index --find-links offline/wheels)
elif [ -n "${WHEEL_INDEX:-}" ]; then
  options+=(--index-url "$WHEEL_INDEX")
fi
for file in "$@"; do
  python3 -m pip install "${options[@]}" --requirement "$file"
done
mkdir -p /usr/local/share/mds
python3 -m pip list --format=freeze --disable-pip-version-check >/usr/local/share/mds/python-packages.txt
