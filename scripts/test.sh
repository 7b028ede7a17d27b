#!/usr/bin/env bash
# Install what the tests need into .venv and run every check: bash scripts/test.sh [PYTEST OPTIONS]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/system_packages.sh
install_system_packages
unset PYTHONDONTWRITEBYTECODE # what is imported is compiled once, not by each process
make_environment all,test,dev,docs
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet --site-dir "$(mktemp -d)"
# A process per core, so one thread each; files stay together, as their fixtures are shared, and
# in their order: the longest tests come first.
export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
set -- -n auto --dist loadfile --no-loadscope-reorder "$@"
if [ "$(uname)" = Linux ]; then
  exec xvfb-run -a -s "-screen 0 1600x1000x24" .venv/bin/python -m pytest "$@"
fi
exec .venv/bin/python -m pytest "$@"
