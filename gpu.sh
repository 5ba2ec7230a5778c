#!/usr/bin/env bash
# Everything that needs a CUDA device, in one go: correctness first, then every GPU suite.
# Usage: make gpu, or PYTHON=python3 ./gpu.sh on a machine whose Python has torch already.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-results}

"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "no CUDA device here: nothing was run")'
status=0
"$PYTHON" -m pytest -m gpu -p no:cacheprovider || status=1
for suite in quick components figure1 bn single_stage fusion depth two_stage; do
  "$PYTHON" -m sepcbench run "$suite" --device cuda --results "$RESULTS" || {
    echo "suite $suite: some rows failed; their reasons are stored" >&2
    status=1
  }
done
exit $status
