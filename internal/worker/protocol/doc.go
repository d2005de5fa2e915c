// Package protocol is what core and worker say to one another: the types of
// the worker's HTTP API and a client for it. The worker listens on a unix
// socket only; the client dials through whatever the link gives it.
//
// A run is one attempt of a job on this worker, named by core
// (skyport.RunName), so every call can be made again after a lost answer.
// The routes, all under /v1:
//
//	GET    /worker                          who this is: version, boot id
//	PUT    /runs/{run}                      make the run's directory; starts nothing
//	GET    /runs/{run}                      its status
//	POST   /runs/{run}/inputs/…             transfer of the inputs (package transfer)
//	POST   /runs/{run}/start                start the script, once, whatever happens
//	GET    /watch                           stream of run statuses, one JSON object a line
//	GET    /runs/{run}/logs/{stream}        bytes of a log from ?offset=
//	GET    /runs/{run}/metrics              samples of cpu and memory
//	POST   /runs/{run}/stop                 TERM, grace, KILL to the whole tree
//	POST   /runs/{run}/outputs/…            manifest and chunks of the outputs (package transfer)
//	POST   /runs/{run}/connect?port=        becomes a TCP connection to the job's port
//	POST   /runs/{run}/accept?port=         becomes the next TCP connection that the job makes to an out port
//	POST   /commands?run=&node=             becomes the session of a command (package session; first frame: Command)
//	POST   /runs/{run}/files/put/{path}/…   transfer into a directory of the work directory, see FilesPut
//	…      /runs/{run}/files/get/{path}/…   transfer of a file or directory of it, see FilesGet
//	GET    /usage                           NodeUsage
//	PUT    /lease                           until when the node lives
//	DELETE /runs/{run}                      kill what is left and forget everything
//	GET    /metrics                         Prometheus (also without /v1)
package protocol
