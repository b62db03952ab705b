#!/bin/bash
# Trains a bundle on several nodes under SLURM: a torchrun a node, a process a GPU. Submit it from the bundle's folder:
#   sbatch ../../scripts/slurm_training.sh --dataset_dir DIR --output_dir OUT
# Arguments go to the bundle. CONFIGS names other config files, PYTHON another Python than that of the environment.
# OUT has to be on a disk that all nodes see. After a stop (time limit, lost node) submit it again: the training goes on
# after its last epoch.
#SBATCH --job-name=medseg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@60
set -euo pipefail

configs=${CONFIGS:-"['configs/train.json','configs/multi_gpu.yaml']"}
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
# a port of this job alone, for jobs may share a node
port=$((20000 + SLURM_JOB_ID % 20000))
processes=${SLURM_GPUS_ON_NODE:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((${SLURM_CPUS_PER_TASK:-1} / processes))}

# a node that is lost ends the job at once instead of leaving the others to their time-out
exec srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="$SLURM_NNODES" --nproc_per_node="$processes" \
  --rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="$head_node:$port" \
  -m monai.bundle run training --config_file "$configs" "$@"
