package azuretest

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"

	"github.com/openworkload/skyport/test/azure/template"
)

// resourceCall is a call for one resource, a list of a group or an action.
func (e *Emulator) resourceCall(req *request, group string) (*response, error) {
	s := req.segments[5:] // namespace/type/name/type/name…
	namespace := s[0]
	name := namespace
	for i := 1; i < len(s); i += 2 {
		name += "/" + s[i]
	}
	collection := len(s)%2 == 0
	if collection { // of a kind, or an action upon a resource
		if k := kindNamed(strings.Join(append([]string{namespace}, everySecond(s[1:])...), "/")); k != nil {
			return e.listKind(req, k, group)
		}
		if kindNamed(strings.Join(append([]string{namespace}, everySecond(s[1:len(s)-1])...), "/")) != nil {
			return e.act(req, "/"+strings.Join(req.segments[:len(req.segments)-1], "/"), s[len(s)-1])
		}
	}
	k, err := usable(name, req.version, "")
	if err != nil {
		return nil, err
	}
	at := "/" + strings.Join(req.segments, "/")
	switch req.method {
	case http.MethodGet, http.MethodHead:
		return e.read(req, k, at)
	case http.MethodPut, http.MethodPatch:
		body, err := bodyOf(req)
		if err != nil {
			return nil, err
		}
		return e.putResource(req, k, at, body)
	case http.MethodDelete:
		return e.deleteResource(req, k, at)
	}
	return nil, methodNotAllowed(req.method)
}

func everySecond(s []string) (out []string) {
	for i := 0; i < len(s); i += 2 {
		out = append(out, s[i])
	}
	return out
}

// bodyOf decodes a body that must be an object.
func bodyOf(req *request) (map[string]any, error) {
	v, err := template.Decode(req.body)
	body, ok := v.(map[string]any)
	if err != nil || !ok {
		return nil, problem(http.StatusBadRequest, "InvalidRequestContent", "The request content was invalid and could not be deserialized: 'an object was expected'.")
	}
	return body, nil
}

func (e *Emulator) read(req *request, k *kind, at string) (*response, error) {
	lag := e.Faults().GetLag
	e.mu.Lock()
	defer e.mu.Unlock()
	if k.within != "" {
		if c := child(k.within, e.at(parent(at), lag), lastOf(at)); c != nil {
			return answer(http.StatusOK, c)
		}
		return nil, noResource(at)
	}
	r := e.at(at, lag)
	if r == nil {
		return nil, noResource(at)
	}
	return answer(http.StatusOK, e.told(r, strings.EqualFold(req.query.Get("$expand"), "instanceView")))
}

// told is a resource as it is answered, virtual machines with what they do.
func (e *Emulator) told(r *resource, view bool) map[string]any {
	out := r.render()
	if view && r.Kind == kindVM {
		if v, err := object(e.instanceView(r)); err == nil {
			out["properties"].(map[string]any)["instanceView"] = v
		}
	}
	return out
}

// listKind lists what there is of a kind in a group, or with no group in all.
func (e *Emulator) listKind(req *request, k *kind, group string) (*response, error) {
	if req.method != http.MethodGet {
		return nil, methodNotAllowed(req.method)
	}
	if _, err := usable(k.name, req.version, ""); err != nil {
		return nil, err
	}
	lag := e.Faults().ListLag
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []any{}
	if k.within != "" {
		of := e.at("/"+strings.Join(req.segments[:len(req.segments)-1], "/"), lag)
		if of == nil {
			return nil, noResource("/" + strings.Join(req.segments[:len(req.segments)-1], "/"))
		}
		list, _ := of.render()["properties"].(map[string]any)[k.within].([]any)
		return answer(http.StatusOK, map[string]any{"value": append(all, list...)})
	}
	view := strings.EqualFold(req.query.Get("$expand"), "instanceView") || strings.EqualFold(req.query.Get("statusOnly"), "true")
	for _, r := range e.list(lag, func(r *resource) bool { return r.Kind == k.name && (group == "" || strings.EqualFold(r.Group, group)) }) {
		all = append(all, e.told(r, view))
	}
	return e.page(req, all)
}

// page answers a list in pages of so many. https://learn.microsoft.com/rest/api/azure/#async-operations-throttling-and-paging
func (e *Emulator) page(req *request, all []any) (*response, error) {
	const size = 100
	skip := 0
	if text := req.query.Get("$skipToken"); text != "" {
		if err := json.Unmarshal([]byte(text), &skip); err != nil || skip < 0 {
			return nil, problem(http.StatusBadRequest, "InvalidSkipToken", "The skip token '%s' is not valid.", text)
		}
	}
	skip = min(skip, len(all))
	body := map[string]any{"value": all[skip:min(len(all), skip+size)]}
	if skip+size < len(all) {
		q := maps.Clone(req.query)
		text, err := json.Marshal(skip + size)
		if err != nil {
			return nil, problem(http.StatusInternalServerError, "InternalServerError", "%v", err)
		}
		q["$skipToken"] = []string{string(text)}
		body["nextLink"] = e.URL() + req.path + "?" + q.Encode()
	}
	return answer(http.StatusOK, body)
}

// putResource makes or changes one by a call of its own.
func (e *Emulator) putResource(req *request, k *kind, at string, body map[string]any) (*response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.get(at)
	if req.method == http.MethodPatch {
		if old == nil {
			return nil, noResource(at)
		}
		whole := old.render()
		delete(whole, "etag")
		mergePatch(whole, body)
		if _, ok := body["tags"]; !ok {
			tags := map[string]any{}
			for key, v := range old.Tags {
				tags[key] = v
			}
			whole["tags"] = tags
		}
		body = whole
	}
	var existed bool
	if k.within != "" {
		existed = child(k.within, e.get(parent(at)), lastOf(at)) != nil
	} else {
		existed = old != nil
	}
	if k.name == kindVM && !existed {
		if err := e.preflight([]map[string]any{body}); err != nil {
			return nil, err
		}
	}
	r, err := e.apply(k, at, body)
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if !existed {
		status = http.StatusCreated
	}
	out, err := answer(status, e.told(r, false))
	if k.within != "" {
		out.body = child(k.within, r, lastOf(at))
	}
	if !k.slow {
		return out, err
	}
	boots := k.name == kindVM && !existed
	op := e.begin(boots)
	e.accepted(out, op, parseID(at).namespace, r.Location, req.version)
	if boots {
		e.jobs.Go(func() {
			failed := e.boot(e.ctx, []string{r.ID})
			e.mu.Lock()
			defer e.mu.Unlock()
			op.end(failed[key(r.ID)])
		})
	}
	return out, err
}

// mergePatch changes an object as RFC 7396 says.
func mergePatch(into, patch map[string]any) {
	for name, v := range patch {
		inner, ok := v.(map[string]any)
		old, was := into[name].(map[string]any)
		switch {
		case v == nil:
			delete(into, name)
		case ok && was && name != "tags":
			mergePatch(old, inner)
		default:
			into[name] = v
		}
	}
}

func (e *Emulator) deleteResource(req *request, k *kind, at string) (*response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if k.within != "" {
		of := e.get(parent(at))
		if child(k.within, of, lastOf(at)) == nil {
			return answer(http.StatusNoContent, nil)
		}
		if used := e.user(at, of.ID); used != nil {
			return nil, inUse(at, used)
		}
		if _, err := e.rewrite(k, of, lastOf(at), nil); err != nil {
			return nil, err
		}
		out, err := answer(http.StatusAccepted, nil)
		e.accepted(out, e.begin(false), parseID(at).namespace, of.Location, req.version)
		return out, err
	}
	r := e.get(at)
	if r == nil {
		return answer(http.StatusNoContent, nil)
	}
	if k.remove != nil {
		if err := k.remove(e, r); err != nil {
			return nil, err
		}
	}
	if !k.slow {
		e.drop(r.ID)
		return answer(http.StatusOK, nil)
	}
	out, err := answer(http.StatusAccepted, nil)
	op := e.begin(k.name == kindVM)
	e.accepted(out, op, parseID(at).namespace, r.Location, req.version)
	if k.name != kindVM {
		e.drop(r.ID)
		return out, err
	}
	gone := r.clone()
	gone.State = "Deleting"
	e.put(gone)
	e.jobs.Go(func() {
		err := e.endMachines(e.ctx, []string{r.ID})
		e.mu.Lock()
		defer e.mu.Unlock()
		op.end(err)
	})
	return out, err
}
