#!/usr/bin/env bash
# A second environment that differs from the first in Triton alone: `triton39.sh PYTHON [FOLDER]`.
#
# PYTHON is the interpreter of an environment that can run the tests (.venv/bin/python after `make setup`); FOLDER,
# .venv-triton39 beside it unless named, sees all of its packages behind its own Triton. Both compile the same kernels,
# so a difference between them is Triton's.
set -euo pipefail
version=3.9.0
python=$1
folder=${2:-$(dirname "$(dirname "$python")")-triton39}

packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
"$python" -m venv "$folder"
own=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
printf 'import site; site.addsitedir(%q)\n' "$packages" | sed "s/(\(.*\))$/('\1')/" > "$own/zz_shared.pth"
"$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-deps "triton==$version"
"$folder/bin/python" -c "import torch, triton; assert triton.__version__ == '$version', triton.__version__"
