#!/bin/sh
echo nothing is asked for

----------
{
  "nodes": 1,
  "relocatable": true
}
