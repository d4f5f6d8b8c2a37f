#!/usr/bin/env bash
# Checks and measures everything on one GPU: one table and one JSON file, in at most 8 minutes.
#
#   examples/gpu_check.sh --device cuda --programs DIR [--tests DIR] [--torch VENV] [--out DIR] [--small]
#
# DIR of --programs has pgm-train and pgm-infer, that of --tests the test programs (see below); both are built before:
#
#   cargo build --release -p pgm-train -p pgm-infer --bins --features pgm-train/cuda,pgm-infer/cuda
#   examples/gpu_check.sh --build-tests cuda DIR
#
# With --torch the same cases run in PyTorch, too (examples/compare_torch.sh). --small is for software drivers: it shows that
# every step works, and its figures say nothing. LIMIT=480 (seconds) may be changed from the environment.
set -uo pipefail
usage() { sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
device="" programs="" tests="" torch="" out="gpu-check" small="" limit=${LIMIT:-480}
while [ $# -gt 0 ]; do
    case $1 in
        --small) small=1; shift; continue ;;
        --build-tests)
            # The test programs of a backend, under names without hashes.
            [ $# -ge 3 ] || usage
            if [ "$2" = cuda ]; then
                features="pgm-model/cuda,pgm-infer/cuda,pgm-train/cuda,pgm-train/nccl"
            else
                # Not tuned: a software driver gets some candidates wrong.
                features="pgm-model/$2,pgm-infer/software-gpu,pgm-train/software-gpu"
            fi
            mkdir -p "$3"
            (cd "$here/.." && cargo test --no-run --locked ${PLAIN:+--config "$PLAIN"} -p pgm-model -p pgm-infer -p pgm-train --features "$features" \
                --lib --test gpu --message-format=json) |
                python3 -c '
import json, shutil, sys
for line in sys.stdin:
    item = json.loads(line)
    if item.get("executable") and item.get("profile", {}).get("test"):
        crate = item["manifest_path"].split("/")[-2]
        # Of the libraries only the operations are tested on the GPU, and NCCL.
        if item["target"]["name"] not in ("pgm_model", "gpu") + (("pgm_train",) if sys.argv[2] == "cuda" else ()):
            continue
        shutil.copy(item["executable"], "%s/%s-%s" % (sys.argv[1], crate, item["target"]["name"].replace("pgm_", "lib-")))
' "$3" "$2"
            exit ;;
        --device | --programs | --tests | --torch | --out)
            [ $# -ge 2 ] || usage
            printf -v "${1#--}" %s "$2"; shift 2 ;;
        *) usage ;;
    esac
done
[ -n "$device" ] && [ -n "$programs" ] || usage
programs=$(realpath "$programs")
mkdir -p "$out"
lines=$out/steps.jsonl
: > "$lines"
began=$SECONDS

# step NAME SECONDS COMMAND...: runs the command within its limit, and what is left of the whole one.
step() {
    local name=$1 most=$2 left=$((limit - (SECONDS - began))) start=$SECONDS code=0 log
    shift 2
    log=$out/${name//[^a-z0-9-]/_}.log
    if [ "$left" -lt 5 ]; then
        code=skipped
        : > "$log"
    else
        # What the card holds meanwhile.
        local watch=""
        if command -v nvidia-smi > /dev/null; then
            nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 200 > "$log.memory" 2> /dev/null &
            watch=$!
        fi
        timeout -k 5 $((most < left ? most : left)) "$@" > "$log" 2>&1 || code=$?
        [ -z "$watch" ] || { kill "$watch"; wait "$watch"; } 2> /dev/null
    fi
    echo "{\"step\": \"$name\", \"seconds\": $((SECONDS - start)), \"code\": \"$code\", \"log\": \"$log\"}" >> "$lines"
    echo "$name: $([ "$code" = 0 ] && echo ok || echo "code $code"), $((SECONDS - start)) s" >&2
}
train() { step "$1" "$2" "$programs/pgm-train" bench --device "$device" "${@:3}"; }
sample() { step "$1" "$2" "$programs/pgm-infer" bench --device "$device" --log-level off "${@:3}"; }

if [ -n "$small" ]; then
    parity_limit=900 side=128 text="--hidden 32 --heads 2 --encoder 1 --decoder 1 --length 32 --vocab 200 --batch 2 --runs 1"
    owt="--preset images-49 --batch 1 --steps 4 --runs 1 --warmup 0" pictures=$owt runs=1
else
    parity_limit=150 side=8192 text="--preset owt-6-6 --batch 16 --runs 10" runs=10
    owt="--preset owt-6-6 --batch 16 --runs 2" pictures="--preset images-49 --batch 16 --steps 32 --runs 3"
fi
# Kernels agree with the CPU, operation by operation, then whole networks and samples.
if [ -n "$tests" ]; then
    for program in "$tests"/*; do
        [ -f "$program" ] || continue
        filter=""
        # One rank on one card.
        [ "$(basename "$program")" != pgm-train-lib-train ] || filter=world::nccl
        # shellcheck disable=SC2086
        step "parity-$(basename "$program")" "$parity_limit" env CARGO_MANIFEST_DIR="$here/../$(basename "$program" | sed 's/-\(lib-.*\|gpu\)$//')" \
            sh -c 'cd "$CARGO_MANIFEST_DIR" && exec "$0" "$@"' "$(realpath "$program")" $filter --test-threads 2
    done
fi
# What the card reaches, and what training reaches of it.
half="" && [ "$device" != "${device#cuda}" ] && half=1
train matmul-f32 40 --what matmul --hidden $side --runs $runs
[ -z "$half" ] || train matmul-bf16 40 --what matmul --hidden $side --runs $runs --precision bf16
# shellcheck disable=SC2086
{
    train train-f32 60 $text
    train train-masked-f32 60 $text --model mdlm
    [ -z "$half" ] || train train-bf16 60 $text --precision bf16
    [ -z "$half" ] || train train-masked-bf16 60 $text --precision bf16 --model mdlm
    sample sample-f32 60 $owt
    sample sample-kept 60 $owt --refresh inf
    [ -z "$half" ] || sample sample-bf16 60 $owt --dtype bf16
    [ -z "$half" ] || sample sample-bf16-kept 60 $owt --dtype bf16 --refresh inf
    sample sample-masked 90 $owt --baseline mdlm-lean
    sample images 60 $pictures
}
if [ -n "$torch" ]; then
    for precision in tf32 f32 bf16; do
        step "torch-$precision" 90 env DEVICE="$device" PRECISION=$precision BINARIES="$programs" \
            "$here/compare_torch.sh" "$torch" 1 train-owt sample-batch
    done
fi
if command -v nvidia-smi > /dev/null; then
    step card 10 nvidia-smi --query-gpu=name,memory.used,memory.total,clocks.sm,driver_version --format=csv
fi

python3 - "$lines" "$out" "$device" "$small" << 'PYTHON'
import json, pathlib, re, sys

steps = [json.loads(line) for line in open(sys.argv[1])]
out, device = pathlib.Path(sys.argv[2]), sys.argv[3]
peak = {}
table = ["| step | result | seconds | figures |", "|---|---|---:|---|"]
for step in steps:
    log = pathlib.Path(step["log"]).read_text(errors="replace")
    found, figures = {}, []
    for line in log.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
    tests = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed", log)
    if tests:
        figures.append("%d tests passed, %d failed" % tuple(sum(map(int, column)) for column in zip(*tests)))
    of = found.get("partition", found)
    if "seconds_median" in of:
        figures.append("%.4g s" % of["seconds_median"])
    if "tokens_per_second" in of:
        figures.append("%.0f tokens/s" % of["tokens_per_second"])
    rate = found.get("flops_per_second") or (of.get("flops") or 0) / of.get("seconds_median", 1) * of.get("batch", 1)
    if rate:
        figures.append("%.3g TFLOP/s" % (rate / 1e12))
        if found.get("what") == "matmul":
            peak[found["precision"]] = rate
        top = peak.get(found.get("precision", "f32"))
        if top and found.get("what") != "matmul":
            figures.append("%.0f %% of a matmul of %s" % (100 * rate / top, found.get("precision", "f32")))
    if step["step"].startswith("torch"):
        figures += [line for line in log.splitlines() if "ratio" in line or "GiB" in line]
    memory = pathlib.Path(step["log"] + ".memory")
    used = [int(line) for line in memory.read_text().split() if line.isdigit()] if memory.exists() else []
    if used:
        figures.append("%.2f GiB on the card" % (max(used) / 1024))
    if step["step"] == "card":
        figures = log.splitlines()[-1:]
    result = {"0": "ok", "skipped": "no time left", "124": "took too long"}.get(step["code"], "failed: " + step["code"])
    if step["code"] not in ("0", "skipped"):
        figures += log.splitlines()[-1:]
    step.update(result=result, figures=figures, output=found)
    table.append("| %s | %s | %d | %s |" % (step["step"], result, step["seconds"], "; ".join(figures).replace("|", "/")))
(out / "results.json").write_text(json.dumps({"device": device, "steps": steps}, indent=1))
(out / "results.md").write_text("\n".join(table) + "\n")
print("\n".join(table))
# With --small nothing may be left out.
sys.exit(any(step["code"] not in ("0",) + (() if sys.argv[4] else ("skipped",)) for step in steps))
PYTHON
