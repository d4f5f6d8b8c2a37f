#!/usr/bin/env bash
# Ours and PyTorch's speed, in alternation on this machine, as ratios of tokens/s (above 1: ours is faster).
#
#   examples/compare_torch.sh VENV YARDSTICK [ROUNDS] [CASE...]
#
# VENV is a Python environment with torch, YARDSTICK the path of pgm_torch.py. Cases: train train-large forward
# forward-large sample-32 sample-128. Nothing else should run beside it.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2
fi
python=$1/bin/python yardstick=$2 rounds=${3:-5}
shift $(($# < 3 ? $# : 3))
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(train train-large forward forward-large sample-32)
cd "$(dirname "$0")/.."
cargo build --release --locked --quiet --bin pgm-train --bin pgm-infer
binaries=${CARGO_TARGET_DIR:-target}/release

small="--hidden 256 --heads 4 --encoder 3 --decoder 3 --length 256 --vocab 8192 --batch 8"
large="--hidden 768 --heads 12 --encoder 6 --decoder 6 --length 256 --vocab 50258 --batch 1"
owt="--hidden 768 --heads 12 --encoder 6 --decoder 6 --length 1024 --vocab 50258 --batch 1"

# Median seconds of one run.
ours() { "$binaries/$@" 2>/dev/null | "$python" -c 'import json,sys; d=json.load(sys.stdin); print(d.get("seconds_median") or d["partition"]["seconds_median"])'; }
theirs() { "$python" "$yardstick" bench "$@" | "$python" -c 'import json,sys; print(json.load(sys.stdin)["seconds_median"])'; }

for case in "${cases[@]}"; do
    pairs=""
    for _ in $(seq "$rounds"); do
        runs="--runs 3"
        case $case in
            train) o="pgm-train bench $small --what train" t="$small --what train" ;;
            train-large) o="pgm-train bench $large --what train" t="$large --what train" ;;
            forward) o="pgm-train bench $small --what forward" t="$small --what forward" ;;
            forward-large) o="pgm-train bench $large --what forward" t="$large --what forward" ;;
            sample-*)
                # A hundred steps like each other need no run to warm up.
                [ "$case" != sample-128 ] || runs="--runs 1 --warmup 0"
                o="pgm-infer bench --preset owt-6-6 --steps ${case#sample-} --json" t="$owt --what sample --steps ${case#sample-}" ;;
            *) echo "no case $case" >&2; exit 2 ;;
        esac
        # shellcheck disable=SC2086
        pairs+="$(ours $o $runs) $(theirs $t $runs)"$'\n'
    done
    printf '%s' "$pairs" | "$python" -c '
import statistics, sys
pairs = [tuple(map(float, line.split())) for line in sys.stdin]
ratios = sorted(theirs / ours for ours, theirs in pairs)
ours, theirs = (statistics.median(column) for column in zip(*pairs))
print(f"'"$case"': ours {ours:.3f} s, PyTorch {theirs:.3f} s, ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)'
done
