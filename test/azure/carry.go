package azuretest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	"github.com/openworkload/skyport/test/azure/template"
)

// carry makes what a deployment asks for, in order; virtual machines that are
// next to each other boot together.
func (e *Emulator) carry(ctx context.Context, work *run, r *resource, d *deployment, plan *template.Deployment) {
	defer close(work.over)
	began := time.Now()
	var failures []Problem
	failed := map[string]bool{} // ids, in lower case
	done := map[string]bool{}
	for left := plan.Resources; len(left) > 0 && ctx.Err() == nil; {
		var later, ready []*template.Resource
		for _, t := range left {
			switch {
			case anyOf(t.DependsOn, failed):
				failed[key(t.ID)] = true // is never tried
			case allOf(t.DependsOn, done):
				ready = append(ready, t)
			default:
				later = append(later, t)
			}
		}
		if len(ready) == 0 && len(later) == len(left) {
			break // cannot be: the order was checked
		}
		failures = append(failures, e.level(ctx, r, d, ready, failed)...)
		for _, t := range ready {
			done[key(t.ID)] = true
		}
		left = later
		if !rest(ctx, e.o.Latency) {
			break
		}
	}
	e.finish(ctx, work, r, d, plan, failures, time.Since(began))
}

func anyOf(ids []string, of map[string]bool) bool {
	for _, id := range ids {
		if of[id] {
			return true
		}
	}
	return false
}

func allOf(ids []string, of map[string]bool) bool {
	for _, id := range ids {
		if !of[id] {
			return false
		}
	}
	return true
}

// level makes resources that need not wait for each other.
func (e *Emulator) level(ctx context.Context, r *resource, d *deployment, ready []*template.Resource, failed map[string]bool) (failures []Problem) {
	var boots []string
	ops := map[string]*armresources.DeploymentOperation{}
	fail := func(id string, p Problem) {
		failed[key(id)] = true
		failures = append(failures, p)
		if op := ops[key(id)]; op != nil {
			conclude(op, &p)
		}
	}
	e.mu.Lock()
	d.Properties.ProvisioningState = to.Ptr(armresources.ProvisioningStateRunning)
	for _, t := range ready {
		if ctx.Err() != nil {
			break
		}
		op := e.operation(r, d, t)
		ops[key(t.ID)] = op
		existed := e.get(t.ID) != nil
		made, err := e.make(t)
		var p *Problem
		var wrong *template.Error
		switch {
		case errors.As(err, &p):
			fail(t.ID, *p)
		case errors.As(err, &wrong):
			fail(t.ID, Problem{Status: http.StatusBadRequest, Code: wrong.Code, Message: wrong.Message})
		case err != nil:
			fail(t.ID, *problem(http.StatusInternalServerError, "InternalServerError", "%v", err))
		case made.Kind == kindVM && (!existed || made.State != ""):
			boots = append(boots, made.ID)
		default:
			conclude(op, nil)
		}
	}
	e.save(r, d)
	e.mu.Unlock()
	if len(boots) == 0 {
		return failures
	}
	bad := e.boot(ctx, boots)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range boots {
		p := bad[key(id)]
		if p == nil {
			conclude(ops[key(id)], nil)
			continue
		}
		if p.Code == "SkuNotAvailable" { // is said at once, not by an operation
			fail(id, *p)
			continue
		}
		// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/find-error-code
		fail(id, Problem{
			Status: http.StatusConflict, Code: "ResourceDeploymentFailure", Target: id,
			Message: "The resource write operation failed to complete successfully, because it reached terminal provisioning state 'Failed'.", Details: []Problem{*p},
		})
	}
	e.save(r, d)
	return failures
}

// save keeps the state on the way. e.mu is held.
func (e *Emulator) save(r *resource, d *deployment) {
	if e.get(r.ID) == nil {
		return
	}
	d.Properties.Timestamp = to.Ptr(e.now())
	if err := e.keep(r, d); err != nil {
		e.log.Error("a deployment cannot be kept", "error", err)
	}
}

// make sends what a template says of a resource. e.mu is held.
func (e *Emulator) make(t *template.Resource) (*resource, error) {
	body, err := t.Body()
	if err != nil {
		return nil, err
	}
	location, _ := body["location"].(string)
	k, err := usable(t.Type, t.APIVersion, location)
	if err != nil {
		return nil, err
	}
	return e.apply(k, t.ID, body)
}

// operation notes that a resource is being made.
// https://learn.microsoft.com/rest/api/resources/deployment-operations/list
func (e *Emulator) operation(r *resource, d *deployment, t *template.Resource) *armresources.DeploymentOperation {
	e.serial++
	id := strings.ToUpper(fmt.Sprintf("%x", sumOf(strconv.Itoa(e.serial)+t.ID))[:16])
	op := &armresources.DeploymentOperation{ID: to.Ptr(r.ID + "/operations/" + id), OperationID: &id, Properties: &armresources.DeploymentOperationProperties{
		ProvisioningOperation: to.Ptr(armresources.ProvisioningOperationCreate), ProvisioningState: to.Ptr("Running"), Timestamp: to.Ptr(e.now()),
		Duration: to.Ptr("PT0S"), TargetResource: &armresources.TargetResource{ID: &t.ID, ResourceName: &t.Name, ResourceType: &t.Type},
	}}
	d.Operations = append(d.Operations, op)
	return op
}

func conclude(op *armresources.DeploymentOperation, p *Problem) {
	if p == nil {
		op.Properties.ProvisioningState, op.Properties.StatusCode = to.Ptr("Succeeded"), to.Ptr("Created")
		return
	}
	op.Properties.ProvisioningState, op.Properties.StatusCode = to.Ptr("Failed"), to.Ptr(strings.ReplaceAll(http.StatusText(max(p.Status, 400)), " ", ""))
	op.Properties.StatusMessage = &armresources.StatusMessage{Status: to.Ptr("Failed"), Error: told(p)}
}

// told is a problem in the SDK's words.
func told(p *Problem) *armresources.ErrorResponse {
	out := &armresources.ErrorResponse{Code: &p.Code, Message: &p.Message}
	if p.Target != "" {
		out.Target = &p.Target
	}
	for _, d := range p.Details {
		out.Details = append(out.Details, told(&d))
	}
	return out
}

// finish says how a deployment ended.
func (e *Emulator) finish(ctx context.Context, work *run, r *resource, d *deployment, plan *template.Deployment, failures []Problem, took time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running, key(r.ID))
	p := &d.Properties
	p.Duration = to.Ptr(fmt.Sprintf("PT%.3fS", took.Seconds()))
	switch {
	case ctx.Err() != nil:
		p.ProvisioningState = to.Ptr(armresources.ProvisioningStateCanceled)
		p.Error = told(problem(0, "DeploymentCanceled", "The deployment was canceled. Please see https://aka.ms/arm-deployment-cancel for usage details."))
		work.op.canceled = true
		work.op.end(nil)
	case len(failures) > 0:
		e.failed(work, r, d, failures)
	default:
		outputs, err := plan.Outputs()
		if err != nil {
			e.failed(work, r, d, []Problem{*problem(0, "DeploymentOutputEvaluationFailed", "Unable to evaluate template outputs: %v. "+
				"Please see error details and deployment operations. Please see https://aka.ms/arm-common-errors for usage details.", err)})
			break
		}
		p.ProvisioningState, p.Outputs = to.Ptr(armresources.ProvisioningStateSucceeded), outputs
		for _, t := range plan.Resources {
			p.OutputResources = append(p.OutputResources, &armresources.ResourceReference{ID: &t.ID})
		}
		work.op.end(nil)
	}
	e.save(r, d)
}

// failed is a deployment's end when something could not be made.
// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/find-error-code
func (e *Emulator) failed(work *run, r *resource, d *deployment, failures []Problem) {
	all := &Problem{
		Status: http.StatusConflict, Code: "DeploymentFailed", Target: r.ID, Details: failures,
		Message: "At least one resource deployment operation failed. Please list deployment operations for details. " +
			"Please see https://aka.ms/arm-deployment-operations for usage details.",
	}
	d.Properties.ProvisioningState, d.Properties.Error = to.Ptr(armresources.ProvisioningStateFailed), told(all)
	work.op.end(all)
}
