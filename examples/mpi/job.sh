#!/bin/sh
# A token goes round all ranks of an MPI program, over three nodes. The image needs
# Open MPI and what the program needs: Debian's openmpi-bin and python3-mpi4py.
#
#SWM name mpi-ring
#SWM nodes 3
#SWM cpus 2
#SWM memory 512M
#SWM time 10:00
#SWM input-files ring.py
#SWM output-files ring.txt
#SWM container-image registry.example.org/mpi:1
set -eu
echo "$SWM_JOB_NODES_NUMBER nodes:"
cat "$SWM_JOB_HOSTFILE"
# mpirun finds the nodes and the way to them in its environment: nothing more is needed.
mpirun python3 ring.py > ring.txt
cat ring.txt
