#!/bin/sh
# Computes pi on three nodes, in a container on each: once by MPI, once by tasks
# that meet over plain sockets, as torchrun's do. It serves what it has found on a
# forwarded port until somebody has read it.
#
#SWM name pi
#SWM comment Pi on three nodes
#SWM nodes 3
#SWM cpus 1
#SWM memory 512M
#SWM time 10:00
#SWM input-files pi.py meet.py serve.py
#SWM output-files pi.txt met.txt
#SWM ports 8087/tcp/in
set -eu
echo "main node $(hostname), nodes $SWM_JOB_NODES"
mpirun -n "$SWM_JOB_NODES_NUMBER" --map-by node python3 pi.py 3000000 | tee pi.txt
swm-task --label -- python3 meet.py | tee met.txt
exec python3 serve.py 8087 pi.txt
