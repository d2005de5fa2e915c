// Package task has the two programs that a job finds in its PATH, and what they
// and the worker know of one another.
//
// swm-task starts tasks over the nodes of the job, swm-rsh one command on one of
// them, as a remote shell would. Both ask the worker beside them, over a socket
// in the run's task directory, and speak with the command through it (package
// session). The worker runs the command itself or passes the session on to the
// worker of the node that is meant. The socket serves commands of this run only;
// it needs no key, because who can open it is the run.
//
// The task directory is there at the same path wherever the job's processes
// run, also inside a container:
//
//	hostfile    name slots=N, a line a node, main first: Open MPI's format
//	machines    name:N, a line a node: MPICH's format
//	nodes.json  Surroundings
//	sock        the worker
package task
