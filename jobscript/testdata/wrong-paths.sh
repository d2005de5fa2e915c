#!/bin/sh
#SWM input-files a/data.csv b/data.csv 'not ended
#SWM input-files a/data.csv
#SWM input-files ok "b/data.csv"
#SWM input-files / . a/.. ''
#SWM output-files /etc/passwd ../up a/../b fine
#SWM output-files . ~/results ./fine trailing\
#SWM output-files . ~/results ./fine
#SWM workdir /data/../etc
#SWM stdin /dev/null
#SWM stdout my log
#SWM stderr ../err.log

----------
job.sh:2:40: input-files: a quote is not ended
    end it, or write \' for the character itself
job.sh:4:21: input-files: an input with the base name data.csv is there already, on line 3
    inputs land in the work directory under their base names: rename one, or put both in a directory
job.sh:5:18: input-files: input "/" has no base name to land under in the work directory
    name the directory, or what is in it
job.sh:5:20: input-files: input "." has no base name to land under in the work directory
    name the directory, or what is in it
job.sh:5:22: input-files: input "a/.." has no base name to land under in the work directory
    name the directory, or what is in it
job.sh:5:27: input-files: a path must not be empty
    for example: #SWM input-files data.csv ../models/large 'my notes.txt'
job.sh:6:19: output-files: the path "/etc/passwd" is absolute
    paths are relative to the work directory: write passwd
job.sh:6:31: output-files: the path "../up" contains ..
    paths are relative to the work directory and stay inside it
job.sh:6:37: output-files: the path "a/../b" contains ..
    paths are relative to the work directory and stay inside it
job.sh:7:46: output-files: nothing follows the backslash
    write \\ for a backslash
job.sh:8:19: output-files: the path "." names no file of its own
    name the files or directories in it
job.sh:8:21: output-files: the path "~/results" is in a home directory, which the node does not know
    for example: #SWM output-files result.csv plots
job.sh:8:31: output-files: the output fine is there already, on line 6
    name every output once
job.sh:9:14: workdir: the path "/data/../etc" contains ..
    write the path without ..
job.sh:10:12: stdin: the path "/dev/null" is absolute
    paths are relative to the work directory: write null
job.sh:11:16: stdout: expected one path
    put quotes around a path with blanks: 'my log'
job.sh:12:13: stderr: the path "../err.log" contains ..
    paths are relative to the work directory and stay inside it
