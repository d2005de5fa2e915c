package azuretest

import (
	"net/http"
	"strconv"
	"time"
)

// operation is something that was begun.
// https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
type operation struct {
	id       string
	began    time.Time
	ready    time.Time // it is over then, unless open
	open     bool      // a goroutine says when it is over
	problem  *Problem
	canceled bool
}

// begin makes an operation that is over after the latency; open: when end is
// called. e.mu is held.
func (e *Emulator) begin(open bool) *operation {
	e.serial++
	op := &operation{id: strconv.FormatUint(e.o.Seed, 36) + "-" + strconv.Itoa(e.serial), began: e.now(), ready: time.Now().Add(e.o.Latency), open: open}
	e.operations[op.id] = op
	if len(e.operations) > 20_000 {
		for id, old := range e.operations {
			if !old.open && time.Since(old.ready) > 10*time.Minute {
				delete(e.operations, id)
			}
		}
	}
	return op
}

// end says that an open operation is over. e.mu is held.
func (op *operation) end(p *Problem) {
	op.open, op.problem, op.ready = false, p, time.Now()
}

func (op *operation) status() string {
	switch {
	case op.canceled:
		return "Canceled"
	case op.open || time.Now().Before(op.ready):
		return "InProgress"
	case op.problem != nil:
		return "Failed"
	}
	return "Succeeded"
}

// operationStatus answers a GET of Azure-AsyncOperation.
func (e *Emulator) operationStatus(id string) (*response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	op := e.operations[id]
	if op == nil {
		return nil, problem(http.StatusNotFound, "OperationNotFound", "The operation '%s' was not found.", id)
	}
	body := map[string]any{"name": op.id, "status": op.status(), "startTime": op.began.Format(time.RFC3339Nano)}
	out, err := answer(http.StatusOK, body)
	switch body["status"] {
	case "InProgress":
		retryAfter(out.header, e.o.RetryAfter)
	case "Failed":
		body["error"] = op.problem
	}
	return out, err
}

// operationResult answers a GET of Location: 202 until it is over.
func (e *Emulator) operationResult(id string) (*response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	op := e.operations[id]
	if op == nil {
		return nil, problem(http.StatusNotFound, "OperationNotFound", "The operation '%s' was not found.", id)
	}
	switch op.status() {
	case "InProgress":
		out, err := answer(http.StatusAccepted, nil)
		out.header.Set("Location", e.URL()+"/subscriptions/"+e.o.Subscription+"/operationresults/"+id+"?api-version=2021-04-01")
		retryAfter(out.header, e.o.RetryAfter)
		return out, err
	case "Failed":
		return nil, op.problem
	}
	return answer(http.StatusOK, nil)
}

// accepted has an answer point to its operation.
func (e *Emulator) accepted(out *response, op *operation, namespace, location, version string) {
	base := e.URL() + "/subscriptions/" + e.o.Subscription + "/providers/" + namespace + "/locations/" + location
	out.header.Set("Azure-AsyncOperation", base+"/operations/"+op.id+"?api-version="+version)
	if out.status == http.StatusAccepted {
		out.header.Set("Location", base+"/operationResults/"+op.id+"?api-version="+version)
	}
	retryAfter(out.header, e.o.RetryAfter)
}
