package openstack

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"go.yaml.in/yaml/v3"
)

// entry is what we use of an entry of clouds.yaml.
type entry struct {
	Auth struct {
		URL           string `yaml:"auth_url"`
		Username      string `yaml:"username"`
		Password      string `yaml:"password"`
		Project       string `yaml:"project_name"`
		UserDomain    string `yaml:"user_domain_name"`
		ProjectDomain string `yaml:"project_domain_name"`
	} `yaml:"auth"`
	Region string `yaml:"region_name"`
}

// entries reads the entry that the tests are to use, and the administrator's.
func entries(t *testing.T) (user, admin entry) {
	t.Helper()
	name, file := os.Getenv("SKYPORT_TEST_OPENSTACK"), os.Getenv("OS_CLIENT_CONFIG_FILE")
	if name == "" || file == "" {
		t.Skip("needs an OpenStack: SKYPORT_TEST_OPENSTACK names an entry of the clouds.yaml OS_CLIENT_CONFIG_FILE (make test-openstack)")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var clouds struct {
		Clouds map[string]entry `yaml:"clouds"`
	}
	if err := yaml.Unmarshal(text, &clouds); err != nil {
		t.Fatal(err)
	}
	user, ok := clouds.Clouds[name]
	admin, too := clouds.Clouds[name+"-admin"]
	if !ok || !too {
		t.Fatalf("%s has no entries %s and %[2]s-admin", file, name)
	}
	return user, admin
}

// cloud is the cloud with the rights of its administrator.
type cloud struct {
	t        *testing.T
	provider *gophercloud.ProviderClient
	user     entry
	region   string
}

func open(t *testing.T) *cloud {
	t.Helper()
	user, admin := entries(t)
	provider, err := openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{
		IdentityEndpoint: admin.Auth.URL, Username: admin.Auth.Username, Password: admin.Auth.Password, DomainName: admin.Auth.UserDomain,
		AllowReauth: true, Scope: &gophercloud.AuthScope{ProjectName: admin.Auth.Project, DomainName: admin.Auth.ProjectDomain},
	})
	if err != nil {
		t.Fatal(err)
	}
	provider.HTTPClient.Timeout = time.Minute
	return &cloud{t: t, provider: provider, user: user, region: admin.Region}
}

// call makes one request of a service, and reads the answer into it.
func (c *cloud) call(service, method, path string, body, into any) error {
	c.t.Helper()
	base, err := c.provider.EndpointLocator(gophercloud.EndpointOpts{Type: service, Region: c.region, Availability: gophercloud.AvailabilityPublic})
	if err != nil {
		return err
	}
	base = strings.TrimSuffix(base, "/")
	switch service {
	case "network":
		base += "/v2.0"
	case "image":
		base += "/v2"
	}
	// Also called when the test's own context has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), time.Minute)
	defer cancel()
	options := &gophercloud.RequestOpts{
		JSONBody: body, JSONResponse: into, OkCodes: []int{200, 201, 202, 204}, MoreHeaders: map[string]string{"OpenStack-API-Version": "compute 2.64"},
	}
	resp, err := c.provider.Request(ctx, method, base+path, options)
	if err == nil && into == nil {
		err = resp.Body.Close()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, base+path, err)
	}
	return nil
}

func (c *cloud) must(service, method, path string, body, into any) {
	c.t.Helper()
	if err := c.call(service, method, path, body, into); err != nil {
		c.t.Fatal(err)
	}
}

type named struct {
	ID, Name string
}

// project makes a project of its own for the test, in which the user of the
// tests may do what users may, and returns its id and a clouds.yaml for it.
func (c *cloud) project() (id, cloudsFile string) {
	c.t.Helper()
	var users struct{ Users []named }
	var roles struct{ Roles []named }
	var made struct{ Project named }
	name := fmt.Sprintf("skyport-test-%x", time.Now().UnixNano())
	identity := func(method, path string, body, into any) {
		c.t.Helper()
		c.must("identity", method, "/"+path, body, into)
	}
	identity(http.MethodGet, "users?name="+c.user.Auth.Username, nil, &users)
	identity(http.MethodGet, "roles?name=member", nil, &roles)
	if len(users.Users) != 1 || len(roles.Roles) != 1 {
		c.t.Fatalf("%d users %s, %d roles member", len(users.Users), c.user.Auth.Username, len(roles.Roles))
	}
	identity(http.MethodPost, "projects", map[string]any{"project": map[string]any{"name": name, "domain_id": "default"}}, &made)
	id = made.Project.ID
	c.t.Cleanup(func() { c.removeProject(id) })
	identity(http.MethodPut, "projects/"+id+"/users/"+users.Users[0].ID+"/roles/"+roles.Roles[0].ID, nil, nil)
	text, err := yaml.Marshal(map[string]any{"clouds": map[string]any{"test": map[string]any{
		"auth": map[string]string{
			"auth_url": c.user.Auth.URL, "username": c.user.Auth.Username, "password": c.user.Auth.Password, "project_name": name,
			"user_domain_name": c.user.Auth.UserDomain, "project_domain_name": c.user.Auth.ProjectDomain,
		},
		"region_name": c.user.Region,
	}}})
	cloudsFile = filepath.Join(c.t.TempDir(), "clouds.yaml")
	if err := errors.Join(err, os.WriteFile(cloudsFile, text, 0o600)); err != nil {
		c.t.Fatal(err)
	}
	return id, cloudsFile
}

// lists are all kinds of things that a project may hold, in the order in which
// they can be removed.
var lists = []struct{ service, list, each string }{
	{"compute", "/servers/detail?all_tenants=1", "/servers/"},
	{"compute", "/os-server-groups?all_projects=1", "/os-server-groups/"},
	{"network", "/floatingips", "/floatingips/"},
	{"network", "/ports", "/ports/"},
	{"network", "/routers", "/routers/"},
	{"network", "/subnets", "/subnets/"},
	{"network", "/networks", "/networks/"},
	{"network", "/security-groups", "/security-groups/"},
	{"image", "/images?limit=1000&visibility=all", "/images/"},
}

// thing is anything of the cloud.
type thing struct {
	kind                  string
	ID, Name, Description string
	Project               string `json:"project_id"`
	Tenant                string `json:"tenant_id"`
	Owner                 string `json:"owner"`
	Status                string
	DeviceID              string `json:"device_id"`
	Address               string `json:"floating_ip_address"`
	Metadata              map[string]string
	UserData              string `json:"OS-EXT-SRV-ATTR:user_data"`
	service, each         string
}

// things lists what fits of the whole cloud: of these kinds, or of all.
func (c *cloud) things(fits func(thing) bool, kinds ...string) (found []thing) {
	c.t.Helper()
	for _, l := range lists {
		kind := strings.ReplaceAll(strings.Trim(strings.TrimPrefix(l.each, "/os-"), "/"), "-", "_")
		if len(kinds) > 0 && !slices.Contains(kinds, kind) {
			continue
		}
		var answer map[string]json.RawMessage
		c.must(l.service, http.MethodGet, l.list, nil, &answer)
		var all []thing
		if err := json.Unmarshal(answer[kind], &all); err != nil {
			c.t.Fatalf("%s: %v in %s", kind, err, answer)
		}
		for _, one := range all {
			one.kind, one.service, one.each = kind, l.service, l.each
			// Each project has a security group of its own from the first look on.
			if fits(one) && (kind != "security_groups" || one.Name != "default") {
				found = append(found, one)
			}
		}
	}
	return found
}

// of lists what a project holds: of these kinds, or of all.
func (c *cloud) of(project string, kinds ...string) []thing {
	c.t.Helper()
	return c.things(func(t thing) bool { return slices.Contains([]string{t.Project, t.Tenant, t.Owner}, project) }, kinds...)
}

// count says how much there is of each kind.
func count(all []thing) string {
	kinds := map[string]int{}
	for _, t := range all {
		kinds[t.kind]++
	}
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		words = append(words, fmt.Sprintf("%d %s", kinds[kind], strings.ReplaceAll(kind, "_", " ")))
	}
	return strings.Join(words, ", ")
}

// removeProject removes a project, and behind a test that failed what is in it.
func (c *cloud) removeProject(id string) {
	for range 10 {
		left := c.of(id)
		if len(left) == 0 {
			break
		}
		for _, t := range left {
			c.t.Logf("removing %s %s %s", t.kind, t.ID, t.Name)
			if t.kind == "routers" {
				for _, port := range left {
					if port.DeviceID == t.ID {
						_ = c.call("network", http.MethodPut, "/routers/"+t.ID+"/remove_router_interface", map[string]string{"port_id": port.ID}, nil) // the next round
					}
				}
			}
			_ = c.call(t.service, http.MethodDelete, t.each+t.ID, nil, nil) // the next round looks again
		}
		<-time.After(2 * time.Second)
	}
	var groups struct {
		Groups []thing `json:"security_groups"`
	}
	c.must("network", http.MethodGet, "/security-groups?project_id="+id, nil, &groups)
	for _, g := range groups.Groups { // the project's own
		if err := c.call("network", http.MethodDelete, "/security-groups/"+g.ID, nil, nil); err != nil {
			c.t.Error(err)
		}
	}
	if err := c.call("identity", http.MethodDelete, "/projects/"+id, nil, nil); err != nil {
		c.t.Error(err)
	}
}

// userData is the text that a server booted with.
func (c *cloud) userData(server string) string {
	c.t.Helper()
	var answer struct{ Server thing }
	c.must("compute", http.MethodGet, "/servers/"+server, nil, &answer)
	packed, err := base64.StdEncoding.DecodeString(answer.Server.UserData)
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// console is what a server has said last, for people who look at a failure.
func (c *cloud) console(server string) string {
	var answer struct{ Output string }
	err := c.call("compute", http.MethodPost, "/servers/"+server+"/action", map[string]any{"os-getConsoleOutput": map[string]int{"length": 40}}, &answer)
	if err != nil {
		return err.Error()
	}
	return answer.Output
}

// partitionName begins the names of all that belongs to a partition.
var partitionName = regexp.MustCompile(`^swm-[0-9a-f]{8}-[0-9a-f]{4}-`)

// TestNothingLeft looks at the whole cloud: nothing of Sky Port's may be in it.
// It runs last.
func TestNothingLeft(t *testing.T) {
	c := open(t)
	if os.Getenv("SKYPORT_TEST_OPENSTACK_LEFT") == "" {
		t.Skip("looks at the whole cloud, where others may be at work: SKYPORT_TEST_OPENSTACK_LEFT is not set")
	}
	left := c.things(func(t thing) bool {
		return partitionName.MatchString(t.Name) || strings.HasPrefix(t.Description, "skyport: ") || t.Metadata["skyport-owner"] != ""
	})
	for _, one := range left {
		t.Errorf("left: %s %s %s", one.kind, one.ID, one.Name)
	}
	if len(left) == 0 {
		t.Log("nova, neutron and glance hold nothing of ours")
	}
}
