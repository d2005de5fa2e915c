package azuretest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	"github.com/openworkload/skyport/test/azure/template"
)

// run is a deployment under way.
type run struct {
	stop context.CancelFunc
	over chan struct{}
	op   *operation
}

// deployment is what is kept of one beside its resource.
type deployment struct {
	Properties armresources.DeploymentPropertiesExtended `json:"properties"`
	Operations []*armresources.DeploymentOperation       `json:"operations"`
}

// deployments is all of a group's deployments.
// https://learn.microsoft.com/rest/api/resources/deployments
func (e *Emulator) deployments(req *request, group string, s []string) (*response, error) {
	if len(s) == 0 {
		return e.listDeployments(group)
	}
	at := e.groupID(group) + "/providers/" + kindDeployment + "/" + s[0]
	what := ""
	if len(s) > 1 {
		what = strings.ToLower(s[1])
	}
	switch {
	case what == "" && req.method == http.MethodPut:
		return e.deploy(req, group, s[0], at)
	case what == "operationstatuses" && len(s) == 3:
		return e.operationStatus(s[2])
	case what == "validate" && req.method == http.MethodPost:
		return e.validate(req, group, s[0], at)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	lag := e.Faults().GetLag
	r := e.at(at, lag)
	if r == nil {
		if req.method == http.MethodHead {
			return answer(http.StatusNotFound, nil)
		}
		return nil, problem(http.StatusNotFound, "DeploymentNotFound", "Deployment '%s' could not be found.", s[0])
	}
	switch {
	case what == "" && req.method == http.MethodGet:
		return answer(http.StatusOK, tellDeployment(r))
	case what == "" && req.method == http.MethodHead:
		return answer(http.StatusNoContent, nil)
	case what == "operations" && len(s) == 2:
		var all []any
		for _, op := range model[deployment](r).Operations {
			all = append(all, op)
		}
		return e.page(req, append([]any{}, all...))
	case what == "cancel" && req.method == http.MethodPost:
		running := e.running[key(at)]
		if running == nil {
			return nil, problem(http.StatusConflict, "DeploymentCannotBeCancelled", "The deployment '%s' cannot be cancelled because it is not in a running state.", s[0])
		}
		running.stop()
		return answer(http.StatusNoContent, nil)
	case what == "" && req.method == http.MethodDelete:
		if e.running[key(at)] != nil {
			return nil, problem(http.StatusConflict, "DeploymentActive", "The deployment '%s' is still active.", s[0])
		}
		e.drop(at)
		out, err := answer(http.StatusAccepted, nil)
		out.header.Set("Location", e.URL()+"/subscriptions/"+e.o.Subscription+"/operationresults/"+e.begin(false).id+"?api-version="+req.version)
		retryAfter(out.header, e.o.RetryAfter)
		return out, err
	}
	return nil, methodNotAllowed(req.method)
}

func tellDeployment(r *resource) any {
	d := model[deployment](r)
	return armresources.DeploymentExtended{ID: &r.ID, Name: &r.Name, Type: to.Ptr(kindDeployment), Properties: &d.Properties}
}

func (e *Emulator) listDeployments(group string) (*response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []any{}
	for _, r := range e.list(e.Faults().ListLag, func(r *resource) bool { return r.Kind == kindDeployment && strings.EqualFold(r.Group, group) }) {
		all = append(all, tellDeployment(r))
	}
	return answer(http.StatusOK, map[string]any{"value": all})
}

// prepared evaluates a template and checks what can be checked before anything
// is made. e.mu is held.
func (e *Emulator) prepared(req *request, group, name, at string) (*template.Deployment, error) {
	body, err := bodyOf(req)
	if err != nil {
		return nil, err
	}
	properties, _ := body["properties"].(map[string]any)
	mode, _ := properties["mode"].(string)
	switch {
	case len(name) > 64 || name == "":
		return nil, problem(http.StatusBadRequest, "InvalidDeploymentName", "The deployment name '%s' is invalid: it must be from 1 to 64 characters long.", name)
	case properties == nil || properties["template"] == nil && properties["templateLink"] == nil:
		return nil, problem(http.StatusBadRequest, "InvalidRequestContent", "The request content was invalid and could not be deserialized: 'Required property 'template' not found in JSON.'")
	case !strings.EqualFold(mode, "Incremental"):
		return nil, problem(http.StatusBadRequest, "InvalidDeployment", "The emulator deploys incrementally only, not '%s'.", mode)
	case properties["templateLink"] != nil || properties["parametersLink"] != nil:
		return nil, problem(http.StatusBadRequest, "InvalidTemplateLink", "The emulator follows no links to templates.")
	}
	in := e.get(e.groupID(group))
	if in == nil {
		return nil, noGroup(group)
	}
	if in.State == "Deleting" {
		return nil, groupBeingDeleted(group)
	}
	tags := map[string]any{}
	for k, v := range in.Tags {
		tags[k] = v
	}
	host := template.Host{
		Subscription: map[string]any{"id": "/subscriptions/" + e.o.Subscription, "subscriptionId": e.o.Subscription, "tenantId": e.o.Tenant, "displayName": "Emulated subscription"},
		Group: map[string]any{
			"id": in.ID, "name": in.Name, "type": "Microsoft.Resources/resourceGroups", "location": in.Location, "tags": tags,
			"properties": map[string]any{"provisioningState": "Succeeded"},
		},
		Tenant: e.o.Tenant, Deployment: name,
		Reference: func(id, _ string, full bool) (any, error) { return e.reference(in.ID, id, full) },
	}
	d, err := template.Load(properties["template"], properties["parameters"], host)
	if err != nil {
		return nil, err
	}
	return d, e.admissible(d, name, at)
}

// admissible checks types, versions, roles and quotas.
func (e *Emulator) admissible(d *template.Deployment, name, at string) error {
	var machines []map[string]any
	deny := e.Faults().Deny
	for _, r := range d.Resources {
		draft, err := r.Draft()
		if err != nil {
			return err
		}
		location, _ := draft["location"].(string)
		k, err := usable(r.Type, r.APIVersion, location)
		if err != nil {
			return err
		}
		if err := e.mayDo(deny, k.name+"/write", r.ID); err != nil {
			return invalidDeployment(name, at, err)
		}
		if k.name == kindVM && e.get(r.ID) == nil {
			machines = append(machines, draft)
		}
	}
	if err := e.preflight(machines); err != nil {
		return invalidDeployment(name, at, err)
	}
	return nil
}

// invalidDeployment is how what preflight finds is told.
// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-invalid-template-deployment
func invalidDeployment(name, at string, err error) error {
	inner, ok := err.(*Problem) //nolint:errorlint // it comes from here
	if !ok {
		return err
	}
	if inner.Code == "AuthorizationFailed" || inner.Code == "InvalidParameter" {
		p := *inner
		if p.Code == "AuthorizationFailed" {
			return problem(http.StatusForbidden, "InvalidTemplateDeployment", "Deployment failed with multiple errors: 'Authorization failed for template resource '%s' of type '%s'. %s'",
				name, kindDeployment, p.Message)
		}
	}
	out := problem(http.StatusBadRequest, "InvalidTemplateDeployment", "The template deployment '%s' is not valid according to the validation procedure. "+
		"The tracking id is '%s'. See inner errors for details.", name, guidOf(at, time.Now()))
	out.Details = []Problem{*inner}
	return out
}

// reference is the state of a resource to a template.
func (e *Emulator) reference(group, id string, full bool) (any, error) {
	r := e.get(id)
	if !strings.HasPrefix(id, "/") { // a name is of this deployment's group
		for _, named := range e.in(lastOf(group), "") {
			if strings.EqualFold(named.Name, id) && named.Kind != kindDeployment {
				r = named
			}
		}
	}
	if r == nil {
		if strings.HasPrefix(id, "/") {
			return nil, noResource(id)
		}
		return nil, &template.Error{Code: "InvalidTemplate", Message: fmt.Sprintf("The resource referenced '%s' is not defined in the template.", id)}
	}
	text, err := json.Marshal(e.told(r, false))
	if err != nil {
		return nil, problem(http.StatusInternalServerError, "InternalServerError", "%v", err)
	}
	v, err := template.Decode(text)
	if err != nil {
		return nil, problem(http.StatusInternalServerError, "InternalServerError", "%v", err)
	}
	whole := v.(map[string]any)
	if full {
		return whole, nil
	}
	return whole["properties"], nil
}

// validate is the check of a deployment without one.
func (e *Emulator) validate(req *request, group, name, at string) (*response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d, err := e.prepared(req, group, name, at)
	if err != nil {
		return nil, err
	}
	var validated []*armresources.ResourceReference
	for _, r := range d.Resources {
		validated = append(validated, &armresources.ResourceReference{ID: &r.ID})
	}
	return answer(http.StatusOK, armresources.DeploymentExtended{ID: &at, Name: &name, Type: to.Ptr(kindDeployment), Properties: &armresources.DeploymentPropertiesExtended{
		Mode: to.Ptr(armresources.DeploymentModeIncremental), Parameters: d.Parameters, ProvisioningState: to.Ptr(armresources.ProvisioningStateSucceeded),
		Timestamp: to.Ptr(e.now()), ValidatedResources: validated,
	}})
}

// deploy begins a deployment.
// https://learn.microsoft.com/rest/api/resources/deployments/create-or-update
func (e *Emulator) deploy(req *request, group, name, at string) (*response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running[key(at)] != nil {
		return nil, problem(http.StatusConflict, "DeploymentActive", "Unable to edit or replace deployment '%s': previous deployment from '%s' is still active (expiration time is '%s'). "+
			"Please see https://aka.ms/arm-deploy for usage details.", name, e.now().Format(time.RFC3339), e.now().AddDate(0, 0, 7).Format(time.RFC3339))
	}
	d, err := e.prepared(req, group, name, at)
	if err != nil {
		return nil, err
	}
	was := e.get(at)
	r := &resource{ID: at, Kind: kindDeployment, Name: name, Group: group, Created: e.now()}
	state := &deployment{Properties: armresources.DeploymentPropertiesExtended{
		Mode: to.Ptr(armresources.DeploymentModeIncremental), Parameters: d.Parameters, ProvisioningState: to.Ptr(armresources.ProvisioningStateAccepted),
		Timestamp: to.Ptr(e.now()), CorrelationID: to.Ptr(guidOf(at, time.Now())), Duration: to.Ptr("PT0S"),
	}}
	if err := e.keep(r, state); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(e.ctx)
	work := &run{stop: stop, over: make(chan struct{}), op: e.begin(true)}
	e.running[key(at)] = work
	e.jobs.Go(func() {
		defer stop()
		e.carry(ctx, work, r, state, d)
	})
	status := http.StatusCreated
	if was != nil {
		status = http.StatusOK
	}
	out, err := answer(status, tellDeployment(e.get(at)))
	out.header.Set("Azure-AsyncOperation", e.URL()+at+"/operationStatuses/"+work.op.id+"?api-version="+req.version)
	retryAfter(out.header, e.o.RetryAfter)
	return out, err
}

// keep writes a deployment's state down. e.mu is held.
func (e *Emulator) keep(r *resource, d *deployment) error {
	text, err := json.Marshal(d)
	if err != nil {
		return problem(http.StatusInternalServerError, "InternalServerError", "encode a deployment: %v", err)
	}
	c := r.clone()
	c.Body = text
	e.put(c)
	return nil
}
