#!/bin/sh
#SWM nodes 0
#SWM cpus -1
#SWM gpus two
#SWM memory 4GB
#SWM max-price 0
#SWM time 1:90:00
#SWM keep-alive soon
#SWM retries 1000
#SWM keep-resources perhaps
#SWM checkpoint dmtcp
#SWM checkpoint-interval -5
#SWM container-image docker://ubuntu
#SWM submission-address http://here
#SWM env 1ST=x
#SWM env SWM_JOB_ID=7
#SWM flavor
#SWM priority 99999

----------
job.sh:2:12: nodes: expected a whole number from 1 to 10000, not "0"
    for example: #SWM nodes 2
job.sh:3:11: cpus: expected a whole number from 1 to 10000, not "-1"
    for example: #SWM cpus 4
job.sh:4:11: gpus: expected a whole number from 0 to 1024, not "two"
    for example: #SWM gpus 1
job.sh:5:13: memory: expected a size from 1M to 64T, such as 512M, 4G or 1.5GiB, not "4GB"
    units are binary: write 4G or 4GiB
job.sh:6:16: max-price: expected a price per hour above 0 and up to 1000000, such as 2.50, not "0"
    for example: #SWM max-price 2.50
job.sh:7:11: time: expected a duration such as 90 (minutes), 1:30:00, 2-12 (days-hours) or 1h30m, not "1:90:00"
    for example: #SWM time 1:30:00
job.sh:8:17: keep-alive: expected a duration such as 90 (minutes), 1:30:00, 2-12 (days-hours) or 1h30m, not "soon"
    for example: #SWM keep-alive 10m
job.sh:9:14: retries: expected a whole number from 0 to 100, not "1000"
    for example: #SWM retries 2
job.sh:10:21: keep-resources: expected yes or no (or true, false, on, off, or nothing for yes), not "perhaps"
    for example: #SWM keep-resources
job.sh:11:17: checkpoint: expected yes or no (or true, false, on, off, or nothing for yes), not "dmtcp"
    for example: #SWM checkpoint
job.sh:12:26: checkpoint-interval: expected a duration such as 300 (seconds), 5m or 1:30:00, not "-5"
    for example: #SWM checkpoint-interval 300
job.sh:13:22: container-image: expected a container image without a scheme, such as docker.io/library/python:3.13, not "docker://ubuntu"
    for example: #SWM container-image docker.io/library/python:3.13
job.sh:14:25: submission-address: expected a host name or an IP address, without a port, not "http://here"
    for example: #SWM submission-address 192.0.2.10
job.sh:15:10: env: expected NAME=value, the name of letters, digits and _, not "1ST"
    for example: #SWM env OMP_NUM_THREADS=4
job.sh:16:10: env: names that begin with SWM_ are set by Sky Port: SWM_JOB_ID
    give it another name
job.sh:17:12: flavor: expected the name of a flavor
    for example: #SWM flavor Standard_D4s_v5
job.sh:18:15: priority: expected a whole number from -10000 to 10000, not "99999"
    for example: #SWM priority 10
