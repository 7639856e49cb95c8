# Shared by the scripts of this folder; sourced, not run.
#
#   UNIMO_ROOT          the checkout
#   UNIMO_VENV          the virtual environment, .venv in the checkout unless set
#   unimo_setup EXTRAS  make the environment and install `.[EXTRAS]`, unless that is done already; with paddlenlp and
#                       paddleclas (`zoo`) where their pins fit: Python 3.10 and 3.11
#   unimo_python        the interpreter to use: that of the environment if there is one, else `python`
#   unimo_launch TOOL   run a tool of tools/ on as many ranks as asked for

UNIMO_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
UNIMO_VENV="${UNIMO_VENV:-$UNIMO_ROOT/.venv}"
# Paddle's GPU builds are not on PyPI; this index holds those for CUDA 12.6.
PADDLE_INDEX="${PADDLE_INDEX:-https://www.paddlepaddle.org.cn/packages/stable/cu126/}"

unimo_fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

# A pyenv shim answers to `python3.10` even where it cannot start it, so every candidate is started.
unimo_is_python() {
    "$1" -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

unimo_find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        unimo_is_python "$PYTHON" || unimo_fail "PYTHON=$PYTHON is not Python 3.10 to 3.13"
        echo "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.10 python3.13 python3.12 python3 python; do
        if unimo_is_python "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    unimo_fail "Python 3.10 to 3.13 is needed and none was found;
install one, e.g. 'apt-get install python3.11 python3.11-venv' or 'pyenv install 3.11', or set PYTHON=/path/to/python3.11"
}

unimo_python() {
    if [ -x "$UNIMO_VENV/bin/python" ]; then echo "$UNIMO_VENV/bin/python"; else echo "${PYTHON:-python}"; fi
}

# The Paddle build for this machine, as an extra of setup.py.
unimo_build() {
    if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then echo gpu; else echo cpu; fi
}

# pip retries a connection but gives up on a download that stalls half way; those are tried again here.
unimo_pip_install() {
    local attempt log="$UNIMO_VENV/install.log" progress='^(  Downloading .* MB|Installing|Successfully|ERROR)'
    for attempt in 1 2 3 4; do
        if "$UNIMO_VENV/bin/python" -m pip install --retries 5 --timeout 60 --progress-bar off \
            --disable-pip-version-check "$@" 2>&1 | tee "$log" | { grep -E --line-buffered "$progress" | cut -c1-110 || true; }; then
            return 0
        fi
        grep -qiE 'timed out|timeout|connection|incomplete|temporar|reset by peer|unreachable|502|503' "$log" || break
        echo "network trouble; trying again (attempt $attempt of 3 more)"
        sleep $((attempt * 5))
    done
    tail -n 15 "$log" >&2
    unimo_fail "the installation failed; the whole output is in $log"
}

unimo_setup() {
    local extras="$1" python stamp wanted constraints=constraints-lean.txt
    python="$(unimo_find_python)" || exit 2
    if "$python" -c 'import sys; raise SystemExit(sys.version_info >= (3, 12))'; then
        extras="$extras,zoo" constraints=constraints.txt
    fi
    if ! "$UNIMO_VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        echo "making $UNIMO_VENV with $("$python" --version)"
        "$python" -m venv --clear "$UNIMO_VENV" ||
            unimo_fail "$python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
    fi
    stamp="$UNIMO_VENV/.unimo-$extras"
    wanted="$(cat "$UNIMO_ROOT/setup.py" "$UNIMO_ROOT/$constraints" | sha256sum | cut -d' ' -f1) $UNIMO_ROOT"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        echo "already installed: $UNIMO_VENV (.[$extras])"
        return
    fi
    echo "installing .[$extras] into $UNIMO_VENV; about 0.9 GB to download the first time"
    set -- -c "$UNIMO_ROOT/$constraints" -e "$UNIMO_ROOT[$extras]"
    case "$extras" in *gpu*) set -- --extra-index-url "$PADDLE_INDEX" "$@" ;; esac
    unimo_pip_install "$@"
    echo "$wanted" >"$stamp"
}

# Run a tool on as many ranks as NPROC_PER_NODE and NNODES say; see unimo/training/launch.py. Relative paths on
# the command line stay relative to where the user is.
unimo_launch() {
    local tool="$UNIMO_ROOT/$1" python
    shift
    python="$(unimo_python)"
    export PYTHONPATH="$UNIMO_ROOT${PYTHONPATH:+:$PYTHONPATH}"
    exec "$python" -m unimo.training.launch "$tool" "$@"
}
