#!/bin/bash
#SWM name Opticks: words and pairs
#SWM comment Zählt Wörter, the second run
#SWM account physics
#SWM site local
#SWM flavor m1 large
#SWM nodes 2
#SWM cpus 4
#SWM memory 1.5GiB
#SWM gpus 1
#SWM max-price 2.50
#SWM spot prefer
#SWM cloud-image Ubuntu 24.04 LTS
#SWM container-image registry.example.org:5000/team/python:3.13-slim
#SWM time 2-12
#SWM priority -5
#SWM retries 2
#SWM keep-alive 1h30m
#SWM keep-resources
#SWM relocatable no
#SWM input-files data.csv ../models/large/ 'my notes.txt' "it's.txt"
  #SWM input /data/with\ blank.bin ~/mpi_hello
#SWM output-files result.csv ./plots//
#SWM output more
#SWM workdir /data/run1
#SWM stdin commands.txt
#SWM stdout logs/out.log
#SWM stderr "logs/my err.log"
#SWM env OMP_NUM_THREADS=4
#SWM env GREETING=hello wide world
#SWM env QUOTED=" kept "
#SWM env EMPTY=
#SWM ports 8888/tcp/in,8081/tcp/out, 9000
#SWM ports 9001/tcp
#SWM submission-address 192.0.2.10
#SWM storage scratch
#SWM checkpoint on
#SWM checkpoint-dir /data/checkpoints
#SWM checkpoint-interval 300
echo "#SWM nodes 77" is no directive, nor is
#SWMnodes 78
#swm nodes 79
# SWM nodes 80

----------
{
  "name": "Opticks: words and pairs",
  "comment": "Zählt Wörter, the second run",
  "account": "physics",
  "site": "local",
  "flavor": "m1 large",
  "cloud_image": "Ubuntu 24.04 LTS",
  "container_image": "registry.example.org:5000/team/python:3.13-slim",
  "nodes": 2,
  "cpus": 4,
  "memory": 1610612736,
  "gpus": 1,
  "max_price": 2.5,
  "spot": "prefer",
  "time_limit": 216000,
  "priority": -5,
  "retries": 2,
  "keep_alive": 5400,
  "keep_resources": true,
  "relocatable": false,
  "input_files": [
    "data.csv",
    "../models/large/",
    "my notes.txt",
    "it's.txt",
    "/data/with blank.bin",
    "~/mpi_hello"
  ],
  "output_files": [
    "result.csv",
    "plots",
    "more"
  ],
  "workdir": "/data/run1",
  "stdin": "commands.txt",
  "stdout": "logs/out.log",
  "stderr": "logs/my err.log",
  "env": {
    "EMPTY": "",
    "GREETING": "hello wide world",
    "OMP_NUM_THREADS": "4",
    "QUOTED": " kept "
  },
  "ports": [
    {
      "number": 8888,
      "direction": "in"
    },
    {
      "number": 8081,
      "direction": "out"
    },
    {
      "number": 9000,
      "direction": "in"
    },
    {
      "number": 9001,
      "direction": "in"
    }
  ],
  "submission_address": "192.0.2.10",
  "storage": "scratch",
  "checkpoint": true,
  "checkpoint_dir": "/data/checkpoints",
  "checkpoint_interval": 300
}
