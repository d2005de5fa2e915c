package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openworkload/skyport"
)

// This file says how each type lies in its table: the columns once, in one
// order, for insert, update and select.

var (
	jobColumns = []string{
		"id", "number", "owner", "account", "name", "state", "details", "request", "attempt", "partition_id", "site",
		"flavor", "node_names", "address", "exit_code", "signal", "warnings", "result_bytes", "inputs", "retried", "misplaced",
		"not_before", "origin", "purged", "submit_time", "start_time", "end_time",
	}
	attemptColumns = []string{
		"job", "number", "partition_id", "cpus", "memory", "gpus", "address", "phase", "exit_code", "signal", "outcome",
		"usage", "created", "started", "ended",
	}
	partitionColumns = []string{
		"id", "name", "state", "details", "account", "site", "flavor", "image", "nodes", "keep_alive", "keep_resources",
		"created", "ready_at", "idle_since", "deleted_at", "spot", "code",
	}
	eventColumns = []string{
		"seq", "time", "kind", "job", "owner", "attempt", "partition_id", "state", "text", "transfer",
	}

	selectJob       = selectFrom("jobs", jobColumns)
	selectAttempt   = selectFrom("attempts", attemptColumns)
	selectPartition = selectFrom("partitions", partitionColumns)
	selectEvent     = selectFrom("events", eventColumns)

	insertJob       = insertInto("jobs", jobColumns)
	insertAttempt   = insertInto("attempts", attemptColumns)
	insertPartition = insertInto("partitions", partitionColumns)
	insertEvent     = insertInto("events", eventColumns)

	updateJob       = updateOf("jobs", jobColumns, 1)
	updateAttempt   = updateOf("attempts", attemptColumns, 2) + ` AND phase <= $8`
	updatePartition = updateOf("partitions", partitionColumns, 1)
)

func jobArgs(j *skyport.Job) []any {
	return []any{
		j.ID, j.Number, j.Owner, j.Account, j.Name, j.State, j.Details, toJSON(j.Request), j.Attempt, j.Partition, j.Site,
		j.Flavor, toJSON(j.NodeNames), j.Address, j.ExitCode, j.Signal, toJSON(j.Warnings), int64(j.ResultBytes), toJSON(j.Inputs),
		j.Retried, j.Misplaced, micros(j.NotBefore), j.Origin, flag(j.Purged), micros(j.SubmitTime), micros(j.StartTime), micros(j.EndTime),
	}
}

func scanJob(row scanner) (j skyport.Job, err error) {
	var purged, notBefore, submit, start, end int64
	var request, nodes, warnings, inputs []byte
	err = row.Scan(
		&j.ID, &j.Number, &j.Owner, &j.Account, &j.Name, &j.State, &j.Details, &request, &j.Attempt, &j.Partition, &j.Site,
		&j.Flavor, &nodes, &j.Address, &j.ExitCode, &j.Signal, &warnings, &j.ResultBytes, &inputs,
		&j.Retried, &j.Misplaced, &notBefore, &j.Origin, &purged, &submit, &start, &end)
	if err != nil {
		return j, err
	}
	j.Purged, j.NotBefore = purged != 0, moment(notBefore)
	j.SubmitTime, j.StartTime, j.EndTime = moment(submit), moment(start), moment(end)
	return j, errors.Join(fromJSON(request, &j.Request), fromJSON(nodes, &j.NodeNames), fromJSON(warnings, &j.Warnings), fromJSON(inputs, &j.Inputs))
}

func attemptArgs(a *skyport.Attempt) []any {
	return []any{
		a.Job, a.Number, a.Partition, a.CPUs, int64(a.Memory), a.GPUs, a.Address, int(a.Phase), a.ExitCode, a.Signal, a.Outcome,
		toJSON(a.Usage), micros(a.Created), micros(a.Started), micros(a.Ended),
	}
}

func scanAttempt(row scanner) (a skyport.Attempt, err error) {
	var created, started, ended int64
	var usage []byte
	err = row.Scan(
		&a.Job, &a.Number, &a.Partition, &a.CPUs, &a.Memory, &a.GPUs, &a.Address, &a.Phase, &a.ExitCode, &a.Signal, &a.Outcome,
		&usage, &created, &started, &ended)
	if err != nil {
		return a, err
	}
	a.Created, a.Started, a.Ended = moment(created), moment(started), moment(ended)
	return a, fromJSON(usage, &a.Usage)
}

func partitionArgs(p *skyport.Partition) []any {
	return []any{
		p.ID, p.Name, p.State, p.Details, p.Account, p.Site, toJSON(p.Flavor), p.Image, toJSON(p.Nodes), int64(p.KeepAlive), flag(p.KeepResources),
		micros(p.Created), micros(p.ReadyAt), micros(p.IdleSince), micros(p.DeletedAt), flag(p.Spot), p.Code,
	}
}

func scanPartition(row scanner) (p skyport.Partition, err error) {
	var keep, created, ready, idle, deleted, spot int64
	var flavor, nodes []byte
	err = row.Scan(
		&p.ID, &p.Name, &p.State, &p.Details, &p.Account, &p.Site, &flavor, &p.Image, &nodes, &p.KeepAlive, &keep,
		&created, &ready, &idle, &deleted, &spot, &p.Code)
	if err != nil {
		return p, err
	}
	p.KeepResources, p.Spot = keep != 0, spot != 0
	p.Created, p.ReadyAt, p.IdleSince, p.DeletedAt = moment(created), moment(ready), moment(idle), moment(deleted)
	return p, errors.Join(fromJSON(flavor, &p.Flavor), fromJSON(nodes, &p.Nodes))
}

func eventArgs(e *skyport.Event) []any {
	transfer := ""
	if e.Transfer != nil {
		transfer = toJSON(e.Transfer)
	}
	return []any{e.Seq, micros(e.Time), e.Kind, e.Job, e.Owner, e.Attempt, e.Partition, e.State, e.Text, transfer}
}

func scanEvent(row scanner) (e skyport.Event, err error) {
	var at int64
	var transfer []byte
	if err = row.Scan(&e.Seq, &at, &e.Kind, &e.Job, &e.Owner, &e.Attempt, &e.Partition, &e.State, &e.Text, &transfer); err != nil {
		return e, err
	}
	e.Time = moment(at)
	if len(transfer) > 0 {
		e.Transfer = new(skyport.Transfer)
		return e, fromJSON(transfer, e.Transfer)
	}
	return e, nil
}

// scanner is a row of either kind.
type scanner interface{ Scan(into ...any) error }

// querier runs a query: the pool of readers or a transaction.
type querier interface {
	query(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// one returns the only row of a query, or missing.
func one[T any](ctx context.Context, q querier, scan func(scanner) (T, error), missing error, query string, args ...any) (T, error) {
	rows, err := many(ctx, q, scan, query, args...)
	if err != nil || len(rows) > 0 {
		return append(rows, *new(T))[0], err
	}
	return *new(T), missing
}

// many returns all rows of a query.
func many[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer func() { _ = rows.Close() }() // what failed in reading is in rows.Err
	var list []T
	for rows.Next() {
		value, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("store: read a row: %w", err)
		}
		list = append(list, value)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return list, nil
}

func notFound[T ~string](what string, id T) error {
	return skyport.Errorf(skyport.CodeNotFound, "no %s %s", what, id)
}

func selectFrom(table string, columns []string) string {
	return "SELECT " + strings.Join(columns, ", ") + " FROM " + table
}

func insertInto(table string, columns []string) string {
	marks := make([]string, len(columns))
	for i := range columns {
		marks[i] = fmt.Sprintf("$%d", i+1)
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(columns, ", "), strings.Join(marks, ", "))
}

// updateOf sets all columns but the first keys, which choose the row.
func updateOf(table string, columns []string, keys int) string {
	pairs := make([]string, len(columns))
	for i, column := range columns {
		pairs[i] = fmt.Sprintf("%s = $%d", column, i+1)
	}
	return fmt.Sprintf("UPDATE %s SET %s WHERE %s", table, strings.Join(pairs[keys:], ", "), strings.Join(pairs[:keys], " AND "))
}

func toJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: %T cannot be written as JSON: %v", v, err)) // a mistake in our types
	}
	return string(data)
}

func fromJSON(data []byte, into any) error {
	if len(data) == 0 || string(data) == "null" {
		return nil
	}
	return json.Unmarshal(data, into)
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func moment(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
