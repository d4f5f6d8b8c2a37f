#!/usr/bin/env bash
# Tests a server with real clients: run.sh PGM_INFER MODEL VENV SCREENSHOTS [IMAGES CODEC]
#
# IMAGES is a model of pictures and CODEC its codec, as the example digits leaves them: pgm/model and codec-run/codec.
# VENV is a Python environment with the packages of requirements.txt. The page is tested only if there is a
# /usr/bin/chromium, servers behind a balancer only if there is nginx.
set -euo pipefail
[ $# -eq 4 ] || [ $# -eq 6 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
binary=$1 model=$2 venv=$3 shots=$4
here=$(dirname "$0")

"$venv/bin/python" "$here/faults.py" "$binary" "$model"
# Left out with a message where there is no nginx.
"$venv/bin/python" "$here/nginx.py" "$binary" "$model"

log=$(mktemp)
pictures=()
if [ $# -eq 6 ]; then pictures=(--model "$5=pictures" --codec "$6"); fi
"$binary" serve --model "$model=tiny" "${pictures[@]}" --port 0 --queue 512 2>"$log" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 600); do
    ! grep -q ready "$log" || break
    kill -0 "$server" || { cat "$log" >&2; exit 1; }
    sleep 0.1
done
url=$(sed -n 's/.*listening at \(http.*\)/\1/p' "$log")

"$venv/bin/python" "$here/documented.py" "$url"
"$venv/bin/python" "$here/openai_client.py" "$url"
if [ $# -eq 6 ]; then "$venv/bin/python" "$here/openai_images.py" "$url" pictures; fi
# A request that fits the schema can still be too long for the model.
"$venv/bin/st" run "$url/openapi.json" --max-examples 20 --seed 1 --request-timeout 60 --exclude-checks positive_data_acceptance --no-color
if [ -x /usr/bin/chromium ]; then
    mkdir -p "$shots"
    "$venv/bin/python" "$here/page.py" "$url" "$shots"
    if [ $# -eq 6 ]; then "$venv/bin/python" "$here/page_pictures.py" "$url" "$shots"; fi
else
    echo "the page is left out: no /usr/bin/chromium"
fi
kill -TERM "$server"
wait "$server"
trap - EXIT
