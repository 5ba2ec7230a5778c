#!/bin/bash
# Every row of a suite is one task of a Slurm array: trained, scored and counted on one GPU.
#   sbatch --array=0-5 docs/slurm/rows.sh                      (components, COCO in ./coco)
#   SUITE=bn DATA=/data/coco SEEDS=3 sbatch --array=0-4 docs/slurm/rows.sh
#   SUITE=quick DATA=shapes DEVICE=cpu sbatch --gres=none --cpus-per-task=2 --array=0-5 docs/slurm/rows.sh
# A task that is killed or requeued goes on from its last checkpoint; submit again what is missing.
#SBATCH --job-name=sepcbench
#SBATCH --array=0-5
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=3-00:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A-%a.log
#SBATCH --open-mode=append
set -euo pipefail

SUITE=${SUITE:-components}
DATA=${DATA:-coco}
SEEDS=${SEEDS:-1}
DEVICE=${DEVICE:-cuda}
PYTHON=${PYTHON:-python}

read -r -a ROWS < <("$PYTHON" -c '
import sys
from sepcbench.suites import load
print(*(row.name for row in load(sys.argv[1]).rows))
' "$SUITE")
if ((SLURM_ARRAY_TASK_ID >= ${#ROWS[@]})); then
    echo "task $SLURM_ARRAY_TASK_ID: suite $SUITE has only ${#ROWS[@]} rows" >&2
    exit 0
fi
ROW=${ROWS[$SLURM_ARRAY_TASK_ID]}

exec "$PYTHON" -m sepcbench run "$SUITE" --row "$ROW" --measures cost,accuracy --seeds "$SEEDS" \
    --train --data "$DATA" --device "$DEVICE" --workers "${SLURM_CPUS_PER_TASK:-8}"
