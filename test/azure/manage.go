package azuretest

import (
	"net/http"
	"slices"
	"strings"
)

// manage is Resource Manager.
func (e *Emulator) manage(req *request) (*response, error) {
	if err := e.authorize(req.header); err != nil {
		return nil, err
	}
	if req.version == "" {
		return nil, problem(http.StatusBadRequest, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	}
	s := req.segments
	switch {
	case len(s) == 1 && strings.EqualFold(s[0], "subscriptions"):
		return answer(http.StatusOK, map[string]any{"value": []any{e.subscription()}})
	case strings.EqualFold(s[0], "tenants"):
		return answer(http.StatusOK, map[string]any{"value": []any{map[string]any{"id": "/tenants/" + e.o.Tenant, "tenantId": e.o.Tenant}}})
	case len(s) < 2 || !strings.EqualFold(s[0], "subscriptions"):
		return nil, problem(http.StatusNotFound, "NotFound", "The emulator has nothing at '%s'.", req.path)
	case !strings.EqualFold(s[1], e.o.Subscription):
		return nil, problem(http.StatusNotFound, "SubscriptionNotFound", "The subscription '%s' could not be found.", s[1])
	}
	if err := e.permitted(req); err != nil {
		return nil, err
	}
	if len(s) == 2 {
		return answer(http.StatusOK, e.subscription())
	}
	switch strings.ToLower(s[2]) {
	case "locations":
		return answer(http.StatusOK, map[string]any{"value": e.locations()})
	case "resourcegroups":
		return e.groups(req)
	case "resources":
		return e.resources(req, "")
	case "operationresults":
		if len(s) == 4 {
			return e.operationResult(s[3])
		}
	case "providers":
		return e.provider(req)
	}
	return nil, problem(http.StatusNotFound, "InvalidResourceType", "The emulator has nothing at '%s'.", req.path)
}

// permitted says whether the client has a role for a call.
// https://learn.microsoft.com/azure/role-based-access-control/troubleshooting
func (e *Emulator) permitted(req *request) error {
	deny := e.Faults().Deny
	if len(deny) == 0 {
		return nil
	}
	return e.mayDo(deny, actionOf(req), req.path)
}

func (e *Emulator) mayDo(deny []string, action, scope string) error {
	for _, d := range deny {
		prefix, whole := strings.CutSuffix(strings.ToLower(d), "*")
		a := strings.ToLower(action)
		if a == strings.ToLower(d) || whole && strings.HasPrefix(a, prefix) {
			return problem(http.StatusForbidden, "AuthorizationFailed", "The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' "+
				"or the scope is invalid. If access was recently granted, please refresh your credentials.", e.o.ClientID, e.o.ClientID, action, scope)
		}
	}
	return nil
}

// actionOf is what a call does, in the words of roles.
func actionOf(req *request) string {
	verb := map[string]string{http.MethodGet: "read", http.MethodHead: "read", http.MethodDelete: "delete"}[req.method]
	if verb == "" {
		verb = "write"
	}
	p := parseID(req.path)
	switch {
	case p.kind == "" && p.group != "":
		return "Microsoft.Resources/subscriptions/resourceGroups/" + verb
	case p.kind == "" && len(req.segments) > 2:
		return "Microsoft.Resources/subscriptions/" + req.segments[2] + "/" + verb
	case p.kind == "":
		return "Microsoft.Resources/subscriptions/" + verb
	}
	if req.method == http.MethodPost {
		return p.kind + "/action"
	}
	return p.kind + "/" + verb
}

// groups is all below resourcegroups.
func (e *Emulator) groups(req *request) (*response, error) {
	s := req.segments
	if len(s) == 3 {
		return e.listGroups(req)
	}
	name := s[3]
	if len(s) == 4 {
		return e.group(req, name)
	}
	e.mu.Lock()
	group := e.get(e.groupID(name))
	e.mu.Unlock()
	if group == nil && !strings.EqualFold(s[4], "resources") {
		return nil, noGroup(name)
	}
	switch {
	case strings.EqualFold(s[4], "resources"):
		if group == nil {
			return nil, noGroup(name)
		}
		return e.resources(req, name)
	case strings.EqualFold(s[4], "deployments") && len(s) > 6: // where the SDK looks for operations
		return e.deployments(req, name, s[5:])
	case !strings.EqualFold(s[4], "providers") || len(s) < 7:
		return nil, problem(http.StatusNotFound, "InvalidResourceType", "The emulator has nothing at '%s'.", req.path)
	case strings.EqualFold(s[5], "Microsoft.Resources") && strings.EqualFold(s[6], "tags"):
		return e.tags(req, strings.Join(s[:4], "/"))
	case strings.EqualFold(s[5], "Microsoft.Resources") && strings.EqualFold(s[6], "deployments"):
		return e.deployments(req, name, s[7:])
	case strings.EqualFold(s[5], "Microsoft.Authorization") && strings.EqualFold(s[6], "permissions"):
		return e.permissions()
	case len(s) > 8 && strings.EqualFold(s[len(s)-3], "Microsoft.Resources") && strings.EqualFold(s[len(s)-2], "tags"):
		return e.tags(req, strings.Join(s[:len(s)-4], "/"))
	}
	return e.resourceCall(req, name)
}

// provider is all below a subscription's providers.
func (e *Emulator) provider(req *request) (*response, error) {
	s := req.segments
	if len(s) == 3 {
		return e.listProviders()
	}
	namespace := s[3]
	switch {
	case len(s) == 4:
		return e.getProvider(namespace)
	case strings.EqualFold(s[4], "register"):
		return e.register(namespace)
	case strings.EqualFold(namespace, "Microsoft.Authorization") && strings.EqualFold(s[4], "permissions"):
		return e.permissions()
	case strings.EqualFold(namespace, "Microsoft.Compute") && strings.EqualFold(s[4], "skus"):
		return e.skus(req)
	case strings.EqualFold(s[4], "locations") && len(s) > 6:
		return e.regional(req, namespace, s[5], s[6:])
	}
	if len(s) == 5 {
		if k := kindNamed(namespace + "/" + s[4]); k != nil {
			return e.listKind(req, k, "")
		}
	}
	return nil, badType(namespace, strings.Join(s[4:], "/"), req.version)
}

// regional is what a provider tells of a region.
func (e *Emulator) regional(req *request, namespace, location string, s []string) (*response, error) {
	compute := strings.EqualFold(namespace, "Microsoft.Compute")
	if !slices.Contains(regions, strings.ToLower(location)) {
		return nil, problem(http.StatusBadRequest, "NoRegisteredProviderFound", "No registered resource provider found for location '%s' and API version '%s' for type 'locations'. "+
			"The supported locations are '%s'.", location, req.version, strings.Join(regions, ", "))
	}
	switch what := strings.ToLower(s[0]); {
	case what == "usages" && len(s) == 1:
		return e.usages(compute, location)
	case (what == "operations" || what == "operationstatuses") && len(s) == 2:
		return e.operationStatus(s[1])
	case what == "operationresults" && len(s) == 2:
		return e.operationResult(s[1])
	case compute && what == "vmsizes":
		return e.vmSizes(location)
	case compute && what == "publishers":
		return e.publishers(req, location, s[1:])
	}
	return nil, badType(namespace, "locations/"+s[0], req.version)
}

// permissions are those of the client.
// https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource-group
func (e *Emulator) permissions() (*response, error) {
	f := e.Faults()
	return answer(http.StatusOK, map[string]any{"value": []any{map[string]any{
		"actions": []string{"*"}, "notActions": append([]string{}, f.Deny...), "dataActions": []string{}, "notDataActions": []string{},
	}}})
}
