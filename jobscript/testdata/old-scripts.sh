#!/bin/sh

# Scripts as they were written for the original core.
#SWM relocatable
#SWM --keep-resources
#SWM account openstack
#SWM flavor m1.medium
#SWM ports 1234/tcp
#SWM cloud-image ubuntu-22.04
#SWM image subfuzion/netcat
#SWM nodes 5
#SWM workdir /tmp
#SWM input /tmp/input.dat
#SWM output results.dat
#SWM checkpoint-dir /mnt/blob/ckpt

nc localhost 8888

----------
{
  "account": "openstack",
  "flavor": "m1.medium",
  "cloud_image": "ubuntu-22.04",
  "container_image": "subfuzion/netcat",
  "nodes": 5,
  "keep_resources": true,
  "relocatable": true,
  "input_files": [
    "/tmp/input.dat"
  ],
  "output_files": [
    "results.dat"
  ],
  "workdir": "/tmp",
  "ports": [
    {
      "number": 1234,
      "direction": "in"
    }
  ],
  "checkpoint_dir": "/mnt/blob/ckpt"
}
