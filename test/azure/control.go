package azuretest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// Resource is something that exists.
type Resource struct {
	ID    string            `json:"id"`
	Kind  string            `json:"kind"`
	Tags  map[string]string `json:"tags,omitempty"`
	State string            `json:"state"`
	Power string            `json:"power,omitempty"`
}

// Resources tells all that exists now: groups and what is in them. Deployments,
// which cost nothing and go with their groups, are left out.
func (e *Emulator) Resources() []Resource {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []Resource{}
	for _, r := range e.list(0, func(r *resource) bool { return r.Kind != kindDeployment }) {
		all = append(all, Resource{ID: r.ID, Kind: r.Kind, Tags: r.clone().Tags, State: r.state(), Power: r.Power})
	}
	return all
}

// control is what other processes steer the emulator by:
//
//	GET, PUT /emulator/faults      Faults
//	GET /emulator/resources        []Resource
//	GET, DELETE /emulator/calls    []Call
//	POST /emulator/evict?id=       takes a spot machine back
//	POST /emulator/advance?by=1h   moves the clock
func (e *Emulator) control(w http.ResponseWriter, r *http.Request) {
	out, err := e.steer(r)
	if err != nil {
		out = refusal(err)
	}
	e.write(w, out)
}

func (e *Emulator) steer(r *http.Request) (*response, error) {
	switch what := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/emulator/"); what {
	case "GET faults":
		return answer(http.StatusOK, e.Faults())
	case "PUT faults":
		var f Faults
		in := json.NewDecoder(io.LimitReader(r.Body, maxBody))
		in.DisallowUnknownFields()
		if err := in.Decode(&f); err != nil {
			return nil, problem(http.StatusBadRequest, "BadFaults", "%v", err)
		}
		e.SetFaults(f)
		return answer(http.StatusOK, f)
	case "GET resources":
		return answer(http.StatusOK, e.Resources())
	case "GET calls":
		return answer(http.StatusOK, e.Calls())
	case "DELETE calls":
		e.chance.Lock()
		defer e.chance.Unlock()
		e.chance.calls = nil
		return answer(http.StatusOK, nil)
	case "POST evict":
		if err := e.Evict(r.URL.Query().Get("id")); err != nil {
			return nil, err
		}
		return answer(http.StatusOK, nil)
	case "POST advance":
		by, err := time.ParseDuration(r.URL.Query().Get("by"))
		if err != nil || by < 0 {
			return nil, problem(http.StatusBadRequest, "BadDuration", "%v", errors.Join(err, errors.New("by wants a duration such as 1h")))
		}
		e.Advance(by)
		return answer(http.StatusOK, nil)
	}
	return nil, problem(http.StatusNotFound, "NotFound", "There is no %s %s.", r.Method, r.URL.Path)
}
