#!/bin/sh
#SWM name from Windows
#SWM keep-resources
#SWM output-files a.txt b.txt
echo hi

----------
{
  "name": "from Windows",
  "nodes": 1,
  "keep_resources": true,
  "relocatable": true,
  "output_files": [
    "a.txt",
    "b.txt"
  ]
}
