#!/usr/bin/env bash
# Serves the bundles to 3D Slicer with MONAI Label, from an environment of its own; see --help.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<END
usage: scripts/monailabel.sh --studies DIR [--bundle NAME]... [--host ADDRESS] [--port PORT] [--app DIR] [--venv DIR]
       scripts/monailabel.sh --install [--app DIR] [--venv DIR]

Serves the bundles to 3D Slicer with MONAI Label 0.8.5: it segments the studies in DIR, keeps the labels that come back in
DIR/labels and trains on them. The first start installs MONAI Label, several GB; later ones need no network.

  --studies DIR   folder of NIfTI files, side by side: 4-D files with all sequences of a study, or a file a sequence, as
                  p1_flair.nii.gz and p1_t1.nii.gz. Labels are written into it.
  --bundle NAME   a folder of bundles/; again for another (default: all). A training takes all labels in DIR, so give
                  bundles that are to be trained a folder each.
  --host ADDRESS  address to listen on (default: 127.0.0.1, this machine alone; MONAI Label asks nobody for a password)
  --port PORT     port to listen on (default: 8000)
  --app DIR       the server's own folder, with what it trains (default: results/monailabel in the repository)
  --venv DIR      its environment (default: \$MEDSEG_MONAILABEL_VENV, else .venv-monailabel in the repository)
  --install       install and prepare, start nothing
END
}

# What MONAI Label was made for, where its own requirements are too wide: NumPy 2 breaks packages that it is built on.
# How it is installed below, and what it finds in a bundle, is that of this version.
TORCH=("torch>=2.8,<2.14" "torchvision>=0.23,<0.29" "numpy>=1.26,<2" "setuptools>=70.1")
MONAILABEL=("monailabel==0.8.5" "pydicom>=2.4.4,<3" "pynetdicom>=2.0.2,<3" "numpy>=1.26,<2")
studies="" host=127.0.0.1 port=8000 app=$ROOT/results/monailabel venv=${MEDSEG_MONAILABEL_VENV:-$ROOT/.venv-monailabel}
install_only="" bundles=()

# A folder as it is seen from wherever this was called.
absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s/%s\n' "$PWD" "$1" ;; esac; }

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit ;;
    --install) install_only=yes && shift && continue ;;
    --studies | --bundle | --host | --port | --app | --venv) ;;
    *) fail "$1: found an option that there is not, allowed those of scripts/monailabel.sh --help" ;;
  esac
  [ $# -gt 1 ] || fail "$1: found nothing behind it, allowed a value"
  case $1 in
    --studies) studies=$(absolute "$2") ;;
    --bundle) bundles+=("$2") ;;
    --host) host=$2 ;;
    --port) port=$2 ;;
    --app) app=$(absolute "$2") ;;
    --venv) venv=$2 ;;
  esac
  shift 2
done
venv=$(absolute "$venv")
if [ -z "$install_only" ]; then
  [ -n "$studies" ] || fail "--studies: found none, allowed a folder of NIfTI files (scripts/monailabel.sh --help)"
  [ -d "$studies" ] || fail "$studies: found no such folder, allowed a folder of NIfTI files"
fi
case $port in *[!0-9]* | "") fail "--port: found '$port', allowed a number" ;; esac
if [ ${#bundles[@]} -eq 0 ]; then
  for file in "$ROOT"/bundles/*/configs/metadata.json; do
    bundles+=("$(basename "$(dirname "$(dirname "$file")")")")
  done
fi
for name in "${bundles[@]}"; do
  [ -f "$ROOT/bundles/$name/configs/metadata.json" ] ||
    fail "--bundle: found '$name', allowed a folder of $ROOT/bundles"
done

# from here on environment.sh's functions mean this environment
VENV=$venv VENV_PYTHON=$venv/bin/python
# what is there once the installation of each is complete
SERVER=$VENV/.medseg-installed-server
PACKAGE=$VENV/.medseg-installed-monailabel

is_there() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

fits_torchvision() { "$VENV_PYTHON" -c 'import torchvision' >/dev/null 2>&1; }

pip_or_fail() {
  run_pip "$@" ||
    fail "pip: found that the installation fails (see above and $VENV/pip.log), allowed a package index that pip reaches"
}

make_label_environment() {
  local python wanted
  if [ ! -x "$VENV_PYTHON" ]; then
    python=$(find_python) || exit 1
    say "Making $VENV with $("$python" --version) ($python)"
    "$python" -m venv "$VENV" || fail "$VENV: found that \`$python -m venv\` fails, allowed a Python that makes one"
  fi
  python_fits "$VENV_PYTHON" || fail "$VENV: found $("$VENV_PYTHON" --version), allowed 3.10, 3.11 or 3.12"
  wanted="${TORCH[*]} ${MONAILABEL[*]}"
  if ! is_there "$SERVER" "$wanted"; then
    say "Installing ${MONAILABEL[0]} into $VENV: about 7 GB on disk with PyPI's torch for Linux"
    rm -f -- "$PACKAGE"
    install_server
    printf '%s\n' "$wanted" >"$SERVER"
  fi
  if ! is_there "$PACKAGE" "$(fingerprint)"; then
    say "Installing medseg-ext into $VENV"
    say "pip will say that pydicom-seg asks for an older jsonschema: what MONAI Label uses of it does without."
    pip_or_fail -e . "numpy<2"
    fingerprint >"$PACKAGE"
    say "Installed. From now on $VENV is reused."
  fi
}

install_server() {
  local version
  pip_or_fail "${TORCH[@]}"
  if ! fits_torchvision; then
    # torchvision works with the torch of its own index alone, and pip takes a `+cpu` for newer
    version=$("$VENV_PYTHON" -c 'import importlib.metadata as m; print(m.version("torch").split("+")[0])')
    say "torchvision does not work with this build of torch $version, taking the plain build"
    pip_or_fail "torch===$version"
    fits_torchvision || fail "torchvision: found no build that works with torch $version, allowed both from one index"
  fi
  # sam2 comes as source alone, and pip would fetch a second torch to build it with
  SAM2_BUILD_CUDA=0 pip_or_fail --no-build-isolation "sam2>=0.4.1,<2"
  pip_or_fail "${MONAILABEL[@]}"
}

# Links NAME of the app to a file of the repository; a file of the user's own in its place stays.
link() {
  if [ -e "$2" ] && [ ! -L "$2" ]; then
    say "$2: your own file, kept"
  else
    ln -sfn "$1" "$2"
  fi
}

# MONAI Label's app for bundles, with the bundles linked into it: what a training writes goes beside the links.
prepare_app() {
  local name from to file
  if [ ! -f "$app/main.py" ]; then
    [ ! -e "$app" ] || fail "$app: found a folder that is no app of MONAI Label, allowed one that this made, or a new one"
    rm -rf -- "$app.part"
    "$VENV_PYTHON" -m monailabel.main apps --download --name monaibundle --output "$app.part" >/dev/null ||
      fail "$app: found that \`monailabel apps\` fails (see above), allowed a folder that can be written"
    mv -- "$app.part/monaibundle" "$app" && rmdir -- "$app.part"
  fi
  for name in "${bundles[@]}"; do
    from=$ROOT/bundles/$name to=$app/model/$name
    mkdir -p -- "$to/configs" "$to/models"
    for file in LICENSE configs/inference.json configs/train.json configs/metadata.json configs/logging.conf \
      models/model.pt; do
      [ ! -f "$from/$file" ] || link "$from/$file" "$to/$file"
    done
    # under the name that MONAI Label looks for where there are several GPUs
    link "$from/configs/multi_gpu.yaml" "$to/configs/multi_gpu_train.yaml"
    # there from the first start on, so that clients offer it: the shipped weights until a training replaces them
    [ -e "$to/models/model_trained.pt" ] || ln -sfn model.pt "$to/models/model_trained.pt"
  done
}

make_label_environment
prepare_app
[ -z "$install_only" ] || exit 0

"$VENV_PYTHON" - "$host" "$port" <<'END' || exit 1
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
try:
    with socket.create_server((host, port)):
        pass
except (OSError, OverflowError) as error:
    sys.exit(f"error: {host}:{port}: found {getattr(error, 'strerror', None) or error}, allowed a free port of this machine")
END

address=http://$host:$port
cat <<END

MONAI Label starts at $address with ${bundles[*]}; Ctrl-C ends it.

3D Slicer  Extensions Manager: install MONAILabel, restart. Module MONAI Label: server $address, then the green arrow.
           "Next Sample" opens a study, "Auto Segmentation: Run" draws, "Submit Label" keeps the label in
           $studies/labels/final.
           "Train" starts from the weights that Options, trainers, model_filename names; its result is
           model_trained.pt, which Options, models, model_filename has "Run" use.
OHIF       $address/ohif/ is MONAI Label's own viewer; it shows DICOM from a DICOMweb server, not the files of a folder.
Programs   $address/ describes the requests.
MLflow     $VENV/bin/mlflow ui --backend-store-uri "sqlite:///$app/mlruns.db" shows trainings with tracking.

END

export MONAI_LABEL_TRACKING_URI=${MONAI_LABEL_TRACKING_URI:-sqlite:///$app/mlruns.db}
# without a zoo_source MONAI Label asks the network for a list of bundles, with sam2 for weights
exec "$VENV_PYTHON" -m monailabel.main start_server --app "$app" --studies "$studies" --host "$host" --port "$port" \
  --conf models "$(IFS=,; echo "${bundles[*]}")" --conf zoo_source ngc --conf sam2 false
