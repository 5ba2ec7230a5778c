#!/usr/bin/env bash
# Everything that needs a CUDA device: correctness first, then the timers, then the paper's own way
# to time, then every suite, and at last a search for the best blocks of the deformable conv.
#
# Usage: make gpu, or on a machine whose Python has torch already:
#   PYTHON=python3 ./gpu.sh [--seconds N] [--list] [STEP ...]
#
# A STEP is `tests`, `trust`, `paper`, `blocks`, or a suite, by name or TOML file; without any, all.
# --seconds N   stop after so long; what is left is named, and what was measured is kept: run the
#               line that is printed to go on. A suite goes on where it stopped.
# --list        only print the steps.
# DEVICE (cuda), RESULTS (results), MEASURES (cost,latency): where, where to, and what is measured.
# OUT: a folder that everything written under RESULTS is copied to as well, after every step.
# Exit code: 0 all done, 1 something failed, 75 time is up.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
RESULTS=${RESULTS:-results}
MEASURES=${MEASURES:-cost,latency}
ALL=(tests trust paper components single_stage figure1 bn two_stage fusion depth quick)
ALL+=(fpn_faster_rcnn fpn_rpn fpn_fast_rcnn state_of_the_art blocks)
TESTED=(tests/gpu tests/unit/engines tests/unit/measures) # where tests are marked gpu

seconds=0
steps=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds takes a number} && shift 2 ;;
    --list) printf '%s\n' "${ALL[@]}" && exit ;;
    -*) echo "gpu.sh: unknown option $1; see the top of this file" >&2 && exit 2 ;;
    *) steps+=("$1") && shift ;;
  esac
done
case $seconds in *[!0-9]*) echo "gpu.sh: --seconds $seconds is not a number" >&2 && exit 2 ;; esac
[ ${#steps[@]} -gt 0 ] || steps=("${ALL[@]}")
began=$(mktemp)
touch --date="1 second ago" "$began" # clocks of file systems tick coarsely
trap 'keep; rm -f "$began"' EXIT

# Copies what is newer than this run; a run that is killed loses at most the step it was in.
keep() {
  [ -n "${OUT:-}" ] && [ -d "$RESULTS" ] || return 0
  mkdir -p "$OUT/results"
  (cd "$RESULTS" && find . -type f -newer "$began" ! -name '.*.part' -print0 |
    tar --null --create --files-from=- --file=-) | tar --extract --directory="$OUT/results"
}

# Seconds that are left, or a day where there is no limit.
left() {
  if [ "$seconds" -gt 0 ]; then echo $((seconds - SECONDS)); else echo 86400; fi
}

# As Ctrl-C at the end of the time: sampling keeps its whole rounds and writes them.
limited() {
  timeout --foreground --signal=INT --kill-after=20 "$(left)" "$@"
}

# Tests by mark, in files or folders.
run_tests() {
  if [ "${DEVICE%%:*}" != cuda ]; then
    echo "tests: those marked gpu need a GPU, $DEVICE is none" >&2
    return 0
  fi
  limited "$PYTHON" -m pytest -p no:cacheprovider -m "$@"
}

# The ratios of the paper's Table 1, timed as there, in float32; its iBN is folded.
paper_protocol() {
  if [ "${DEVICE%%:*}" != cuda ]; then
    echo "paper: batch 8 of 800x1344 is for a GPU, $DEVICE is none" >&2
    return 0
  fi
  local folder code=0
  folder=$RESULTS/paper_protocol/$("$PYTHON" -c 'import sys
from sepcbench.measures.environment import environment
print(environment(sys.argv[1]).machine)' "$DEVICE")
  mkdir -p "$folder"
  limited "$PYTHON" -m sepcbench latency --suite components --protocol paper --device "$DEVICE" \
    --engine eager,folded --format json >"$folder/.latency.json.part" || code=$?
  case $code in
    0 | 1) mv "$folder/.latency.json.part" "$folder/latency.json" ;;
    *) rm "$folder/.latency.json.part" ;; # broken off: its ratios are of too few iterations
  esac
  return $code
}

run_step() {
  case $1 in
    tests) run_tests "gpu and not slow" "${TESTED[@]}" ;;
    blocks) run_tests "gpu and slow" tests/gpu/test_fast_deformable.py ;;
    paper) paper_protocol ;;
    trust)
      limited "$PYTHON" -m sepcbench doctor --trust --device "$DEVICE" --results "$RESULTS"
      ;;
    *)
      limited "$PYTHON" -m sepcbench run "$1" --device "$DEVICE" --measures "$MEASURES" \
        --results "$RESULTS"
      ;;
  esac
}

"$PYTHON" -c 'import sys, torch
wanted = sys.argv[1].startswith("cuda")
sys.exit(wanted and not torch.cuda.is_available() and "no CUDA device here: nothing was run")' \
  "$DEVICE"
failed=()
for i in "${!steps[@]}"; do
  step=${steps[$i]}
  code=124
  if [ "$(left)" -gt 0 ]; then
    echo "== $step, $SECONDS s after the start" >&2
    code=0
    run_step "$step" || code=$?
    keep
  fi
  case $code in
    0) ;;
    124 | 137)
      arguments="--seconds $seconds ${steps[*]:$i}"
      echo "time is up; to go on: ./gpu.sh $arguments" >&2
      exit 75
      ;;
    130) exit 130 ;;
    *) failed+=("$step") ;;
  esac
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}; the reasons of rows are stored with them" >&2
  exit 1
fi
