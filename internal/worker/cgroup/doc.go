// Package cgroup holds the processes of a run to their share of the node:
// cpu and memory limits through the kernel's control groups, version 2 or 1,
// wherever this user may make them.
//
// A group is named by its caller and may be made, entered and removed again
// any number of times; whoever comes later finds it by its name. Nothing of a
// group is kept in memory. A group outlives the process that made it: who
// makes groups must sweep them after a kill (List, Remove).
package cgroup
