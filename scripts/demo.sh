#!/usr/bin/env bash
# Install into .venv and classify the bundled blood cells: bash scripts/demo.sh [--screenshot FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/system_packages.sh
install_system_packages
make_environment all
if [ $# = 0 ] && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && [ "$(uname)" = Linux ]; then
  set -- --screenshot mambamic-demo.png
fi
exec .venv/bin/mambamic demo "$@"
