#!/usr/bin/env bash
# Compares the speed with PyTorch, in alternation on this machine, as ratios of tokens/s (above 1: this is faster).
#
#   examples/compare_torch.sh VENV [ROUNDS] [CASE...]
#
# VENV is a Python environment with torch. Cases: train train-large train-owt forward forward-large sample-batch sample-K (K steps).
# Nothing else should run beside it. YARDSTICK=FILE takes another program than torch_pgm.py, one with the options of its `bench`.
#
# From the environment: DEVICE=cuda runs both there, with PRECISION tf32 (default: PyTorch may round the inputs of matmuls
# as this does), f32 (it may not) or bf16 (autocast in training, a bfloat16 model in sampling). BINARIES=DIR takes
# pgm-train and pgm-infer from a folder instead of building them. Paths are absolute or begin where this is called.
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n '2,13s/^# \{0,1\}//p' "$0"
    exit 2
fi
device=${DEVICE:-} precision=${PRECISION:-tf32}
case $precision in tf32 | f32 | bf16) ;; *) echo "no precision $precision: tf32, f32 or bf16" >&2; exit 2 ;; esac
python=$(realpath -s "$1")/bin/python rounds=${2:-5}
yardstick=$(realpath "${YARDSTICK:-$(dirname "$0")/torch_pgm.py}")
[ -z "${BINARIES:-}" ] || binaries=$(realpath "$BINARIES")
shift $(($# < 2 ? $# : 2))
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(train train-large forward forward-large sample-32)
cd "$(dirname "$0")/.."
if [ -z "${BINARIES:-}" ]; then
    backend=${device%%:*}
    cargo build --release --locked --quiet -p pgm-train -p pgm-infer --bins \
        ${backend:+--features "pgm-train/$backend,pgm-infer/$backend"}
    binaries=${CARGO_TARGET_DIR:-target}/release
fi

# The yardstick has no device option: its tensors go to the default device, and its clock waits for that device.
on_device='
import runpy, sys, time, torch
device, precision, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
torch.set_default_device(device)
torch.cuda.set_device(device if ":" in device else 0)
torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
clock = time.perf_counter
def wait():
    torch.cuda.synchronize()
    return clock()
time.perf_counter = wait
Module = torch.nn.Module
if precision == "bf16" and "sample" in arguments:
    ready = Module.eval
    Module.eval = lambda model: ready(model).bfloat16()
elif precision == "bf16":
    call, outermost = Module.__call__, [True]
    def narrow(module, *inputs, **named):
        if not outermost[0]:
            return call(module, *inputs, **named)
        outermost[0] = False
        try:
            with torch.autocast(device.split(":")[0], torch.bfloat16):
                return call(module, *inputs, **named)
        finally:
            outermost[0] = True
    Module.__call__ = narrow
sys.argv = arguments
runpy.run_path(arguments[0], run_name="__main__")
print(f"PyTorch held {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB", file=sys.stderr)
'

small="--hidden 256 --heads 4 --encoder 3 --decoder 3 --length 256 --vocab 8192 --batch 8"
large="--hidden 768 --heads 12 --encoder 6 --decoder 6 --length 256 --vocab 50258 --batch 1"
owt="--hidden 768 --heads 12 --encoder 6 --decoder 6 --length 1024 --vocab 50258"
train_on="" infer_on=""
if [ -n "$device" ]; then
    train_on="--device $device" infer_on="--device $device"
    [ "$precision" != bf16 ] || train_on+=" --precision bf16" infer_on+=" --dtype bf16"
fi

# Median seconds of one run.
ours() {
    local printed
    printed=$("$binaries/$@") || return
    "$python" -c 'import json,sys; d=json.loads(sys.argv[1]); print(d.get("seconds_median") or d["partition"]["seconds_median"])' "$printed"
}
theirs() {
    if [ -n "$device" ]; then
        "$python" -c "$on_device" "$device" "$precision" "$yardstick" bench "$@"
    else
        "$python" "$yardstick" bench "$@"
    fi | "$python" -c 'import json,sys; print(json.load(sys.stdin)["seconds_median"])'
}

for case in "${cases[@]}"; do
    pairs=""
    for _ in $(seq "$rounds"); do
        # The first steps of a training get their memory from the system.
        case $case in train*) runs="--runs 9" ;; *) runs="--runs 3" ;; esac
        case $case in
            train) o="pgm-train bench $small --what train $train_on" t="$small --what train" ;;
            train-large) o="pgm-train bench $large --what train $train_on" t="$large --what train" ;;
            train-owt) o="pgm-train bench $owt --batch 16 --what train $train_on" t="$owt --batch 16 --what train" ;;
            forward) o="pgm-train bench $small --what forward $train_on" t="$small --what forward" ;;
            forward-large) o="pgm-train bench $large --what forward $train_on" t="$large --what forward" ;;
            sample-batch)
                o="pgm-infer bench --preset owt-6-6 --batch 16 --steps 32 --json $infer_on"
                t="$owt --batch 16 --what sample --steps 32" ;;
            sample- | sample-*[!0-9]*) echo "no case $case: sample-K needs a number of steps" >&2; exit 2 ;;
            sample-*)
                # On a CPU a hundred equal steps need no warm-up run.
                [ "${case#sample-}" -lt 128 ] || [ -n "$device" ] || runs="--runs 1 --warmup 0"
                o="pgm-infer bench --preset owt-6-6 --steps ${case#sample-} --json $infer_on"
                t="$owt --batch 1 --what sample --steps ${case#sample-}" ;;
            *) echo "no case $case" >&2; exit 2 ;;
        esac
        # shellcheck disable=SC2086
        a=$(ours $o $runs)
        # shellcheck disable=SC2086
        b=$(theirs $t $runs)
        pairs+="$a $b"$'\n'
    done
    printf '%s' "$pairs" | "$python" -c '
import statistics, sys
pairs = [tuple(map(float, line.split())) for line in sys.stdin]
ratios = sorted(theirs / ours for ours, theirs in pairs)
ours, theirs = (statistics.median(column) for column in zip(*pairs))
print(f"'"$case"': ours {ours:.3f} s, PyTorch {theirs:.3f} s, ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)'
done
