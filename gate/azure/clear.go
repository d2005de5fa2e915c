package azure

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// Clear deletes the group and waits until no list shows anything of it.
func (s *site) Clear(ctx context.Context, id skyport.PartitionID, tell func(text string)) error {
	name := group(id)
	all, err := s.ourGroups(ctx, id)
	if err == nil && len(all) == 0 {
		// A group that a gate which was killed has just made may not be seen yet.
		if err := pause(ctx, 2*s.o.Poll); err != nil {
			return fmt.Errorf("look for the resource group %s: %w", name, err)
		}
		all, err = s.ourGroups(ctx, id)
	}
	if err != nil {
		return err
	}
	if len(all) > 0 {
		if _, ours, err := cloud.ParseTags(values(all[0].Tags)); !ours || err != nil {
			return foreign(id)
		}
		if err := s.deleteGroup(ctx, name, all[0], tell); err != nil {
			return err
		}
	}
	if err := s.awaitGone(ctx, id, tell); err != nil {
		return err
	}
	return s.awaitUnlisted(ctx, id, tell)
}

// deleteGroup asks for the deletion, and follows it.
func (s *site) deleteGroup(ctx context.Context, name string, g *armresources.ResourceGroup, tell func(string)) error {
	if value(g.Tags[tagMade]) == "" && !deleting(g) {
		// A deployment that still runs would go on making what is being deleted.
		_, err := s.deployments.Cancel(ctx, name, name, nil)
		if err != nil && !absent(err) && !conflict(err) {
			s.log.Debug("the deployment cannot be cancelled", "deployment", name, "error", s.explain(err, "cancel"))
		}
	}
	tell("resource group " + name + ": being removed with all in it")
	poller, err := s.groups.BeginDelete(ctx, name, nil)
	switch {
	case absent(err):
		return nil
	case conflict(err) && deleting(g):
		return nil // under way already: awaitGone waits
	case err != nil:
		return s.explain(err, "remove the resource group %s", name)
	}
	err = await(ctx, s, poller, "remove the resource group %s", name)
	if skyport.CodeOf(err) == skyport.CodeNotFound {
		return nil
	}
	return err
}

// awaitGone waits until a group that is asked for by name is not there.
func (s *site) awaitGone(ctx context.Context, id skyport.PartitionID, tell func(string)) error {
	for wait := s.o.Poll; ; {
		var answer *http.Response
		all, err := s.ourGroups(capture(ctx, &answer), id)
		switch {
		case err != nil:
			return err
		case len(all) == 0:
			return nil
		case !deleting(all[0]):
			return skyport.Errorf(skyport.CodeUnavailable, "Azure has not removed the resource group %s", group(id)).
				WithHint("az group show -n %s and az lock list -g %s may tell why; Sky Port goes on trying.", group(id), group(id))
		}
		tell("waiting until Azure has removed the resource group " + group(id))
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("wait until the resource group %s is gone: %w", group(id), err)
		}
		wait = slower(wait, answer)
	}
}

// awaitUnlisted waits until Azure's lists agree: what they show costs money
// until we know better.
func (s *site) awaitUnlisted(ctx context.Context, id skyport.PartitionID, tell func(string)) error {
	filter := "tagName eq '" + cloud.TagPartition + "' and tagValue eq '" + string(id) + "'"
	for wait := s.o.Poll; ; wait = slower(wait, nil) {
		left, err := s.listed(ctx, filter)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		tell(fmt.Sprintf("Azure still lists %d resources, such as %s", len(left), left[0]))
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("wait until nothing of %s is listed: %w", group(id), err)
		}
	}
}

// listed names the groups and the resources with a tag.
func (s *site) listed(ctx context.Context, filter string) ([]string, error) {
	var names []string
	groups, err := s.listGroups(ctx, filter)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		names = append(names, "resource group "+value(g.Name))
	}
	pager := s.resources.NewListPager(&armresources.ClientListOptions{Filter: &filter})
	all, err := collect(ctx, pager, func(p armresources.ClientListResponse) []*armresources.GenericResourceExpanded { return p.Value })
	if err != nil {
		return nil, s.explain(err, "list resources")
	}
	for _, r := range all {
		names = append(names, describe(value(r.Type))+" "+value(r.Name))
	}
	return names, nil
}

// fetch gets a URL of ARM that the SDK has no client for.
func (s *site) fetch(ctx context.Context, path, version string, into any) error {
	request, err := runtime.NewRequest(ctx, http.MethodGet, strings.TrimSuffix(s.arm.Endpoint(), "/")+path)
	if err != nil {
		return err //nolint:wrapcheck // the callers explain what they asked for
	}
	query := request.Raw().URL.Query()
	query.Set("api-version", version)
	request.Raw().URL.RawQuery = query.Encode()
	request.Raw().Header.Set("Accept", "application/json")
	answer, err := s.arm.Pipeline().Do(request) //nolint:bodyclose // the SDK reads it here and below
	if err != nil {
		return err //nolint:wrapcheck // the callers explain what they asked for
	}
	if !runtime.HasStatusCode(answer, http.StatusOK) {
		return runtime.NewResponseError(answer) //nolint:wrapcheck // the callers explain what they asked for
	}
	return runtime.UnmarshalAsJSON(answer, into) //nolint:wrapcheck // the callers explain what they asked for
}
