package openstack_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

type object = map[string]any

// fake is a small cloud with a memory: as much of the identity, compute,
// network, image and volume services as a site uses, with their bodies as the
// API reference has them (https://docs.openstack.org/api-ref/). It refuses what
// the real one refuses: removing what is in use, two servers at one port.
type fake struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	n       int // ids and times
	logins  int
	calls   []string
	token   string
	auth    object            // body of the last login
	objects map[string]object // "networks/ID"
	page    int               // entries on a page of servers, flavors and images
	looks   int               // listings until a server has booted
	fault   string            // of servers made from now on
	// refuse answers in place of the service; status 0: the service answers.
	// after is true for what has been done already: the answer is lost.
	refuse func(call string, after bool) (status int, body string, header map[string]string)
}

var plurals = map[string]string{
	"security-groups": "security_group", "networks": "network", "subnets": "subnet", "routers": "router", "ports": "port", "floatingips": "floatingip",
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, objects: map[string]object{}, page: 1000, looks: 1}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	f.add("networks", object{"id": "ext", "name": "public", "router:external": true})
	for i, flavor := range []object{
		{"name": "m1.tiny", "vcpus": 1, "ram": 512, "disk": 1},
		{"name": "m1.large", "vcpus": 4, "ram": 8192, "disk": 80, "extra_specs": object{"hw:cpu_policy": "shared", "trait:HW_ARCH_AARCH64": "required"}},
		{"name": "g1.a100", "vcpus": 16, "ram": 65536, "disk": 200, "extra_specs": object{"pci_passthrough:alias": "nvidia-a100:2"}},
		{"name": "g1.v", "vcpus": 4, "ram": 8192, "disk": 20, "extra_specs": object{"resources:VGPU": "1"}},
		{"name": "old", "vcpus": 1, "ram": 512, "disk": 1, "OS-FLV-DISABLED:disabled": true},
	} {
		flavor["id"] = strconv.Itoa(i + 1)
		f.add("flavors", flavor)
	}
	for _, image := range []object{
		{"name": "cirros", "min_disk": 1},
		{"name": "Ubuntu 24.04 LTS", "os_distro": "ubuntu", "os_version": "24.04", "architecture": "x86_64", "min_disk": 5},
		{"name": "ubuntu-noble-24.04-amd64", "os_distro": "ubuntu", "os_version": "24.04", "architecture": "x86_64", "min_disk": 5},
		{"name": "debian-12-genericcloud", "os_hidden": "no boolean"},
		{"name": "gone", "status": "deactivated"},
		{"name": "setup", "disk_format": "iso"},
	} {
		if image["status"] == nil {
			image["status"] = "active"
		}
		f.add("images", image)
	}
	return f
}

// add keeps an object. The mutex is held, or nobody else is there yet.
func (f *fake) add(many string, o object) object {
	f.n++
	if o["id"] == nil {
		o["id"] = fmt.Sprintf("%08d-0000-4000-8000-%012d", f.n, f.n)
	}
	at := time.Date(2026, 1, 1, 0, 0, f.n, 0, time.UTC).Format(time.RFC3339)
	o["created_at"], o["created"] = at, at
	f.objects[many+"/"+o["id"].(string)] = o
	return o
}

func (f *fake) all(many string, keep func(object) bool) []object {
	var all []object
	for key, o := range f.objects {
		if strings.HasPrefix(key, many+"/") && (keep == nil || keep(o)) {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b object) int { return strings.Compare(a["created_at"].(string), b["created_at"].(string)) })
	return all
}

// left says what there is of ours.
func (f *fake) left() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.objects {
		kind, id, _ := strings.Cut(key, "/")
		if kind != "flavors" && kind != "images" && id != "ext" && !strings.HasPrefix(id, "foreign") {
			names = append(names, key)
		}
	}
	return names
}

type answer struct {
	status int
	body   any
}

func neutron(status int, kind, text string) answer {
	return answer{status, object{"NeutronError": object{"type": kind, "message": text, "detail": ""}}}
}

func nova(status int, kind, text string) answer {
	return answer{status, object{kind: object{"code": status, "message": text}}}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var body object
	if r.Body != nil && r.Method != http.MethodGet {
		_ = json.NewDecoder(r.Body).Decode(&body) //nolint:errcheck // none is as good
	}
	call := r.Method + " " + r.URL.Path
	f.calls = append(f.calls, call)
	service, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if f.refused(w, call, false) {
		return
	}
	if service != "identity" && r.Header.Get("X-Auth-Token") != f.token && strings.Count(path, "/") > 0 && !strings.HasSuffix(path, "v2.1/") {
		f.send(w, answer{401, object{"error": object{"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}})
		return
	}
	var a answer
	switch service {
	case "identity":
		a = f.identity(w, path, body)
	case "compute":
		a = f.compute(r, strings.TrimPrefix(path, "v2.1/"), body)
	case "network":
		a = f.network(r, strings.TrimPrefix(path, "v2.0/"), body)
	case "image":
		a = f.listing(r, "images", "images")
	case "volume":
		a = f.volume(r, strings.TrimPrefix(path, "v3/"), body)
	}
	if path == "" || path == "v2.1/" || path == "v3/" && service == "volume" {
		id := map[string]string{"compute": "v2.1", "network": "v2.0", "image": "v2.15", "volume": "v3.0"}[service]
		version := object{"id": id, "status": "CURRENT", "version": "2.93", "min_version": "2.1", "links": []object{{"rel": "self", "href": f.URL + r.URL.Path}}}
		a = answer{200, object{"versions": []object{version}}}
		if service == "compute" {
			a = answer{200, object{"version": version}}
		}
	}
	if !f.refused(w, call, true) {
		f.send(w, a)
	}
}

func (f *fake) refused(w http.ResponseWriter, call string, after bool) bool {
	if f.refuse == nil {
		return false
	}
	status, text, header := f.refuse(call, after)
	if status == 0 {
		return false
	}
	for name, value := range header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(status)
	_, _ = fmt.Fprint(w, text) // who asked may be gone
	return true
}

func (f *fake) send(w http.ResponseWriter, a answer) {
	if a.status == 0 {
		a = answer{404, object{"itemNotFound": object{"code": 404, "message": "The resource could not be found."}}}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	if a.body != nil {
		_ = json.NewEncoder(w).Encode(a.body) //nolint:errcheck // who asked is gone
	}
}

func (f *fake) identity(w http.ResponseWriter, path string, body object) answer {
	if strings.Contains(path, "application_credentials/") {
		return answer{200, object{"application_credential": object{"expires_at": time.Now().Add(72 * time.Hour).UTC().Format("2006-01-02T15:04:05.000000")}}}
	}
	if path != "v3/auth/tokens" {
		return answer{}
	}
	f.logins++
	f.auth = body
	text, _ := json.Marshal(body) //nolint:errcheck // it was read from JSON
	if !strings.Contains(string(text), `:"secret"`) {
		return answer{401, object{"error": object{"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}}
	}
	f.token = fmt.Sprintf("token-%d", f.logins)
	w.Header().Set("X-Subject-Token", f.token)
	var catalog []object
	for service, kind := range map[string]string{"compute": "compute", "network": "network", "image": "image", "volume": "block-storage", "identity": "identity"} {
		url := f.URL + "/" + service + "/" + map[string]string{"compute": "v2.1/", "volume": "v3/", "identity": "v3/"}[service]
		catalog = append(catalog, object{"type": kind, "name": service, "endpoints": []object{{"interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": url}}})
	}
	token := object{
		"expires_at": "2100-01-01T00:00:00.000000Z", "catalog": catalog, "roles": []object{{"name": "member"}},
		"project": object{"id": "project", "name": "demo"}, "user": object{"id": "user", "name": "demo"},
	}
	if strings.Contains(string(text), "application_credential") {
		token["application_credential"] = object{"id": "cred", "name": "skyport"}
	}
	return answer{201, object{"token": token}}
}

// listing answers a page.
func (f *fake) listing(r *http.Request, many, name string) answer {
	q := r.URL.Query()
	all := f.all(many, func(o object) bool {
		if many == "servers" && q.Get("name") != "" {
			return regexp.MustCompile(q.Get("name")).MatchString(o["name"].(string))
		}
		for _, by := range []string{"name", "id", "device_id", "router:external", "status"} {
			if q.Has(by) && fmt.Sprint(o[by]) != q.Get(by) {
				return false
			}
		}
		return true
	})
	if at := slices.IndexFunc(all, func(o object) bool { return o["id"] == q.Get("marker") }); at >= 0 {
		all = all[at+1:]
	}
	body := object{}
	if len(all) > f.page {
		all = all[:f.page]
		q.Set("marker", all[len(all)-1]["id"].(string))
		next := "http://what-the-service-believes.invalid" + r.URL.Path + "?" + q.Encode()
		body[name+"_links"] = []object{{"rel": "next", "href": next}}
		if many == "images" {
			body = object{"next": r.URL.Path + "?" + q.Encode()}
		}
	}
	if body[name] = all; all == nil {
		body[name] = []object{}
	}
	return answer{200, body}
}

func (f *fake) compute(r *http.Request, path string, body object) answer {
	parts := strings.Split(path, "/")
	switch {
	case path == "limits":
		return answer{200, object{"limits": object{"absolute": object{
			"maxTotalInstances": 10, "totalInstancesUsed": 10, "maxTotalCores": -1, "maxTotalRAMSize": 51200, "totalRAMUsed": 50000,
		}}}}
	case path == "flavors/detail":
		return f.listing(r, "flavors", "flavors")
	case path == "os-server-groups" && r.Method == http.MethodGet:
		return f.listing(r, "os-server-groups", "server_groups")
	case path == "os-server-groups":
		return answer{200, object{"server_group": f.add("os-server-groups", body["server_group"].(object))}}
	case path == "servers/detail":
		for _, s := range f.all("servers", nil) {
			if left, ok := s["looks"].(int); ok && s["status"] == "BUILD" {
				if s["looks"] = left - 1; left <= 0 {
					s["status"] = "ACTIVE"
				}
			}
		}
		return f.listing(r, "servers", "servers")
	case path == "servers":
		return f.boot(body["server"].(object))
	case r.Method == http.MethodGet && len(parts) == 2 && f.objects[path] != nil:
		s := maps.Clone(f.objects[path])
		if f.fault != "" {
			s["fault"] = object{"code": 500, "message": f.fault}
		}
		return answer{200, object{"server": s}}
	case len(parts) == 3 && parts[2] == "metadata":
		s, ok := f.objects["servers/"+parts[1]]
		if !ok {
			return answer{}
		}
		maps.Copy(s["metadata"].(object), body["metadata"].(object))
		return answer{200, object{"metadata": s["metadata"]}}
	case r.Method == http.MethodDelete && f.objects[path] != nil:
		delete(f.objects, path)
		for _, p := range f.all("ports", func(p object) bool { return p["device_id"] == parts[1] }) {
			p["device_id"], p["device_owner"] = "", ""
		}
		return answer{status: 204}
	}
	return answer{}
}

func (f *fake) boot(s object) answer {
	for _, n := range s["networks"].([]any) {
		port, ok := f.objects["ports/"+n.(object)["port"].(string)]
		if !ok {
			return nova(400, "badRequest", "Port could not be found.")
		}
		if id, used := port["device_id"].(string); used && id != "" {
			return nova(409, "conflictingRequest", "Port "+port["id"].(string)+" is still in use.")
		}
		f.add("servers", s)
		port["device_id"], port["device_owner"] = s["id"], "compute:nova"
	}
	s["status"], s["looks"] = "BUILD", f.looks
	if f.fault != "" {
		s["status"] = "ERROR" // lists do not say why, as those of Nova's cell 0
	}
	return answer{202, object{"server": object{"id": s["id"], "adminPass": "x"}}}
}

func (f *fake) volume(r *http.Request, path string, body object) answer {
	switch {
	case path == "volumes/detail":
		return f.listing(r, "volumes", "volumes")
	case path == "volumes":
		v := f.add("volumes", body["volume"].(object))
		v["status"] = "creating"
		return answer{202, object{"volume": v}}
	case r.Method == http.MethodGet && f.objects[path] != nil:
		f.objects[path]["status"] = "available"
		return answer{200, object{"volume": f.objects[path]}}
	case strings.HasSuffix(path, "/metadata"):
		maps.Copy(f.objects[strings.TrimSuffix(path, "/metadata")]["metadata"].(object), body["metadata"].(object))
		return answer{200, object{}}
	case r.Method == http.MethodDelete:
		delete(f.objects, path)
		return answer{status: 202}
	}
	return answer{}
}

// host is the first usable address of a subnet after those that others have.
func host(cidr string) string {
	return netip.MustParsePrefix(cidr).Addr().Next().String()
}
