# Sourced by local.sh and test.sh: `set_up [EXTRA,...]` makes .venv in the repository root and installs the project there
# with the versions of constraints.txt. It does nothing when that was done before and nothing has changed since.
# PYTHON chooses the interpreter (default: python3). pip keeps its own settings (PIP_INDEX_URL and so on).

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

check_python() {
    local python="$1"
    if ! command -v "$python" > /dev/null; then
        echo "launch/setup.sh: $python not found: install Python 3.11 or newer, or set PYTHON to its path" >&2
        return 1
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "launch/setup.sh: Python 3.11 or newer is needed, but $python is $("$python" -V 2>&1 | cut -d ' ' -f 2):" \
            "install a newer one, or set PYTHON to its path" >&2
        return 1
    fi
}

make_venv() {
    local python="$1" venv="$2" clear=""
    if [[ "$("$python" -V 2>&1)" != "$("$venv/bin/python" -V 2>&1)" ]]; then
        clear="--clear"  # one of another version, or none
    fi
    if "$python" -c 'import ensurepip' 2> /dev/null; then
        "$python" -m venv $clear "$venv"
    else  # some distributions split ensurepip off; the interpreter's own pip can fill the environment
        "$python" -m venv $clear --without-pip "$venv"
        "$python" -m pip -qq --disable-pip-version-check --python "$venv/bin/python" install pip
    fi
}

set_up() (
    set -euo pipefail
    extra="${1:-}"
    venv="$root/.venv"
    stamps=("$venv/.installed-base")
    for part in ${extra//,/ }; do
        stamps+=("$venv/.installed-$part")
    done
    # The path is part of it, because a moved .venv is a broken one.
    python="${PYTHON:-python3}"
    wanted="$root $("$python" -V 2>&1) $(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)"
    missing=0
    for stamp in "${stamps[@]}"; do
        [[ -f "$stamp" && "$(< "$stamp")" == "$wanted" ]] || missing=1
    done
    if [[ -x "$venv/bin/python" && "$missing" == 0 ]]; then
        return
    fi

    check_python "$python"
    if [[ -x "$venv/bin/python" ]]; then
        echo "updating .venv (pyproject.toml, constraints.txt or the wanted extras changed)"
    else
        echo "setting up .venv (the first time takes a few minutes)"
    fi
    rm -f "$venv"/.installed-*
    make_venv "$python" "$venv"
    "$venv/bin/python" -m pip -qq --disable-pip-version-check install \
        -c "$root/constraints.txt" -e "$root${extra:+[$extra]}"
    for stamp in "${stamps[@]}"; do
        echo "$wanted" > "$stamp"
    done
)
