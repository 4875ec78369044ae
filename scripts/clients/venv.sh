#!/usr/bin/env bash
# A virtual environment of its own for a client that is too heavy for the tests' one:
#   scripts/clients/venv.sh ray           -> .venvs/ray/bin/python
# Does nothing when it is there and complete. PYTHON= names another interpreter, VENVS= another folder.
set -euo pipefail
name=${1:?"usage: venv.sh ray|vllm-router|lm-eval|aiperf|guidellm"}
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=${VENVS:-$root/.venvs}/$name
pip() { "$venv/bin/python" -m pip install -q --disable-pip-version-check "$@"; }

[ -e "$venv/.complete" ] && exit 0
"${PYTHON:-python3}" -m venv "$venv"
case $name in
ray)
  pip torch==2.13.0 # first, and named again below: nothing may put another build in its place
  pip torch==2.13.0 --editable "$root[ray]"
  ;;
vllm-router)
  pip vllm-router==0.1.17
  ;;
aiperf)
  pip aiperf==0.13.0
  ;;
guidellm)
  pip torch==2.13.0 # as for ray
  pip torch==2.13.0 guidellm==0.8.1 transformers==5.23.0
  ;;
lm-eval)
  pip 'lm-eval[api]==0.4.13' transformers==5.23.0
  ;;
*)
  echo "venv.sh: no recipe for $name" >&2
  exit 1
  ;;
esac
touch "$venv/.complete"
