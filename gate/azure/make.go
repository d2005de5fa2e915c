package azure

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// Tags of the resource group beside those of package cloud.
const (
	tagCreated = "skyport-created" // when, RFC 3339: Azure's lists do not tell it of groups
	tagMade    = "skyport-made"    // when all was there, RFC 3339; until then there is none
	tagSpot    = "skyport-spot"    // "yes": Azure may take the nodes back
	tagNode    = "skyport-node"    // of a virtual machine: its place among the nodes; template.json writes it
)

// catchUp is how long Azure's lists may lag behind a deployment that succeeded.
const catchUp = 2 * time.Minute

// settle is for how long even answers about a single resource may be older than
// what was just made.
func (s *site) settle() time.Duration { return max(5*s.o.Poll, 5*time.Second) }

// Make makes the group, and all that is in it by one deployment.
func (s *site) Make(ctx context.Context, plan cloud.Plan, tell func(text string)) error {
	parameters, err := s.parameters(&plan, time.Now())
	if err != nil {
		return err
	}
	if err := s.makeGroup(ctx, &plan, tell); err != nil {
		return err
	}
	if err := s.deploy(ctx, &plan, parameters, tell); err != nil {
		return err
	}
	if err := s.awaitNodes(ctx, &plan, tell); err != nil {
		return err
	}
	return s.tag(ctx, plan.Name, map[string]string{tagMade: time.Now().UTC().Format(time.RFC3339)})
}

// makeGroup makes the resource group with its tags, or checks the one that is there.
func (s *site) makeGroup(ctx context.Context, plan *cloud.Plan, tell func(string)) error {
	got, err := s.groups.Get(ctx, plan.Name, nil)
	if err == nil {
		return s.checkGroup(plan, &got.ResourceGroup)
	}
	if !absent(err) {
		return s.explain(err, "look for the resource group %s", plan.Name)
	}
	tell("resource group " + plan.Name + ": being made")
	tags := s.tagsOf(plan)
	tags[tagCreated] = time.Now().UTC().Format(time.RFC3339)
	if plan.Spot {
		tags[tagSpot] = "yes"
	}
	_, err = s.groups.CreateOrUpdate(ctx, plan.Name, armresources.ResourceGroup{Location: &s.o.Region, Tags: pointers(tags)}, nil)
	return s.explain(err, "make the resource group %s in %s", plan.Name, s.o.Region)
}

// checkGroup says whether a group is the one that an earlier call has made.
func (s *site) checkGroup(plan *cloud.Plan, g *armresources.ResourceGroup) error {
	if deleting(g) {
		return skyport.Errorf(skyport.CodeUnavailable, "the resource group %s is still being removed", plan.Name)
	}
	tags, ours, err := cloud.ParseTags(values(g.Tags))
	switch {
	case err != nil:
		return fmt.Errorf("resource group %s: %w", plan.Name, err)
	case !ours || tags.Partition != plan.ID || tags.Owner != plan.Owner:
		return cloud.Permanent(skyport.CodeConflict, "the resource group %s exists and is not ours", plan.Name)
	case tags.Fingerprint != plan.Tags.Fingerprint:
		return fmt.Errorf("resource group %s: %w", plan.Name, gate.ErrConflict)
	case tags.Condemned:
		// Somebody has given it up before, a gate that was killed then: it is not taken up again.
		return cloud.Permanent(skyport.CodeUnavailable, "an earlier try to make %s was given up", plan.Name)
	}
	return nil
}

func deleting(g *armresources.ResourceGroup) bool {
	return g.Properties != nil && value(g.Properties.ProvisioningState) == "Deleting"
}

// deploy starts the deployment, or joins the one that an earlier call has started.
func (s *site) deploy(ctx context.Context, plan *cloud.Plan, parameters map[string]any, tell func(string)) error {
	watch := &progress{tell: tell, told: map[string]string{}}
	got, err := s.deployments.Get(ctx, plan.Name, plan.Name, nil)
	switch {
	case absent(err):
		return s.start(ctx, plan, parameters, watch)
	case err != nil:
		return s.explain(err, "look for the deployment of %s", plan.Name)
	}
	switch state := stateOf(&got.DeploymentExtended); {
	case state == armresources.ProvisioningStateSucceeded:
		return nil
	case !ended(state):
		tell("deployment " + plan.Name + ": goes on")
		return s.follow(ctx, plan.Name, watch)
	}
	// An earlier one failed. It is made again only if that can help: what it has
	// made it finds again.
	if err := s.failure(ctx, plan.Name, &got.DeploymentExtended); permanent(err) {
		return err
	}
	return s.start(ctx, plan, parameters, watch)
}

func stateOf(d *armresources.DeploymentExtended) armresources.ProvisioningState {
	if d.Properties == nil {
		return ""
	}
	return value(d.Properties.ProvisioningState)
}

func ended(state armresources.ProvisioningState) bool {
	switch state {
	case armresources.ProvisioningStateSucceeded, armresources.ProvisioningStateFailed, armresources.ProvisioningStateCanceled:
		return true
	}
	return false
}

// start puts the deployment and follows it to its end.
func (s *site) start(ctx context.Context, plan *cloud.Plan, parameters map[string]any, watch *progress) error {
	text, err := template()
	if err != nil {
		return err
	}
	mode := armresources.DeploymentModeIncremental
	watch.tell("deployment " + plan.Name + ": being made")
	poller, err := s.deployments.BeginCreateOrUpdate(ctx, plan.Name, plan.Name, armresources.Deployment{
		Properties: &armresources.DeploymentProperties{Mode: &mode, Template: text, Parameters: parameters},
		Tags:       pointers(s.tagsOf(plan)),
	}, nil)
	if err != nil {
		err = s.explain(err, "deploy %s", plan.Name)
		if skyport.CodeOf(err) == skyport.CodeUnavailable && !permanent(err) {
			// It may have been taken all the same, or another call has started it.
			return s.joinIfThere(ctx, plan.Name, watch, err)
		}
		return err
	}
	wait := s.o.Poll
	for !poller.Done() {
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("wait for the deployment of %s: %w", plan.Name, err)
		}
		answer, err := poller.Poll(ctx) //nolint:bodyclose // the SDK has read it
		if err != nil && !poller.Done() {
			return s.explain(err, "wait for the deployment of %s", plan.Name)
		}
		wait = slower(wait, answer)
		s.report(ctx, plan.Name, watch)
	}
	return s.follow(ctx, plan.Name, watch)
}

// joinIfThere follows a deployment whose start was not confirmed, if there is one.
func (s *site) joinIfThere(ctx context.Context, name string, watch *progress, cause error) error {
	got, err := s.deployments.Get(ctx, name, name, nil)
	if err != nil || stateOf(&got.DeploymentExtended) == armresources.ProvisioningStateFailed {
		return cause
	}
	return s.follow(ctx, name, watch)
}

// follow waits until a deployment has ended, and says how.
func (s *site) follow(ctx context.Context, name string, watch *progress) error {
	wait := s.o.Poll
	for {
		var answer *http.Response
		got, err := s.deployments.Get(capture(ctx, &answer), name, name, nil)
		if err != nil {
			return s.explain(err, "wait for the deployment of %s", name)
		}
		s.report(ctx, name, watch)
		switch state := stateOf(&got.DeploymentExtended); {
		case state == armresources.ProvisioningStateSucceeded:
			return nil
		case ended(state):
			return s.failure(ctx, name, &got.DeploymentExtended)
		}
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("wait for the deployment of %s: %w", name, err)
		}
		wait = slower(wait, answer)
	}
}

// progress tells each resource's state once.
type progress struct {
	tell func(string)
	told map[string]string
}

// report tells what the deployment has done since the last time. That it cannot
// be asked is no reason to stop: the deployment itself goes on.
func (s *site) report(ctx context.Context, name string, watch *progress) {
	all, err := s.listOperations(ctx, name)
	if err != nil {
		s.log.Debug("the deployment's operations cannot be listed", "deployment", name, "error", err)
		return
	}
	for _, op := range all {
		target, state := op.TargetResource, value(op.ProvisioningState)
		if target == nil || value(target.ResourceName) == "" || watch.told[value(target.ID)] == state {
			continue
		}
		watch.told[value(target.ID)] = state
		words := map[string]string{"Running": "being made", "Creating": "being made", "Succeeded": "made", "Failed": "failed"}[state]
		if words == "" {
			words = state
		}
		watch.tell(describe(value(target.ResourceType)) + " " + value(target.ResourceName) + ": " + words)
	}
}

func (s *site) listOperations(ctx context.Context, name string) ([]*armresources.DeploymentOperationProperties, error) {
	all, err := collect(ctx, s.operations.NewListPager(name, name, nil),
		func(p armresources.DeploymentOperationsClientListResponse) []*armresources.DeploymentOperation {
			return p.Value
		})
	if err != nil {
		return nil, s.explain(err, "list the operations of the deployment %s", name)
	}
	var properties []*armresources.DeploymentOperationProperties
	for _, op := range all {
		if op.Properties != nil {
			properties = append(properties, op.Properties)
		}
	}
	return properties, nil
}

// failure is why a deployment failed: of all that its operations say the error
// that will stay, if there is one.
func (s *site) failure(ctx context.Context, name string, d *armresources.DeploymentExtended) error {
	if stateOf(d) == armresources.ProvisioningStateCanceled {
		return skyport.Errorf(skyport.CodeUnavailable, "the deployment of %s was cancelled", name)
	}
	all, err := s.listOperations(ctx, name)
	if err != nil && ctx.Err() != nil {
		return err
	}
	// Without the operations the deployment's own error says the same, mostly.
	var worst error
	for _, op := range all {
		if op.StatusMessage == nil || op.StatusMessage.Error == nil || value(op.ProvisioningState) == "Succeeded" {
			continue
		}
		what := "deploy " + name
		if t := op.TargetResource; t != nil {
			what = "make the " + describe(value(t.ResourceType)) + " " + value(t.ResourceName)
		}
		err := s.judge(faultOf(op.StatusMessage.Error), httpStatus(value(op.StatusCode)), 0, what)
		if worst == nil || permanent(err) && !permanent(worst) {
			worst = err
		}
	}
	if worst != nil {
		return worst
	}
	if d.Properties != nil && d.Properties.Error != nil {
		return s.judge(faultOf(d.Properties.Error), 0, 0, "deploy "+name)
	}
	return skyport.Errorf(skyport.CodeUnavailable, "the deployment of %s failed, Azure does not say why", name).
		WithHint("az deployment operation group list -g %s -n %s", name, name)
}

// faultOf reads the SDK's form of an error.
func faultOf(e *armresources.ErrorResponse) fault {
	f := fault{Code: value(e.Code), Message: value(e.Message), Target: value(e.Target)}
	for _, inner := range e.Details {
		if inner != nil {
			f.Details = append(f.Details, faultOf(inner))
		}
	}
	for _, more := range e.AdditionalInfo {
		if more != nil {
			f.More = append(f.More, faultExtra{Type: value(more.Type), Info: marshal(more.Info)})
		}
	}
	return f
}

// httpStatus reads the status of an operation, a number or a name such as
// BadRequest or Conflict.
func httpStatus(text string) int {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	for status := 400; status < 600; status++ {
		if squeezed(http.StatusText(status)) == text {
			return status
		}
	}
	return 0
}

// awaitNodes waits until the lists show all nodes with their addresses.
func (s *site) awaitNodes(ctx context.Context, plan *cloud.Plan, tell func(string)) error {
	start := time.Now()
	for wait := s.o.Poll; ; wait = slower(wait, nil) {
		v, err := s.viewOf(ctx, plan.Name)
		if err != nil {
			return err
		}
		nodes := v.nodes(plan.Name)
		if complete(nodes, len(plan.Nodes)) {
			return nil
		}
		gone, err := s.gone(ctx, plan.Name, plan.Nodes, nodes)
		switch waited := time.Since(start); {
		case err != nil:
			return err
		case gone != "" && waited > s.settle():
			// Azure made it and took it away before all was there.
			return cloud.Permanent(skyport.CodeInterrupted, "%w", lost(gone, plan.Spot))
		case waited > catchUp:
			return skyport.Errorf(skyport.CodeUnavailable, "Azure made the nodes of %s, but does not list them", plan.Name)
		}
		tell(fmt.Sprintf("waiting until Azure lists all nodes: %d of %d", len(nodes), len(plan.Nodes)))
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("wait for the nodes of %s: %w", plan.Name, err)
		}
	}
}

// tag adds tags to a group and leaves the others.
func (s *site) tag(ctx context.Context, name string, tags map[string]string) error {
	merge := armresources.TagsPatchOperationMerge
	_, err := s.tags.UpdateAtScope(ctx, s.groupID(name), armresources.TagsPatchResource{
		Operation: &merge, Properties: &armresources.Tags{Tags: pointers(maps.Clone(tags))},
	}, nil)
	return s.explain(err, "tag the resource group %s", name)
}
