# shellcheck shell=bash
# Sourced by the other scripts; it is no program of its own.
#
# `make_environment [EXTRA]` makes or reuses .venv in the repository, installs the package into it with that extra
# and sets VENV_PYTHON. pip's own settings hold (pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS, ...). PYTHON names the
# interpreter to start from; else the newest one that fits is taken. An installation that is complete is reused
# without asking pip, so that a second run starts at once and needs no network.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
VENV_PYTHON=$VENV/bin/python
# there while an installation is under way, so that one which was interrupted is known
UNFINISHED=$VENV/.medseg-unfinished

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $1"
  exit 1
}

python_fits() {
  "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1
}

# Prints a Python that can make the environment.
find_python() {
  local name version found="" bare=""
  for name in ${PYTHON:+"$PYTHON"} python3.12 python3.11 python3.10 python3 python; do
    command -v "$name" >/dev/null 2>&1 || continue
    # a name may be a stand-in that starts nothing, as those of pyenv for versions that are not selected
    if ! python_fits "$name"; then
      version=$("$name" --version 2>/dev/null) || version="does not start"
      found="${found:+$found, }$name ($version)"
      [ "$name" != "${PYTHON:-}" ] || break
    elif ! "$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then
      bare=$name
    else
      printf '%s\n' "$name"
      return
    fi
  done
  [ -z "$bare" ] || fail "$bare: found no module venv or ensurepip, allowed a Python with both (Debian and Ubuntu: sudo apt install python3-venv)"
  fail "Python: found ${found:-none}, allowed 3.10, 3.11 or 3.12 (PYTHON=/path/to/python3.11 names one)"
}

# What an installation depends on: if none of it has changed, there is nothing to do.
fingerprint() {
  "$VENV_PYTHON" - "$ROOT" <<'END'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
print(hashlib.sha256((root / "pyproject.toml").read_bytes()).hexdigest(), sys.version.split()[0], root)
END
}

is_installed() {
  [ -f "$VENV/.medseg-installed-${1:-core}" ] && [ "$(cat "$VENV/.medseg-installed-${1:-core}")" = "$(fingerprint)" ]
}

# pip's lines on a terminal, with its bars; elsewhere, as in a log, only the larger downloads and the end.
# Compiling every module of every package takes longer than the download; Python compiles those that it imports.
run_pip() (
  cd -- "$ROOT" || exit
  if [ -t 1 ]; then
    "$VENV_PYTHON" -m pip install --no-compile --log "$VENV/pip.log" "$@"
  else
    "$VENV_PYTHON" -m pip install --no-compile --log "$VENV/pip.log" --progress-bar off "$@" |
      awk '/Downloading .*[0-9] [MG]B|^Installing |^Successfully / { sub(/^ +/, ""); print substr($0, 1, 100); fflush() }'
  fi
)

announce_download() {
  say "Download: about 0.7 GB, 0.2 GB of them torch's CPU build; 3 GB on disk. What pip has kept is not fetched again."
  if [ "$(uname -s)" = Linux ] && ! "$VENV_PYTHON" -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; then
    say "On Linux PyPI's torch comes with CUDA, several GB more; README.md, Install, has the line for the CPU build."
  fi
}

# Where Python is told to write no bytecode, as in many containers, every process would compile torch and MONAI anew,
# which takes it longer than most tests: what it compiles goes into .venv.
keep_bytecode() {
  if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then
    unset PYTHONDONTWRITEBYTECODE
    export PYTHONPYCACHEPREFIX=${PYTHONPYCACHEPREFIX:-$VENV/pycache}
  fi
}

make_environment() {
  local extra=${1:-} python
  if [ -e "$VENV" ] && ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1 &&
    ! "$VENV_PYTHON" -m ensurepip >/dev/null 2>&1; then
    say ".venv: not complete, made anew"
    rm -rf -- "$VENV"
  fi
  if [ -e "$VENV" ]; then
    python_fits "$VENV_PYTHON" ||
      fail ".venv: found $("$VENV_PYTHON" --version), allowed 3.10, 3.11 or 3.12 (remove $VENV and run this again)"
    if is_installed "$extra"; then
      keep_bytecode
      return
    fi
    if [ -f "$UNFINISHED" ] && ! is_installed; then
      say ".venv: an earlier installation did not finish, made anew"
      rm -rf -- "$VENV"
    fi
  fi
  if [ ! -e "$VENV" ]; then
    python=$(find_python) || exit 1
    say "Making .venv with $("$python" --version) ($python)"
    "$python" -m venv "$VENV" || fail ".venv: found that \`$python -m venv\` fails, allowed a Python that makes one"
  fi
  touch "$UNFINISHED"
  say "Installing medseg-ext${extra:+ with what its $extra needs} and the packages it uses into .venv"
  announce_download
  run_pip -e ".${extra:+[$extra]}" ||
    fail "pip: found that the installation fails (see above and $VENV/pip.log), allowed a package index that pip reaches"
  fingerprint >"$VENV/.medseg-installed-core"
  [ -z "$extra" ] || fingerprint >"$VENV/.medseg-installed-$extra"
  rm -f -- "$UNFINISHED"
  keep_bytecode
  say "Installed. From now on .venv is reused."
}
