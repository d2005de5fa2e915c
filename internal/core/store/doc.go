// Package store keeps what core must not forget: jobs, their attempts and
// scripts, partitions, events, the answers to idempotent submissions, and, sealed
// so that it cannot open them itself, keys and secrets. It is the only room that
// says SQL.
//
// All writes go through [Store.Update]. Updates that arrive together share one
// transaction and one sync to disk (group commit); Update returns when that is
// done, so what it wrote survives kill -9 and loss of power. Each state move is
// checked against the tables of package skyport and written with its event in
// the same transaction. Reads see committed data and never wait for writers.
//
// After every commit the store hands the rows and events that changed, in
// commit order, to one listener: core's memory of what is active follows from
// these and needs no second look at the tables.
//
// The SQL keeps to what SQLite and PostgreSQL both say ($1 parameters, TEXT,
// BIGINT, no AUTOINCREMENT: numbers come from a counter row), so that the same
// queries serve both; storetest is the suite that a second backend must pass.
package store
