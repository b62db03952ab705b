#!/usr/bin/env bash
# Makes or reuses .venv, installs the package, then runs scripts/quickstart.py with the arguments given:
#   ./scripts/quickstart.sh               segments and scores phantom studies
#   ./scripts/quickstart.sh --data DIR    the same with the studies in DIR
#   ./scripts/quickstart.sh --help
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
make_environment
exec "$VENV_PYTHON" "$ROOT/scripts/quickstart.py" "$@"
