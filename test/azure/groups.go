package azuretest

import (
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
)

// groupName is what groups may be called.
var groupName = regexp.MustCompile(`^[-\w._()\p{L}]{1,90}$`)

// group is one resource group.
// https://learn.microsoft.com/rest/api/resources/resource-groups
func (e *Emulator) group(req *request, name string) (*response, error) {
	switch req.method {
	case http.MethodGet:
		lag := e.Faults().GetLag
		e.mu.Lock()
		defer e.mu.Unlock()
		if r := e.at(e.groupID(name), lag); r != nil {
			return answer(http.StatusOK, tellGroup(r))
		}
		return nil, noGroup(name)
	case http.MethodHead:
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.get(e.groupID(name)) == nil {
			return answer(http.StatusNotFound, nil)
		}
		return answer(http.StatusNoContent, nil)
	case http.MethodPut, http.MethodPatch:
		return e.putGroup(req, name)
	case http.MethodDelete:
		return e.deleteGroup(name)
	}
	return nil, methodNotAllowed(req.method)
}

func tellGroup(r *resource) any {
	tags := map[string]*string{}
	for k, v := range r.Tags {
		tags[k] = &v
	}
	return armresources.ResourceGroup{
		ID: &r.ID, Name: &r.Name, Type: to.Ptr(kindGroup), Location: &r.Location, Tags: tags,
		Properties: &armresources.ResourceGroupProperties{ProvisioningState: to.Ptr(r.state())},
	}
}

func (e *Emulator) putGroup(req *request, name string) (*response, error) {
	body, err := bodyOf(req)
	if err != nil {
		return nil, err
	}
	if err := decode(body, &armresources.ResourceGroup{}); err != nil {
		return nil, err
	}
	if !groupName.MatchString(name) || strings.HasSuffix(name, ".") {
		return nil, problem(http.StatusBadRequest, "InvalidResourceGroup", "The provided resource group name '%s' has these invalid characters or is too long: "+
			"The name can only be a letter, digit, '-', '.', '(', ')' or '_'.", name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.get(e.groupID(name))
	switch {
	case old != nil && old.State == "Deleting":
		return nil, groupBeingDeleted(name)
	case old == nil && req.method == http.MethodPatch:
		return nil, noGroup(name)
	case old != nil && req.method == http.MethodPatch:
		body["location"] = old.Location
	}
	c := &change{new: &resource{ID: e.groupID(name), Kind: kindGroup, Name: name, Group: name, Created: e.now()}}
	if old != nil {
		c.new.ID, c.new.Name, c.new.Group, c.new.Created = old.ID, old.Name, old.Group, old.Created
		if normal(body["location"].(string)) != old.Location {
			return nil, problem(http.StatusConflict, "InvalidResourceGroupLocation", "Invalid resource group location '%s'. The Resource group already exists in location '%s'.", body["location"], old.Location)
		}
	}
	if err := c.common(body); err != nil {
		return nil, err
	}
	if old != nil && body["tags"] == nil && req.method == http.MethodPatch {
		c.new.Tags = old.Tags
	}
	e.put(c.new)
	status := http.StatusOK
	if old == nil {
		status = http.StatusCreated
	}
	return answer(status, tellGroup(c.new))
}

// deleteGroup removes all that a group has, and it.
// https://learn.microsoft.com/azure/azure-resource-manager/management/delete-resource-group
func (e *Emulator) deleteGroup(name string) (*response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.get(e.groupID(name))
	if r == nil {
		return nil, noGroup(name)
	}
	for _, locked := range e.Faults().Locked {
		if strings.EqualFold(locked, name) {
			return nil, problem(http.StatusConflict, "ScopeLocked", "The scope '%s' cannot perform delete operation because following scope(s) are locked: '%s'. "+
				"Please remove the lock and try again.", r.ID, r.ID)
		}
	}
	out, err := answer(http.StatusAccepted, nil)
	op := e.begin(r.State != "Deleting")
	if r.State == "Deleting" { // the operation of the first call tells more
		if first := e.operations[r.Failure]; first != nil {
			delete(e.operations, op.id)
			op = first
		}
	}
	out.header.Set("Location", e.URL()+"/subscriptions/"+e.o.Subscription+"/operationresults/"+op.id+"?api-version=2021-04-01")
	retryAfter(out.header, e.o.RetryAfter)
	if r.State == "Deleting" {
		return out, err
	}
	gone := r.clone()
	gone.State, gone.Failure = "Deleting", op.id
	e.put(gone)
	e.jobs.Go(func() { e.endGroup(gone, op) })
	return out, err
}

func (e *Emulator) endGroup(group *resource, op *operation) {
	for {
		e.mu.Lock()
		runs := []*run{}
		for id, r := range e.running {
			if strings.HasPrefix(id, key(group.ID)+"/") {
				r.stop()
				runs = append(runs, r)
			}
		}
		e.mu.Unlock()
		if len(runs) == 0 {
			break
		}
		for _, r := range runs {
			<-r.over
		}
	}
	e.mu.Lock()
	var vms []string
	for _, r := range e.in(group.Name, kindVM) {
		vms = append(vms, r.ID)
		r = r.clone()
		r.State = "Deleting"
		e.put(r)
	}
	all := e.machinesOf(vms)
	e.mu.Unlock()
	began := time.Now()
	err := e.o.Machines.Remove(e.ctx, all)
	for try := 0; err != nil && try < 30 && rest(e.ctx, time.Second); try++ {
		e.log.Warn("machines stay for now", "group", group.Name, "error", err)
		err = e.o.Machines.Remove(e.ctx, all)
	}
	rest(e.ctx, e.o.Removal-time.Since(began))
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		op.end(problem(http.StatusConflict, "ResourceGroupDeletionBlocked", "Deletion of resource group '%s' failed: %v", group.Name, err))
		back := group.clone()
		back.State, back.Failure = "", ""
		e.put(back)
		return
	}
	for _, r := range e.in(group.Name, "") {
		e.drop(r.ID)
	}
	e.drop(group.ID)
	op.end(nil)
}

func (e *Emulator) listGroups(req *request) (*response, error) {
	please, err := filter(req.query.Get("$filter"))
	if err != nil {
		return nil, err
	}
	lag := e.Faults().ListLag
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []any{}
	for _, r := range e.list(lag, func(r *resource) bool { return r.Kind == kindGroup && please(r) }) {
		all = append(all, tellGroup(r))
	}
	return e.page(req, all)
}

// resources lists those of any kind.
// https://learn.microsoft.com/rest/api/resources/resources/list
func (e *Emulator) resources(req *request, group string) (*response, error) {
	please, err := filter(req.query.Get("$filter"))
	if err != nil {
		return nil, err
	}
	lag := e.Faults().ListLag
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []any{}
	for _, r := range e.list(lag, func(r *resource) bool {
		return r.Kind != kindGroup && r.Kind != kindDeployment && (group == "" || strings.EqualFold(r.Group, group)) && please(r)
	}) {
		tags := map[string]*string{}
		for k, v := range r.Tags {
			tags[k] = &v
		}
		item := armresources.GenericResourceExpanded{ID: &r.ID, Name: &r.Name, Type: &r.Kind, Location: &r.Location, Tags: tags}
		expand := strings.ToLower(req.query.Get("$expand"))
		if strings.Contains(expand, "createdtime") {
			item.CreatedTime = &r.Created
		}
		if strings.Contains(expand, "changedtime") {
			item.ChangedTime = &r.Changed
		}
		if strings.Contains(expand, "provisioningstate") {
			item.ProvisioningState = to.Ptr(r.state())
		}
		all = append(all, item)
	}
	return e.page(req, all)
}

var term = regexp.MustCompile(`(?i)^\s*(\w+)\s+(eq|ne)\s+'((?:[^']|'')*)'\s*$`)

// filter understands comparisons joined by and.
func filter(expression string) (func(*resource) bool, error) {
	if strings.TrimSpace(expression) == "" {
		return func(*resource) bool { return true }, nil
	}
	bad := problem(http.StatusBadRequest, "InvalidFilterInQueryString", "Invalid $filter '%s' specified in the query string.", expression)
	type test struct{ field, value string }
	var tests []test
	tag, value, hasValue := "", "", false
	for _, part := range regexp.MustCompile(`(?i)\s+and\s+`).Split(expression, -1) {
		m := term.FindStringSubmatch(part)
		if m == nil || !strings.EqualFold(m[2], "eq") {
			return nil, bad
		}
		v := strings.ReplaceAll(m[3], "''", "'")
		switch strings.ToLower(m[1]) {
		case "tagname":
			tag = v
		case "tagvalue":
			value, hasValue = v, true
		case "resourcetype", "resourcegroup", "name", "location":
			tests = append(tests, test{strings.ToLower(m[1]), v})
		default:
			return nil, bad
		}
	}
	if tag != "" && len(tests) > 0 || hasValue && tag == "" { // tags cannot be mixed with others
		return nil, bad
	}
	return func(r *resource) bool {
		if tag != "" {
			found := false
			for k, v := range r.Tags {
				found = found || strings.EqualFold(k, tag) && (!hasValue || v == value)
			}
			return found
		}
		is := map[string]string{"resourcetype": r.Kind, "resourcegroup": r.Group, "name": r.Name, "location": r.Location}
		for _, t := range tests {
			if !strings.EqualFold(is[t.field], t.value) {
				return false
			}
		}
		return true
	}, nil
}

// tags are read and written at a scope.
// https://learn.microsoft.com/rest/api/resources/tags/update-at-scope
func (e *Emulator) tags(req *request, scope string) (*response, error) {
	at := "/" + strings.TrimPrefix(scope, "/")
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.get(at)
	if r == nil {
		return nil, noResource(at)
	}
	if req.method == http.MethodGet {
		return tellTags(r)
	}
	if r.State == "Deleting" && r.Kind == kindGroup {
		return nil, groupBeingDeleted(r.Name)
	}
	var given map[string]any
	operation := "Replace"
	if req.method != http.MethodDelete {
		body, err := bodyOf(req)
		if err != nil {
			return nil, err
		}
		properties, _ := body["properties"].(map[string]any)
		given, _ = properties["tags"].(map[string]any)
		if op, ok := body["operation"].(string); ok {
			operation = op
		}
	}
	fresh, err := tagsOf(given)
	if err != nil {
		return nil, err
	}
	c := r.clone()
	switch operation {
	case "Replace":
		c.Tags = fresh
	case "Merge", "Delete":
		if c.Tags == nil {
			c.Tags = map[string]string{}
		}
		for k, v := range fresh {
			if operation == "Merge" {
				c.Tags[k] = v
			} else if c.Tags[k] == v {
				delete(c.Tags, k)
			}
		}
	default:
		return nil, problem(http.StatusBadRequest, "InvalidTagsOperation", "The tags operation '%s' is not valid.", operation)
	}
	if len(c.Tags) > 50 {
		return nil, problem(http.StatusBadRequest, "InvalidTagCount", "The number of tags '%d' exceeds the maximum '50'.", len(c.Tags))
	}
	e.put(c)
	return tellTags(c)
}

func tellTags(r *resource) (*response, error) {
	tags := map[string]*string{}
	for k, v := range r.Tags {
		tags[k] = &v
	}
	return answer(http.StatusOK, armresources.TagsResource{
		ID: to.Ptr(r.ID + "/providers/Microsoft.Resources/tags/default"), Name: to.Ptr("default"), Type: to.Ptr("Microsoft.Resources/tags"),
		Properties: &armresources.Tags{Tags: tags},
	})
}
