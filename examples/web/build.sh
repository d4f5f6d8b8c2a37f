#!/usr/bin/env bash
# Makes the page that needs no server, as a folder of static files:
#
#   examples/web/build.sh OUT
#
# Any web server can offer OUT under any path: python3 -m http.server --directory OUT
# It needs the target wasm32-unknown-unknown (rustup target add) and wasm-bindgen of the version in Cargo.toml.
#
#   PGM_WEB_MODEL   folder of the bundled model [default: pgm-infer/demo/text]
#   PGM_WEB_NAME    its name [default: demo]
#   PGM_WEB_GPU    0 leaves out the program for the graphics card [default: 1]
#   WASM_BINDGEN    the command [default: wasm-bindgen]
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
model=${PGM_WEB_MODEL:-$root/pgm-infer/demo/text}
model=$(cd "$model" && pwd)
name=${PGM_WEB_NAME:-demo}
wasm_bindgen=${WASM_BINDGEN:-wasm-bindgen}
cd "$here" # for .cargo/config.toml

fail() { echo "build.sh: $*" >&2; exit 1; }

version=$(sed -n 's/^wasm-bindgen = "=\(.*\)"/\1/p' Cargo.toml)
install="cargo install wasm-bindgen-cli --locked --version $version"
found=$("$wasm_bindgen" --version 2>/dev/null) || fail "there is no $wasm_bindgen; install it with $install"
[ "$found" = "wasm-bindgen $version" ] || fail "this is $found; $version is needed: $install"
for file in config.json model.safetensors tokenizer.json; do
    [ -f "$model/$file" ] || fail "$model has no $file"
done

target=${CARGO_TARGET_DIR:-$here/target}
program() { # NAME PROFILE
    "$wasm_bindgen" --target web --no-typescript --remove-name-section --out-dir "$out" --out-name "$1" \
        "$target/wasm32-unknown-unknown/$2/pgm_web.wasm"
    # Optional: a few percent smaller.
    if command -v wasm-opt >/dev/null; then
        wasm-opt -O3 --all-features "$out/$1_bg.wasm" -o "$out/$1_bg.wasm.new"
        mv "$out/$1_bg.wasm.new" "$out/$1_bg.wasm"
    fi
}
cargo build --release --locked
program pgm_web release
webgpu=false
if [ "${PGM_WEB_GPU:-1}" != 0 ]; then
    cargo build --profile webgpu --no-default-features --features webgpu --locked
    program pgm_web_gpu webgpu
    webgpu=true
fi

sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; }

# The page of the server, with this folder's backend.js in place of its own, and a panel for the models.
page=$root/pgm-infer/src/serve/page
cp "$page"/*.js "$page"/*.css "$page"/*.svg "$out"
cp "$here"/page/*.js "$here"/page/*.css "$out"
sed -e "/<meta charset/r $here/page/head.html" -e "/<noscript>/r $here/page/local.html" "$page/index.html" >"$out/index.html"

# Files name each other with the version of them all: a browser that has stored an older page does not mix the two.
version=$(cd "$out" && cat ./*.js ./*.css ./*.wasm index.html | sha256 | cut -c1-8)
names='s#("(\./)?[a-z_]+\.(js|css))"#\1?v='$version'"#g'
program="s#'(pgm_web(_gpu)?_bg.wasm)'#'\\1?v=$version'#"
for file in "$out"/*.js "$out/index.html"; do
    case $file in */pgm_web.js|*/pgm_web_gpu.js) edit=$program ;; *) edit=$names ;; esac
    sed -E -e "$edit" "$file" >"$file.new"
    mv "$file.new" "$file"
done

rm -rf "$out/model"
mkdir "$out/model"
files=
for file in config.json model.safetensors tokenizer.json generation_config.json README.md; do
    [ -f "$model/$file" ] || continue
    cp "$model/$file" "$out/model/$file"
    [ "$file" = README.md ] || files="$files${files:+, }\"$file\": $(($(wc -c <"$model/$file")))"
done
revision=$(cd "$out/model" && cat ./*.json ./*.safetensors | sha256 | cut -c1-16)
echo "{ \"name\": \"$name\", \"revision\": \"$revision\", \"webgpu\": $webgpu, \"files\": { $files } }" >"$out/model/files.json"

du -sh "$out" | cut -f1
