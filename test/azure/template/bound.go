package template

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"
)

// bounds are the functions that depend on where they stand; variables(), which
// evaluates further expressions, is not among them.
var bounds = map[string]func(s *scope, args []any) (any, error){
	"parameters": func(s *scope, args []any) (any, error) {
		name, err := oneText("parameters", args)
		if err != nil {
			return nil, err
		}
		if v, ok := s.parameters[strings.ToLower(name)]; ok {
			return v, nil
		}
		return nil, invalid("The template parameter '%s' is not found. Please see https://aka.ms/arm-syntax-parameters for usage details.", name)
	},
	"copyindex":     copyIndex,
	"resourcegroup": func(s *scope, args []any) (any, error) { return none("resourceGroup", args, s.host.Group) },
	"subscription":  func(s *scope, args []any) (any, error) { return none("subscription", args, s.host.Subscription) },
	"tenant": func(s *scope, args []any) (any, error) {
		return none("tenant", args, map[string]any{"tenantId": s.host.Tenant})
	},
	"deployment": func(s *scope, args []any) (any, error) {
		return none("deployment", args, map[string]any{"name": s.host.Deployment})
	},
	"resourceid": resourceID,
	"reference":  reference,
	"newguid": func(s *scope, args []any) (any, error) {
		if !s.defaults {
			return nil, wrongArguments("newGuid", "the function is only allowed in the default value of a parameter")
		}
		return none("newGuid", args, guid(rand.Text()))
	},
	"utcnow": func(s *scope, _ []any) (any, error) {
		if !s.defaults {
			return nil, wrongArguments("utcNow", "the function is only allowed in the default value of a parameter")
		}
		return time.Now().UTC().Format("20060102T150405Z"), nil
	},
	"subscriptionresourceid": func(s *scope, args []any) (any, error) {
		kind, names, err := typeAndNames("subscriptionResourceId", args)
		if err != nil {
			return nil, err
		}
		return "/subscriptions/" + s.host.text(s.host.Subscription, "subscriptionId") + ProviderPath(kind, names), nil
	},
}

func none(name string, args []any, v any) (any, error) {
	if len(args) > 0 {
		return nil, wrongArguments(name, "function requires '0' argument(s)")
	}
	return v, nil
}

func oneText(name string, args []any) (string, error) {
	if len(args) == 1 {
		if text, ok := args[0].(string); ok {
			return text, nil
		}
	}
	return "", wrongArguments(name, "function requires one argument of type 'String'")
}

// copyIndex([loop], [offset]).
func copyIndex(s *scope, args []any) (any, error) {
	name, offset := "", int64(0)
	for _, a := range args {
		switch a := a.(type) {
		case string:
			name = a
		case int64:
			offset = a
		default:
			return nil, wrongArguments("copyIndex", "the parameters must be a loop's name and an offset")
		}
	}
	if len(args) > 2 {
		return nil, wrongArguments("copyIndex", "function requires at most '2' argument(s)")
	}
	i, ok := s.loops[strings.ToLower(name)]
	if !ok {
		return nil, invalid("The template function 'copyIndex' is not expected at this location. The function can only be used in a resource with copy specified. " +
			"Please see https://aka.ms/arm-resource-loops for usage details.")
	}
	return i + offset, nil
}

// ProviderPath is the part of a resource's id from /providers on.
func ProviderPath(kind string, names []string) string {
	parts := strings.Split(kind, "/")
	out := "/providers/" + parts[0]
	for i, p := range parts[1:] {
		name := ""
		if i < len(names) {
			name = names[i]
		}
		out += "/" + p + "/" + name
	}
	return out
}

func typeAndNames(name string, args []any) (kind string, names []string, err error) {
	for i, a := range args {
		text, ok := a.(string)
		if !ok {
			return "", nil, wrongArguments(name, fmt.Sprintf("parameter %d must be of type 'String'", i+1))
		}
		if kind == "" {
			kind = text
		} else {
			names = append(names, text)
		}
	}
	if n := strings.Count(kind, "/"); n == 0 || n != len(names) {
		return "", nil, wrongArguments(name, fmt.Sprintf("the type '%s' requires '%d' resource name argument(s)", kind, n))
	}
	return kind, names, nil
}

// resourceID([subscription], [group], type, names...).
func resourceID(s *scope, args []any) (any, error) {
	subscription, group := s.host.text(s.host.Subscription, "subscriptionId"), s.host.text(s.host.Group, "name")
	at := 0
	for at < len(args) && at < 3 {
		if text, ok := args[at].(string); ok && strings.Contains(text, "/") {
			break
		}
		at++
	}
	switch {
	case at == 1 && len(args) > 2:
		group, _ = args[0].(string)
	case at == 2 && len(args) > 3:
		subscription, _ = args[0].(string)
		group, _ = args[1].(string)
	case at != 0:
		return nil, wrongArguments("resourceId", "it wants a fully qualified resource type and the names")
	}
	kind, names, err := typeAndNames("resourceId", args[at:])
	if err != nil {
		return nil, err
	}
	return "/subscriptions/" + subscription + "/resourceGroups/" + group + ProviderPath(kind, names), nil
}

// reference(name or id, [api version], ['Full']).
func reference(s *scope, args []any) (any, error) {
	var texts [3]string
	for i, a := range args {
		text, ok := a.(string)
		if !ok || i > 2 {
			return nil, wrongArguments("reference", "the parameters must be a resource, an API version and 'Full'")
		}
		texts[i] = text
	}
	if len(args) == 0 {
		return nil, wrongArguments("reference", "function requires '1' argument(s)")
	}
	if s.references != nil {
		s.references(texts[0])
	}
	if s.planning {
		return unknown{}, nil
	}
	if s.host.Reference == nil {
		return nil, invalid("The template function 'reference' is not expected at this location. Please see https://aka.ms/arm-functions for usage details.")
	}
	return s.host.Reference(texts[0], texts[1], strings.EqualFold(texts[2], "full"))
}
