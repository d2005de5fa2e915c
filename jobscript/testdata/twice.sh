#!/bin/sh
#SWM name one
#SWM image ubuntu
#SWM env A=1
#SWM name two
#SWM container-image debian
#SWM env A=2

----------
job.sh:5:6: name is already set on line 2
    keep one of the two lines
job.sh:6:6: container-image is already set on line 3
    keep one of the two lines
job.sh:7:10: env: A is there already, on line 4
    keep one of the two lines
