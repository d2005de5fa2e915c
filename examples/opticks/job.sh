#!/bin/sh
# Counts and ranks the words of a book, and the pairs of neighbours, while it
# serves its progress on a forwarded port.
#
#SWM name opticks
#SWM comment Words of Newton's Opticks
#SWM cpus 1
#SWM memory 256M
#SWM time 10:00
#SWM input-files opticks Isaac.Newton-Opticks.txt
#SWM output-files words.csv pairs.csv words.svg
#SWM ports 8087/tcp/in
set -eu
echo "running on $(hostname) as job $SWM_JOB_ID"
./opticks -text Isaac.Newton-Opticks.txt -listen "$SWM_JOB_ADDRESS:8087"
