package template

import (
	"slices"
	"strings"
)

// order sorts the resources by what they depend on, said or implied by a
// reference, and leaves out those that are not wanted.
// https://learn.microsoft.com/azure/azure-resource-manager/templates/resource-dependency
func (d *Deployment) order(all []*Resource, loops map[string]int) error {
	byID := map[string]*Resource{}
	for _, r := range all {
		key := strings.ToLower(r.ID)
		if old := byID[key]; old != nil && old.raw != nil && r.raw != nil {
			return invalid("Deployment template validation failed: 'The resource '%s' at line '1' and column '1' is defined multiple times in a template. "+
				"Please see https://aka.ms/arm-syntax-resources for usage details.'", strings.TrimPrefix(r.ID, d.scope.host.text(d.scope.host.Group, "id")+"/providers/"))
		}
		byID[key] = r
	}
	for _, r := range all {
		if r.raw == nil {
			continue
		}
		if err := d.dependencies(r, all, byID, loops); err != nil {
			return err
		}
	}
	const visiting, done = 1, 2
	state := map[*Resource]int{}
	var visit func(r *Resource) error
	visit = func(r *Resource) error {
		switch state[r] {
		case visiting:
			return invalid("Deployment template validation failed: 'Circular dependency detected on resource: '%s'. "+
				"Please see https://aka.ms/arm-syntax-resources for usage details.'", r.ID)
		case done:
			return nil
		}
		state[r] = visiting
		for _, id := range r.DependsOn {
			if err := visit(byID[id]); err != nil {
				return err
			}
		}
		state[r] = done
		d.Resources = append(d.Resources, r)
		return nil
	}
	for _, r := range all {
		if r.raw == nil {
			continue
		}
		if err := visit(r); err != nil {
			return err
		}
	}
	return nil
}

// dependencies resolves what a resource waits for: ids, names or loops.
func (d *Deployment) dependencies(r *Resource, all []*Resource, byID map[string]*Resource, loops map[string]int) error {
	add := func(o *Resource) {
		if id := strings.ToLower(o.ID); o.raw != nil && o != r && !slices.Contains(r.DependsOn, id) {
			r.DependsOn = append(r.DependsOn, id)
		}
	}
	for _, want := range r.wants {
		key := strings.ToLower(want)
		if !strings.HasPrefix(key, "/") && strings.Contains(strings.SplitN(key, "/", 2)[0], ".") { // type/name without the group
			key = d.wholeID(key)
		}
		if o := byID[key]; o != nil {
			add(o)
			continue
		}
		found := false
		if _, ok := loops[key]; ok {
			found = true
			for _, o := range all {
				if o.loop == key {
					add(o)
				}
			}
		}
		for _, o := range all {
			if strings.EqualFold(o.Name, want) {
				found = true
				add(o)
			}
		}
		if !found {
			return invalid("Deployment template validation failed: 'The resource '%s' is not defined in the template. "+
				"Please see https://aka.ms/arm-syntax for usage details.'", want)
		}
	}
	s := *r.scope
	s.references = func(to string) {
		for _, o := range all {
			if strings.EqualFold(o.ID, to) || strings.EqualFold(o.Name, to) {
				add(o)
			}
		}
	}
	_, err := r.evaluate(&s)
	return err
}

// wholeID makes an id of "namespace/type/name".
func (d *Deployment) wholeID(short string) string {
	parts := strings.Split(short, "/")
	// Either ns/type/name/child/name as in ids.
	return strings.ToLower(d.scope.host.text(d.scope.host.Group, "id")) + "/providers/" + strings.Join(parts, "/")
}
