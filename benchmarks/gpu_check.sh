#!/bin/bash
# On a machine with an NVIDIA GPU: what minimrcnn needs, its CUDA tests, NVIDIA's checks of its kernels, its benchmark.
#
#   benchmarks/gpu_check.sh FOLDER [cuda|cuda12]
#
# leaves in FOLDER what each part said (environment.txt, kernels.txt, memcheck.txt, racecheck.txt, tests.txt,
# benchmark.txt), gpu.json, table.txt, pictures and summary.txt. Each part has its own limit, so that all of it takes
# less than nine minutes; a part that fails does not hold up the others, but for the first, without which there is
# nothing to check. The exit code is 0 if none failed.
#
# PYTHON names another interpreter than python3. INSTALL=no takes the packages that are there.
set -u
[ $# -ge 1 ] || { sed -n '2,11p' "$0"; exit 2; }
mkdir -p "$1" || exit 2
folder=$(cd "$1" && pwd) extra=${2:-cuda} python=${PYTHON:-python3} failed=0 scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$(dirname "$0")/.." || exit 2
: >"$folder/summary.txt"

part() { # name, seconds, command ...: what it prints goes to name.txt, and whether it held to the summary
    local name=$1 limit=$2 start=$SECONDS code
    shift 2
    # INT, as Ctrl-C: pytest then says what it found so far. What runs in the background does not hear it.
    timeout -s "${signal:-INT}" -k 5 "$limit" "$@" >"$folder/$name.txt" 2>&1
    code=$?
    [ $code -eq 0 ] || failed=1
    echo "$name: exit code $code after $((SECONDS - start)) s" | tee -a "$folder/summary.txt"
    return $code
}

environment() {
    nvidia-smi || echo "no nvidia-smi"
    if [ "${INSTALL:-yes}" = yes ]; then
        "$python" -m venv "$scratch/venv" ||
            { "$python" -m pip install -q virtualenv && "$python" -m virtualenv "$scratch/venv"; } || return 1
        local packages=(-e ".[$extra]" "pytest>=8.3,<10" "pytest-xdist>=3.6,<4" "hypothesis>=6.120,<7")
        [ "$extra" = cuda ] && packages+=("cuda-toolkit[sanitizer]==13.*")
        "$1" -m pip install -q --no-compile "${packages[@]}" || return 1
    fi
    "$1" -m pip list 2>/dev/null
    "$1" -c 'import numpy as np; from minimrcnn.device import to_device; print(to_device(np.zeros(1, np.float32), "cuda"))'
}

interpreter=$python
[ "${INSTALL:-yes}" = yes ] && interpreter=$scratch/venv/bin/python
export NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$scratch/cache} CUPY_CACHE_DIR=${CUPY_CACHE_DIR:-$scratch/cupy}
export PYTHONUNBUFFERED=1
export -f environment
export scratch extra python

if ! part environment 130 bash -c 'environment "$0"' "$interpreter"; then
    tail -n 5 "$folder/environment.txt"
    echo "all: FAILED: no environment to check in" | tee -a "$folder/summary.txt"
    exit 1
fi
packages=$("$interpreter" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
sanitizer=$(ls "$packages"/nvidia/cu13/bin/compute-sanitizer 2>/dev/null ||
    command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null)
sanitizer=$(head -n 1 <<<"$sanitizer")
checks=()
if [ -n "$sanitizer" ]; then # every kernel once, on small arrays; what libraries ask the driver for in vain is theirs
    caches=$NUMBA_CACHE_DIR # the tests find there what memcheck compiled; racecheck has its own, as Numba's index has no locks
    for tool in memcheck racecheck; do
        [ $tool = memcheck ] || caches=$scratch/$tool
        NUMBA_CACHE_DIR=$caches signal=TERM part $tool 110 "$sanitizer" --tool $tool --report-api-errors no --target-processes all --error-exitcode 9 \
            "$interpreter" -m tests.launch_cuda_kernels &
        checks+=($!)
    done
else
    echo "compute-sanitizer: not found, so memcheck and racecheck FAILED" | tee -a "$folder/summary.txt"
    failed=1
fi
part kernels 90 "$interpreter" -c 'from minimrcnn.training.compile_ahead import PREDICTING, TRAINING, compile_ahead
compile_ahead(PREDICTING), compile_ahead(TRAINING)' # of the CPU, which the tests compare with
for check in ${checks[@]+"${checks[@]}"}; do
    wait "$check" || failed=1
done
# By memcheck, or else now, by one process: three tests at once would write one index, which has no locks.
grep -q "^memcheck: exit code 0 " "$folder/summary.txt" || part launches 90 "$interpreter" -m tests.launch_cuda_kernels
workers=$("$interpreter" -c 'import xdist; print("-n 3")' 2>/dev/null)
OMP_WAIT_POLICY=PASSIVE part tests 100 "$interpreter" -m pytest -m cuda $workers -ra --durations=15 -p no:cacheprovider tests/test_cuda_device.py
part benchmark $((530 - SECONDS)) "$interpreter" -m benchmarks --device cuda --growth --rounds 1 --json "$folder/gpu.json"
"$interpreter" -c 'import json, sys; from pathlib import Path
from benchmarks.gpu import write_table; from benchmarks.plots import plot_gpu; file = Path(sys.argv[1])
print(write_table(file)); plot_gpu(json.loads(file.read_text()), file.parent)' "$folder/gpu.json" \
    >"$folder/table.txt" 2>&1 || failed=1
echo "all: $([ $failed -eq 0 ] && echo passed || echo FAILED) after $SECONDS s" | tee -a "$folder/summary.txt"
exit $failed
