package template

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Limits of Resource Manager.
// https://learn.microsoft.com/azure/azure-resource-manager/templates/best-practices#template-limits
const (
	maxParameters = 256
	maxResources  = 800
	maxOutputs    = 64
)

// Deployment is a template with its parameters: what is to be made.
type Deployment struct {
	// Resources in an order in which they can be made; none that a condition
	// leaves out.
	Resources []*Resource
	// Parameters as a deployment tells them: those that are secure without value.
	Parameters map[string]any

	outputs map[string]any
	scope   *scope
}

// Resource is one that a template asks for.
type Resource struct {
	ID, Type, Name, APIVersion string
	// DependsOn are the ids of those that come before it, in lower case.
	DependsOn []string

	raw   map[string]any
	scope *scope
	loop  string
	wants []string
}

// Load evaluates a template as far as it can be before anything is made.
// Parameters are as in the body of a deployment: name to {"value": …}.
func Load(text, parameters any, host Host) (*Deployment, error) {
	t, ok := text.(map[string]any)
	if !ok {
		return nil, &Error{"InvalidRequestContent", "The request content was invalid and could not be deserialized: 'Required property 'template' not found in JSON.'"}
	}
	if _, ok := t["$schema"].(string); !ok {
		return nil, invalid("Deployment template validation failed: 'The template is missing the required property '$schema'. " +
			"Please see https://aka.ms/arm-syntax for usage details.'")
	}
	if _, ok := t["contentVersion"].(string); !ok {
		return nil, invalid("Deployment template validation failed: 'The template is missing the required property 'contentVersion'. " +
			"Please see https://aka.ms/arm-syntax for usage details.'")
	}
	for key := range t {
		switch key {
		case "$schema", "contentVersion", "parameters", "variables", "resources", "outputs", "metadata", "apiProfile":
		default:
			return nil, invalid("Deployment template validation failed: 'Could not find member '%s' on object of type 'Template'. Path '%s'.'", key, key)
		}
	}
	d := &Deployment{scope: &scope{
		host: &host, parameters: map[string]any{}, variables: map[string]any{}, known: map[string]any{}, busy: map[string]bool{}, planning: true,
	}}
	declared, _ := t["parameters"].(map[string]any)
	given, _ := parameters.(map[string]any)
	if err := d.takeParameters(declared, given); err != nil {
		return nil, err
	}
	if err := d.takeVariables(t["variables"]); err != nil {
		return nil, err
	}
	list, ok := t["resources"].([]any)
	if !ok {
		return nil, invalid("Deployment template validation failed: 'Required property 'resources' not found in JSON. Path ''.'")
	}
	var all []*Resource
	loops := map[string]int{}
	for i := range list {
		var err error
		if all, err = d.expand(all, list[i], nil, loops); err != nil {
			return nil, err
		}
	}
	if len(all) > maxResources {
		return nil, invalid("Deployment template validation failed: 'The number of template resources limit exceeded. Limit: '%d' and actual: '%d'.'", maxResources, len(all))
	}
	if err := d.order(all, loops); err != nil {
		return nil, err
	}
	d.outputs, _ = t["outputs"].(map[string]any)
	if len(d.outputs) > maxOutputs {
		return nil, invalid("Deployment template validation failed: 'The number of template outputs limit exceeded.'")
	}
	_, err := d.evaluateOutputs(d.scope)
	return d, err
}

func (d *Deployment) takeVariables(v any) error {
	variables, _ := v.(map[string]any)
	for name, value := range variables {
		if name != "copy" {
			d.scope.variables[strings.ToLower(name)] = value
			continue
		}
		loops, ok := value.([]any)
		if !ok {
			return invalid("Deployment template validation failed: 'The copy of variables must be an array.'")
		}
		for _, l := range loops {
			loop, _ := l.(map[string]any)
			name, _ := loop["name"].(string)
			d.scope.variables[strings.ToLower(name)] = variableLoop{l}
		}
	}
	s := *d.scope
	host := *s.host
	host.Reference = nil // which variables must not ask for
	s.host, s.planning = &host, false
	for name := range s.variables {
		if _, err := s.variable(name); err != nil {
			return err
		}
	}
	return nil
}

// variableLoop is a variable that a copy element makes.
type variableLoop struct{ loop any }

// expand appends what one element of resources asks for.
func (d *Deployment) expand(all []*Resource, v any, parent *Resource, loops map[string]int) ([]*Resource, error) {
	raw, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("Deployment template validation failed: 'A resource must be an object.'")
	}
	loop, ok := raw["copy"].(map[string]any)
	if !ok {
		return d.single(all, raw, d.scope, parent, "", loops)
	}
	name, _ := loop["name"].(string)
	count, err := d.scope.count(loop["count"])
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, invalid("Deployment template validation failed: 'The copy element of a resource needs a name.'")
	}
	loops[strings.ToLower(name)] = int(count)
	for i := range count {
		if all, err = d.single(all, raw, d.scope.inLoop(name, i), parent, name, loops); err != nil {
			return nil, err
		}
		if len(all) > maxResources {
			break // which Load refuses
		}
	}
	return all, nil
}

func (d *Deployment) single(all []*Resource, raw map[string]any, s *scope, parent *Resource, loop string, loops map[string]int) ([]*Resource, error) {
	r := &Resource{raw: raw, scope: s, loop: strings.ToLower(loop)}
	var ok bool
	for key, into := range map[string]*string{"type": &r.Type, "name": &r.Name, "apiVersion": &r.APIVersion} {
		v, err := s.value(raw[key])
		if err != nil {
			return nil, r.located(err)
		}
		if *into, ok = v.(string); !ok || *into == "" {
			return nil, invalid("Deployment template validation failed: 'The template resource '%s' is missing the required property '%s'. "+
				"Please see https://aka.ms/arm-syntax-resources for usage details.'", r.Name, key)
		}
	}
	if parent != nil {
		r.Type, r.Name = parent.Type+"/"+r.Type, parent.Name+"/"+r.Name
	}
	names := strings.Split(r.Name, "/")
	if strings.Count(r.Type, "/") != len(names) {
		return nil, invalid("Deployment template validation failed: 'The template resource '%s' for type '%s' has incorrect segment lengths. A nested resource type must have "+
			"identical number of segments as its resource name. A root resource type must have segment length one greater than its resource name. "+
			"Please see https://aka.ms/arm-syntax-resources for usage details.'", r.Name, r.Type)
	}
	group := s.host.text(s.host.Group, "id")
	r.ID = group + ProviderPath(r.Type, names)
	if raw["condition"] != nil {
		v, err := s.value(raw["condition"])
		if err != nil {
			return nil, r.located(err)
		}
		wanted, ok := v.(bool)
		if !ok {
			return nil, invalid("Deployment template validation failed: 'The condition of the template resource '%s' is no boolean.'", r.Name)
		}
		if !wanted {
			r.raw = nil
		}
	}
	wants, _ := raw["dependsOn"].([]any)
	for _, w := range wants {
		v, err := s.value(w)
		if err != nil {
			return nil, r.located(err)
		}
		text, ok := v.(string)
		if !ok {
			return nil, invalid("Deployment template validation failed: 'A dependency of the template resource '%s' is no string.'", r.Name)
		}
		r.wants = append(r.wants, text)
	}
	all = append(all, r)
	children, _ := raw["resources"].([]any)
	for _, c := range children {
		var err error
		if all, err = d.expand(all, c, r, loops); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// located says in which resource an expression is wrong.
func (r *Resource) located(err error) error {
	var e *Error
	if !errors.As(err, &e) || strings.HasPrefix(e.Message, "Deployment template validation failed") || strings.HasPrefix(e.Message, "Unable to process") {
		return err
	}
	return invalid("Unable to process template language expressions for resource '%s' at line '1' and column '1'. '%s'", r.ID, e.Message)
}

// Body evaluates what is to be sent to make the resource. It is called when all
// that the resource depends on is there.
func (r *Resource) Body() (map[string]any, error) { return r.body(false) }

// Draft is the body as far as it is known before anything is made: what it takes
// from other resources is left out.
func (r *Resource) Draft() (map[string]any, error) { return r.body(true) }

func (r *Resource) body(planning bool) (map[string]any, error) {
	s := *r.scope
	s.planning = planning
	return r.evaluate(&s)
}

func (r *Resource) evaluate(s *scope) (map[string]any, error) {
	out := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(r.raw)) {
		switch key {
		case "type", "name", "apiVersion", "dependsOn", "condition", "copy", "comments", "metadata", "resources":
			continue
		}
		v, err := s.value(r.raw[key])
		if err != nil {
			return nil, r.located(err)
		}
		if v = known(v); v != nil {
			out[key] = v
		}
	}
	return out, nil
}

// known leaves out what is unknown.
func known(v any) any {
	switch v := v.(type) {
	case unknown:
		return nil
	case []any:
		return slices.DeleteFunc(v, func(e any) bool { return known(e) == nil })
	case map[string]any:
		maps.DeleteFunc(v, func(_ string, e any) bool { return known(e) == nil })
	}
	return v
}

// Outputs evaluates the outputs; every resource is there.
func (d *Deployment) Outputs() (map[string]any, error) {
	s := *d.scope
	s.planning = false
	return d.evaluateOutputs(&s)
}

func (d *Deployment) evaluateOutputs(s *scope) (map[string]any, error) {
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(d.outputs)) {
		o, _ := d.outputs[name].(map[string]any)
		kind, _ := o["type"].(string)
		if kind == "" {
			return nil, invalid("Deployment template validation failed: 'The template output '%s' needs a type.'", name)
		}
		if o["condition"] != nil {
			if v, err := s.value(o["condition"]); err != nil {
				return nil, err
			} else if v == false {
				continue
			}
		}
		raw, looped := o["value"], false
		if loop, ok := o["copy"].(map[string]any); ok {
			raw, looped = map[string]any{"copy": []any{map[string]any{"name": "all", "count": loop["count"], "input": loop["input"]}}}, true
		}
		v, err := s.value(raw)
		if err != nil {
			var e *Error
			if errors.As(err, &e) && !strings.HasPrefix(e.Message, "Deployment template validation failed") {
				return nil, &Error{e.Code, fmt.Sprintf("Unable to process template language expressions in output '%s': '%s'", name, e.Message)}
			}
			return nil, err
		}
		if made, ok := v.(map[string]any); ok && looped {
			v = made["all"]
		}
		if secure(kind) {
			out[name] = map[string]any{"type": spelled(kind)}
			continue
		}
		out[name] = map[string]any{"type": spelled(kind), "value": known(v)}
	}
	return out, nil
}
