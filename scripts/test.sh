#!/usr/bin/env bash
# Makes or reuses .venv with what the tests need, then runs lint, types and tests; arguments go to pytest, with
# paths seen from the repository:
#   ./scripts/test.sh                     the default suite
#   ./scripts/test.sh -m slow             the tests that it leaves out
#   ./scripts/test.sh tests/layouts -x
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
make_environment test

# the tests' arrays are small: more threads than this only wait for each other
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} MPLBACKEND=Agg

failed=()
step() {
  local name=$1
  shift
  say "== $name"
  "$VENV_PYTHON" -m "$@" || failed+=("$name")
}

cd -- "$ROOT"
step "ruff check" ruff check
step "ruff format" ruff format --check
step "mypy" mypy
step "pytest" pytest "$@"

if [ ${#failed[@]} -gt 0 ]; then
  say "failed: $(IFS=,; echo "${failed[*]}")"
  exit 1
fi
say "all passed"
