#!/usr/bin/env bash
# Make the virtual environment and install one lock file into it, by hash. Usage: install.sh PYTHON VENV runtime|dev
# Does nothing where the same lock was installed before; the dev lock holds all of the runtime lock.
set -euo pipefail
python=$1 venv=$2 lock=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

checksum() { cat "$here/$1.lock" "$here/uv.lock" "$here/install.sh" "$here/../pyproject.toml" | cksum; }
installed() { [ "$(cat "$venv/.installed-$1" 2>/dev/null)" = "$(checksum "$1")" ]; }
if installed "$lock" || installed dev; then exit 0; fi

"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || {
  echo "Error: '$python' is not Python 3.11. Install Python 3.11, or name it: make PYTHON=/path/to/python3.11" >&2
  exit 1
}
echo "Installing the locked packages into $venv ..."
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
  rm -rf "$venv"
  echo "Error: '$python -m venv' failed. On Debian: apt-get install python3-venv" >&2
  exit 1
}
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$here/uv.lock"
export VIRTUAL_ENV="$venv"
# uv trusts its own certificates; behind a proxy that signs for itself, only the system knows the right ones.
"$venv/bin/uv" pip install --quiet --require-hashes -r "$here/$lock.lock" || {
  echo "Trying once more, with the certificates of this system ..."
  "$venv/bin/uv" pip install --quiet --require-hashes -r "$here/$lock.lock" --system-certs
}
"$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation -e "$here/.."
checksum "$lock" >"$venv/.installed-$lock"
echo "[install: $SECONDS s]"
