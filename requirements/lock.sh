#!/usr/bin/env bash
# Lock requirements/*.in with hashes, naming no registry. Usage: lock.sh UV
# The dev lock is made first: its tools hold some versions back, and both locks must agree.
set -euo pipefail
uv=$1
compile() {
  "$uv" pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-header --no-annotate "$@"
}
rm -f dev.lock.new runtime.lock.new uv.lock.new bench.lock.new
compile runtime.in dev.in -o dev.lock.new
compile runtime.in -c dev.lock.new -o runtime.lock.new
compile uv.in -o uv.lock.new
compile bench.in -o bench.lock.new # on its own: it is installed apart
for lock in dev runtime uv bench; do mv "$lock.lock.new" "$lock.lock"; done
