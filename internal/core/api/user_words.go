package api

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/openworkload/skyport"
)

// The words of /user. Field names and types are the contract.
type (
	userResource struct {
		Name  string `json:"name"`
		Count int64  `json:"count"`
		Value string `json:"value,omitempty"`
	}
	userRemote struct {
		ID            string `json:"id"`
		Name          string `json:"name"`
		AccountID     string `json:"account_id"`
		Server        string `json:"server"`
		Port          int    `json:"port"`
		Kind          string `json:"kind"`
		DefaultImage  string `json:"default_image_id"`
		DefaultFlavor string `json:"default_flavor_id"`
	}
	userFlavor struct {
		ID        string         `json:"id"`
		Name      string         `json:"name"`
		RemoteID  string         `json:"remote_id"`
		Resources []userResource `json:"resources"`
		Price     float64        `json:"price"`
	}
	userImage struct {
		ID       string            `json:"id"`
		Name     string            `json:"name"`
		RemoteID string            `json:"remote_id"`
		Kind     skyport.ImageKind `json:"kind"`
		Comment  string            `json:"comment"`
	}
	userNode struct {
		ID        string         `json:"id"`
		Name      string         `json:"name"`
		Host      string         `json:"host"`
		APIPort   int            `json:"api_port"`
		Power     string         `json:"state_power"`
		Alloc     string         `json:"state_alloc"`
		Resources []userResource `json:"resources"`
		Roles     []userRole     `json:"roles"`
	}
	userRole struct {
		ID      int    `json:"id"`
		Name    string `json:"name"`
		Comment string `json:"comment"`
	}
	userJob struct {
		ID                 skyport.JobID    `json:"id"`
		Name               string           `json:"name"`
		State              skyport.JobState `json:"state"`
		StateDetails       string           `json:"state_details"`
		SubmitTime         userTime         `json:"submit_time"`
		StartTime          userTime         `json:"start_time"`
		EndTime            userTime         `json:"end_time"`
		Duration           int64            `json:"duration"`
		ExitCode           int              `json:"exitcode"`
		Signal             int              `json:"signal"`
		NodeNames          []string         `json:"node_names"`
		NodeIPs            []string         `json:"node_ips"`
		MainIP             string           `json:"main_ip"`
		RemoteID           string           `json:"remote_id"`
		FlavorID           string           `json:"flavor_id"`
		Request            []userResource   `json:"request"`
		Resources          []userResource   `json:"resources"`
		Comment            string           `json:"comment"`
		Checkpoint         string           `json:"checkpoint"`
		CheckpointDir      string           `json:"checkpoint_dir"`
		CheckpointInterval int64            `json:"checkpoint_interval"`
		LastCheckpointTime string           `json:"last_checkpoint_time"`
		CheckpointDisplay  string           `json:"checkpoint_display"`
		Script             *string          `json:"script_content,omitempty"`
	}
)

// userTime is ISO-8601 in UTC to the second, or "" when it is not yet.
type userTime time.Time

func (t userTime) MarshalJSON() ([]byte, error) {
	if time.Time(t).IsZero() {
		return []byte(`""`), nil
	}
	return time.Time(t).UTC().AppendFormat(nil, `"2006-01-02T15:04:05Z"`), nil
}

// names finds the ids that /user wants for the names that core uses.
type names struct {
	sites    []skyport.Site
	flavors  []skyport.Flavor
	images   []skyport.Image
	accounts []skyport.Account

	siteIDs    map[string]string
	flavorByID map[[2]string]*skyport.Flavor // by site and name
	now        time.Time
}

// names reads the catalogue, which core has in memory.
func (a *api) names(ctx context.Context) (*names, error) {
	n := &names{siteIDs: map[string]string{}, flavorByID: map[[2]string]*skyport.Flavor{}, now: time.Now()}
	var err error
	if n.sites, err = a.Backend.Sites(ctx); err != nil {
		return nil, err
	}
	if n.flavors, err = a.Backend.Flavors(ctx); err != nil {
		return nil, err
	}
	if n.images, err = a.Backend.Images(ctx); err != nil {
		return nil, err
	}
	if n.accounts, err = a.Backend.Accounts(ctx); err != nil {
		return nil, err
	}
	for _, s := range n.sites {
		n.siteIDs[s.Name] = s.ID
	}
	for i := range n.flavors {
		f := &n.flavors[i]
		n.flavorByID[[2]string{f.Site, f.Name}] = f
	}
	return n, nil
}

func (n *names) remotes(caller User) []userRemote {
	list := make([]userRemote, 0, len(n.sites))
	for _, s := range n.sites {
		remote := userRemote{
			ID: s.ID, Name: s.Name, Server: s.Server, Port: s.Port, Kind: s.Kind,
			AccountID: n.accountAt(caller, s.Name),
		}
		if f := n.flavorByID[[2]string{s.Name, s.DefaultFlavor}]; f != nil {
			remote.DefaultFlavor = f.ID
		}
		for _, i := range n.images {
			if i.Site == s.Name && i.Name == s.DefaultImage {
				remote.DefaultImage = i.ID
			}
		}
		list = append(list, remote)
	}
	return list
}

// accountAt is the first account that lets the caller spend at a site.
func (n *names) accountAt(caller User, site string) string {
	for _, a := range n.accounts {
		if maySpend(a, caller) && (slices.Contains(a.Sites, site) || slices.Contains(a.Sites, "*")) {
			return a.ID
		}
	}
	return ""
}

// maySpend says whether an account lists the caller.
func maySpend(a skyport.Account, caller User) bool {
	return slices.ContainsFunc(a.Users, func(u string) bool {
		return u == "*" || u == string(caller.ID) || u == caller.Name && caller.Name != ""
	})
}

func (n *names) flavorList() []userFlavor {
	list := make([]userFlavor, 0, len(n.flavors))
	for _, f := range n.flavors {
		list = append(list, userFlavor{
			ID: f.ID, Name: f.Name, RemoteID: n.siteIDs[f.Site], Price: f.Price, Resources: nodeResources(f),
		})
	}
	return list
}

func (n *names) imageList() []userImage {
	list := make([]userImage, 0, len(n.images))
	for _, i := range n.images {
		list = append(list, userImage{ID: i.ID, Name: i.Name, RemoteID: n.siteIDs[i.Site], Kind: i.Kind, Comment: i.Comment})
	}
	return list
}

func nodeList(partitions []skyport.Partition) []userNode {
	list := []userNode{}
	for _, p := range partitions {
		power, alloc := nodeState(p.State)
		for _, node := range p.Nodes {
			role := userRole{ID: 1, Name: string(skyport.RoleMain), Comment: "Runs the job script"}
			if node.Role != skyport.RoleMain {
				role = userRole{ID: 2, Name: string(skyport.RoleCompute), Comment: "Works for the main node"}
			}
			list = append(list, userNode{
				ID: nodeID(p.ID, node.Name), Name: node.Name, Host: node.Address, APIPort: portOf(node.Endpoint),
				Power: power, Alloc: alloc, Resources: nodeResources(p.Flavor), Roles: []userRole{role},
			})
		}
	}
	return list
}

// nodeState translates where a partition stands to the two states of its nodes.
func nodeState(s skyport.PartitionState) (power, alloc string) {
	switch s {
	case skyport.PartitionReady:
		return "up", "idle"
	case skyport.PartitionBusy:
		return "up", "busy"
	case skyport.PartitionConnecting:
		return "up", "offline"
	case skyport.PartitionDraining:
		return "up", "maint"
	case skyport.PartitionDeleting, skyport.PartitionDeleted:
		return "down", "stopped"
	default:
		return "down", "offline"
	}
}

// nodeID makes the id of a node of its partition's: nodes have none of their own.
func nodeID(partition skyport.PartitionID, name string) string {
	space, err := uuid.Parse(string(partition))
	if err != nil {
		space = uuid.Nil
	}
	return uuid.NewSHA1(space, []byte(name)).String()
}

// portOf is the port of an ssh endpoint, 0 for a socket of this machine.
func portOf(endpoint string) int {
	if !strings.HasPrefix(endpoint, "ssh://") {
		return 0
	}
	_, text, err := net.SplitHostPort(strings.TrimPrefix(endpoint, "ssh://"))
	if err != nil {
		return 22
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return 22
	}
	return port
}

func nodeResources(f skyport.Flavor) []userResource {
	return []userResource{
		{Name: "cpus", Count: int64(f.CPUs)},
		{Name: "mem", Count: int64(f.Memory)},
		{Name: "gpus", Count: int64(f.GPUs)},
		{Name: "storage", Count: int64(f.Storage)},
	}
}

func (n *names) job(j *skyport.Job) *userJob {
	out := &userJob{
		ID: j.ID, Name: j.Name, State: j.State, StateDetails: j.Details,
		SubmitTime: userTime(j.SubmitTime), StartTime: userTime(j.StartTime), EndTime: userTime(j.EndTime),
		Duration: int64(j.Duration(n.now) / time.Second),
		ExitCode: j.ExitCode, Signal: j.Signal,
		NodeNames: j.NodeNames, NodeIPs: []string{}, MainIP: j.Address,
		RemoteID:           n.siteIDs[j.Site],
		Request:            requested(&j.Request),
		Resources:          []userResource{},
		Comment:            j.Request.Comment,
		CheckpointDir:      j.Request.CheckpointDir,
		CheckpointInterval: int64(j.Request.CheckpointInterval),
	}
	if out.NodeNames == nil {
		out.NodeNames = []string{}
	}
	if j.Address != "" {
		out.NodeIPs = []string{j.Address}
	}
	if j.Request.Checkpoint {
		out.Checkpoint = "application"
	}
	if f := n.flavorByID[[2]string{j.Site, j.Flavor}]; f != nil && j.Partition != "" {
		out.FlavorID = f.ID
		out.Resources = append([]userResource{{Name: "node", Count: int64(len(j.NodeNames))}}, nodeResources(*f)...)
	}
	return out
}

// requested lists what a job asks for, under the names that terminals know.
func requested(r *skyport.Request) []userResource {
	list := make([]userResource, 0, 8)
	list = append(list,
		userResource{Name: "node", Count: int64(max(r.Nodes, 1))},
		userResource{Name: "cpus", Count: int64(max(r.CPUs, 1))},
		userResource{Name: "gpus", Count: int64(r.GPUs)})
	if r.Memory > 0 {
		list = append(list, userResource{Name: "mem", Count: int64(r.Memory)})
	}
	ports := make([]string, len(r.Ports))
	for i, p := range r.Ports {
		ports[i] = p.String()
	}
	for _, named := range []struct{ name, value string }{
		{"flavor", r.Flavor},
		{"cloud-image", r.CloudImage},
		{"container-image", r.ContainerImage},
		{"ports", strings.Join(ports, ",")},
		{"submission-address", r.SubmissionAddress},
		{"storage", r.Storage},
		{"site", r.Site},
	} {
		if named.value != "" {
			list = append(list, userResource{Name: named.name, Count: 1, Value: named.value})
		}
	}
	return list
}
