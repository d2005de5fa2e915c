// Package api is core's HTTP: /v1 for all terminals, /user for those that
// exist already, events, logs, results, staging, health and metrics. It
// translates between HTTP and a [Backend]; it decides nothing and stores
// nothing.
//
// What it guarantees:
//
//   - Who calls is settled before any handler runs (401), and whose a job is
//     before any handler of a job route runs (404, 403): the one place is the
//     router in router.go, and no route can be added past it.
//   - Every body is bounded, and every read and write of a connection has a
//     deadline that moves only with progress.
//   - A follower of events sees every stored event once and in order, however
//     slow it is; a follower of a log sees every byte once.
//   - A mistake of ours ends one request with 500 and a request id, nothing else.
//
// The handler is safe for concurrent use and keeps no state between requests.
// It ends streams when the request's context ends, so core's base context must
// end before the server is shut down.
package api
