# Sourced by every finding: `venv PACKAGE==VERSION ...` makes an environment in a temporary folder, which is removed at
# the end, and steps into that folder. With FINDINGS_VENV=/path/to/venv that environment is taken instead.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

venv() {
    if [ -z "${FINDINGS_VENV:-}" ]; then
        "${PYTHON:-python3}" -m venv "$work/venv"
        # What these packages need in turn comes in the versions that the project was tested with.
        "$work/venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$here/../requirements.lock" "$@"
    fi
    bin=$(cd "${FINDINGS_VENV:-$work/venv}/bin" && pwd)
    export PATH="$bin:$PATH" PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore OMP_NUM_THREADS=1
    cd "$work"
    python -c 'import sys; from _toy import versions; versions(sys.argv[1:])' "$@"
}

# see TEXT COMMAND...: the command says whether TEXT is still so.
see() {
    text=$1
    shift
    if "$@"; then echo "seen: $text"; else echo "CHANGED: $text"; exit 1; fi
}
