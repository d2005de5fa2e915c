#!/bin/sh
# Tasks on all nodes meet at the address and port that swm-task gave them, under the
# names that torchrun uses: programs with torch.distributed's env:// start the same way.
#
#SWM name rendezvous
#SWM nodes 3
#SWM cpus 2
#SWM memory 256M
#SWM time 5:00
#SWM input-files meet.py
#SWM output-files stdout-task0.log
set -eu
swm-task --ntasks-per-node 2 --label --kill-on-bad-exit python3 meet.py
