#!/bin/sh
#SWM flavour m1.small
#SWM Flavor m1.small
#SWM cloud_image ubuntu
#SWM nodes=2
#SWM nodes: 2
#SWM --nodes 2
#SWM ndoes 2
#SWM quantum-entangler 2
#SWM
   #SWM	 
#SWM --keep-resource

----------
job.sh:2:6: unknown directive "flavour"
    did you mean "flavor"?
job.sh:3:6: unknown directive "Flavor"
    write it like this: #SWM flavor Standard_D4s_v5
job.sh:4:6: unknown directive "cloud_image"
    write it like this: #SWM cloud-image ubuntu-24.04
job.sh:5:6: unknown directive "nodes=2"
    write it like this: #SWM nodes 2
job.sh:6:6: unknown directive "nodes:"
    write it like this: #SWM nodes 2
job.sh:7:6: unknown directive "--nodes"
    did you mean "nodes"?
job.sh:8:6: unknown directive "ndoes"
    did you mean "nodes"?
job.sh:9:6: unknown directive "quantum-entangler"
    known are name, comment, account, site, flavor, nodes, cpus, memory, gpus, max-price, spot, cloud-image, container-image, time, priority, retries, keep-alive, keep-resources, relocatable, input-files, output-files, workdir, stdin, stdout, stderr, env, ports, submission-address, storage, checkpoint, checkpoint-dir, checkpoint-interval
job.sh:10:5: expected a directive after #SWM
    for example: #SWM nodes 2; a remark needs another mark than #SWM
job.sh:11:8: expected a directive after #SWM
    for example: #SWM nodes 2; a remark needs another mark than #SWM
job.sh:12:6: unknown directive "--keep-resource"
    did you mean "keep-resources"?
