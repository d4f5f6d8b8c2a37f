#!/usr/bin/env bash
# Builds the examples of README.md and docs/embedding.md in a crate outside the workspace, as somebody has them who embeds
# pgm-infer, and runs them on the model of pgm-infer's tests:
#
#   .ci/embedding.sh [DIR]
#
# DIR keeps the crate; without one it is temporary. The versions are those of the workspace's Cargo.lock, and nothing is
# downloaded: the workspace was built before.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$repo/target}/embedding"
at=${1:-$(mktemp -d)}
[ $# -gt 0 ] || trap 'rm -rf "$at"' EXIT
mkdir -p "$at/src/bin" "$at/run"

# The first block of that language after that line: block FILE LINE LANGUAGE
block() {
    awk -v line="$2" -v fence="^\`\`\`$3" '
        $0 == line { after = 1 }
        inside && /^```$/ { exit }
        inside { print; n++ }
        after && !inside && $0 ~ fence { inside = 1 }
        END { if (!n) exit 1 }
    ' "$1" || { echo "$1 has no block of $3 after the line $2" >&2; return 1; }
}

block "$repo/README.md" "As a library:" rust >"$at/src/bin/readme.rs"
block "$repo/docs/embedding.md" "## Engine" rust >"$at/src/bin/engine.rs"
block "$repo/docs/embedding.md" "## TextModel" rust >"$at/src/bin/text_model.rs"
{
    printf '[package]\nname = "embedder"\nversion = "0.1.0"\nedition = "2024"\n\n[workspace]\n\n'
    block "$repo/docs/embedding.md" "## A crate of your own" toml
} >"$at/Cargo.toml.as-it-stands"
sed "s|\"PGM/|\"$repo/|" "$at/Cargo.toml.as-it-stands" >"$at/Cargo.toml"
rm "$at/Cargo.toml.as-it-stands"

# Only the new crate is added to the lock file.
cp "$repo/Cargo.lock" "$at/Cargo.lock"
(cd "$at" && cargo update --workspace --offline --quiet)
packages() { awk '/^name = /{name = $3} /^version = /{print name, $3}' "$1" | sort; }
others=$(comm -13 <(packages "$repo/Cargo.lock") <(packages "$at/Cargo.lock") | grep -v '^"embedder"' || true)
[ -z "$others" ] || { echo "other versions than the workspace's: $others" >&2; exit 1; }
(cd "$at" && cargo build --offline --locked)

ln -sfn "$repo/pgm-infer/tests/byte-model" "$at/run/model"
# The examples open run/model: example NAME PATTERN
example() {
    local out
    out=$(cd "$at" && "$CARGO_TARGET_DIR/debug/$1")
    grep -Eq "$2" <<<"$out" || { printf '%s prints\n%s\ninstead of %s\n' "$1" "$out" "$2" >&2; exit 1; }
    printf "%s: %s\n" "$1" "$(grep -E "$2" <<<"$out" | tail -n 1)"
}
example readme '^The cat '
example engine '^step 1: '
example engine '^The cat '
example text_model '^step 6: '
example text_model '^The cat '
