package azuretest

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"time"
)

// apply makes or changes a resource. The body is decoded by the SDK's model of
// it; what the model does not know is refused. e.mu is held.
func (e *Emulator) apply(k *kind, at string, body map[string]any) (*resource, error) {
	p := parseID(at)
	name := p.names[len(p.names)-1]
	group := e.get(e.groupID(p.group))
	switch {
	case group == nil:
		return nil, noGroup(p.group)
	case group.State == "Deleting":
		return nil, groupBeingDeleted(p.group)
	case !e.isRegistered(p.namespace):
		return nil, problem(http.StatusConflict, "MissingSubscriptionRegistration", "The subscription is not registered to use namespace '%s'. "+
			"See https://aka.ms/rps-not-found for how to register subscriptions.", p.namespace)
	case len(name) > k.longest || strings.ContainsAny(name, `<>%&\?/`) || name == "":
		return nil, problem(http.StatusBadRequest, "InvalidResourceName", "Resource name %s is invalid. The name can be up to %d characters long. "+
			"It must begin with a word character, and it must end with a word character or with '_'.", name, k.longest)
	}
	if k.within != "" {
		return e.writeChild(k, at, name, body)
	}
	old := e.get(at)
	c := &change{kind: k, host: e, old: old, model: k.model(), new: &resource{
		ID: e.groupID(group.Name) + "/providers/" + k.name + "/" + name, Kind: k.name, Name: name, Group: group.Name, Created: e.now(),
	}}
	if old != nil {
		if old.State == "Deleting" {
			return nil, problem(http.StatusConflict, "OperationNotAllowed", "The resource '%s' is being deleted.", name)
		}
		c.new.Created, c.new.Power, c.new.Secret, c.new.Due, c.new.State = old.Created, old.Power, old.Secret, old.Due, old.State
	}
	if err := decode(body, c.model); err != nil {
		return nil, err
	}
	if err := c.common(body); err != nil {
		return nil, err
	}
	if err := k.fill(e, c); err != nil {
		return nil, err
	}
	if err := c.encode(); err != nil {
		return nil, err
	}
	e.put(c.new)
	return c.new, nil
}

// common takes location and tags.
// https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations
func (c *change) common(body map[string]any) error {
	location, _ := body["location"].(string)
	if location == "" {
		return problem(http.StatusBadRequest, "LocationRequired", "The location property is required for this definition.")
	}
	c.new.Location = normal(location)
	if _, ok := regionNames[c.new.Location]; !ok {
		return problem(http.StatusBadRequest, "LocationNotAvailableForResourceType", "The provided location '%s' is not available for resource type '%s'. "+
			"List of available regions for the resource type is '%s'.", location, c.new.Kind, strings.Join(regions, ","))
	}
	if c.old != nil && c.old.Location != c.new.Location {
		return problem(http.StatusConflict, "InvalidResourceLocation", "The resource '%s' already exists in location '%s' in resource group '%s'. "+
			"A resource with the same name cannot be created in location '%s'. Please select a new resource name.", c.new.Name, c.old.Location, c.new.Group, c.new.Location)
	}
	tags, err := tagsOf(body["tags"])
	c.new.Tags = tags
	return err
}

func tagsOf(v any) (map[string]string, error) {
	given, _ := v.(map[string]any)
	if len(given) > 50 {
		return nil, problem(http.StatusBadRequest, "InvalidTagCount", "The number of tags '%d' exceeds the maximum '50'.", len(given))
	}
	tags := map[string]string{}
	for name, value := range given {
		text, ok := value.(string)
		switch {
		case !ok:
			return nil, problem(http.StatusBadRequest, "InvalidRequestContent", "The request content was invalid: the tag '%s' is no string.", name)
		case len(name) > 512 || strings.ContainsAny(name, `<>%&\?/`):
			return nil, problem(http.StatusBadRequest, "InvalidTagNameCharacters", "The tag names '%s' have reserved characters '<,>,%%,&,\\,?,/' or control characters.", name)
		case len([]rune(text)) > 256:
			return nil, problem(http.StatusBadRequest, "InvalidTagValueLength", "Tag value too large. The following tag values '%s' exceed the maximum length '256'.", text)
		}
		tags[name] = text
	}
	return tags, nil
}

// decode reads a body by a model of the SDK, and refuses what that leaves out.
func decode(body map[string]any, model any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return problem(http.StatusBadRequest, "InvalidRequestContent", "The request content was invalid and could not be deserialized: '%v'.", err)
	}
	if err := json.Unmarshal(text, model); err != nil {
		return problem(http.StatusBadRequest, "InvalidRequestContent", "The request content was invalid and could not be deserialized: '%v'.", err)
	}
	back, err := object(model)
	if err != nil {
		return err
	}
	if path := lost(body, back, ""); path != "" {
		return problem(http.StatusBadRequest, "InvalidRequestContent", "The request content was invalid and could not be deserialized: 'Could not find member '%s' on object of type '%s'. Path '%s'.'",
			path[strings.LastIndex(path, ".")+1:], reflect.TypeOf(model).Elem().Name(), path)
	}
	return nil
}

// object is a model as JSON has it.
func object(model any) (map[string]any, error) {
	text, err := json.Marshal(model)
	if err != nil {
		return nil, problem(http.StatusInternalServerError, "InternalServerError", "encode a model: %v", err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, problem(http.StatusInternalServerError, "InternalServerError", "encode a model: %v", err)
	}
	return out, nil
}

// lost finds what was given and is not there any more.
func lost(given, there any, path string) string {
	switch g := given.(type) {
	case map[string]any:
		t, ok := there.(map[string]any)
		for name, v := range g {
			if v == nil {
				continue
			}
			inner := strings.TrimPrefix(path+"."+name, ".")
			if !ok || t[name] == nil {
				return inner
			}
			if at := lost(v, t[name], inner); at != "" {
				return at
			}
		}
	case []any:
		t, ok := there.([]any)
		for i, v := range g {
			if !ok || i >= len(t) {
				return path
			}
			if at := lost(v, t[i], path); at != "" {
				return at
			}
		}
	}
	return ""
}

// encode keeps the model.
func (c *change) encode() error {
	body, err := object(c.model)
	if err != nil {
		return err
	}
	for _, name := range []string{"id", "name", "type", "location", "tags", "resources"} {
		delete(body, name)
	}
	c.new.Body, err = json.Marshal(body)
	if err != nil {
		return problem(http.StatusInternalServerError, "InternalServerError", "encode: %v", err)
	}
	return nil
}

// model decodes what is kept of a resource.
func model[T any](r *resource) *T {
	out := new(T)
	if err := json.Unmarshal(r.Body, out); err != nil {
		return new(T) // cannot be: the model encoded it
	}
	return out
}

// remodel replaces what is kept of a resource. e.mu is held.
func (e *Emulator) remodel(r *resource, m any) error {
	c := &change{new: r.clone(), model: m}
	if err := c.encode(); err != nil {
		return err
	}
	e.put(c.new)
	return nil
}

// render is a resource as a GET tells it.
func (r *resource) render() map[string]any {
	out := map[string]any{}
	if len(r.Body) > 0 {
		if err := json.Unmarshal(r.Body, &out); err != nil {
			out = map[string]any{} // cannot be: we wrote it
		}
	}
	out["id"], out["name"], out["type"] = r.ID, r.Name, r.Kind
	if r.Location != "" {
		out["location"] = r.Location
	}
	if r.Tags != nil {
		out["tags"] = r.Tags
	}
	properties, ok := out["properties"].(map[string]any)
	if !ok {
		properties = map[string]any{}
		out["properties"] = properties
	}
	properties["provisioningState"] = r.state()
	if strings.HasPrefix(r.Kind, "Microsoft.Network/") {
		out["etag"] = `W/"` + r.Changed.Format(time.RFC3339Nano) + `"`
	}
	return out
}

// writeChild writes a rule or a subnet into its parent.
func (e *Emulator) writeChild(k *kind, at, name string, body map[string]any) (*resource, error) {
	old := e.get(parent(at))
	if old == nil {
		return nil, problem(http.StatusNotFound, "ParentResourceNotFound", "Failed to perform 'write' on resource(s) of type '%s', because the parent resource '%s' could not be found.",
			strings.SplitN(k.name, "/", 2)[1], parent(at))
	}
	if err := decode(body, k.model()); err != nil {
		return nil, err
	}
	body["name"] = name
	return e.rewrite(k, old, name, body)
}

// rewrite replaces or, with a nil body, removes a child.
func (e *Emulator) rewrite(k *kind, old *resource, name string, body map[string]any) (*resource, error) {
	whole := old.render()
	delete(whole, "etag")
	properties := whole["properties"].(map[string]any)
	list, _ := properties[k.within].([]any)
	kept := make([]any, 0, len(list)+1)
	for _, c := range list {
		if child, ok := c.(map[string]any); ok && strings.EqualFold(child["name"].(string), name) {
			continue
		}
		kept = append(kept, c)
	}
	if body != nil {
		kept = append(kept, body)
	}
	properties[k.within] = kept
	tags := map[string]any{}
	for key, v := range old.Tags {
		tags[key] = v
	}
	whole["tags"] = tags
	return e.apply(kindNamed(old.Kind), old.ID, whole)
}

// child finds a rule or subnet in its parent, as it is told.
func child(within string, of *resource, name string) map[string]any {
	if of == nil {
		return nil
	}
	list, _ := of.render()["properties"].(map[string]any)[within].([]any)
	for _, c := range list {
		if m, ok := c.(map[string]any); ok {
			if n, _ := m["name"].(string); strings.EqualFold(n, name) {
				return m
			}
		}
	}
	return nil
}
