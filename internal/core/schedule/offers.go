package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/openworkload/skyport"
)

// Available is a flavor at a site that could serve a job. The flavor's price is
// the one that would be paid: of spot nodes, when Spot is true.
type Available struct {
	Site   skyport.Site
	Flavor skyport.Flavor
	Spot   bool
}

func (a Available) offer() Offer {
	return Offer{Site: a.Site.Name, Flavor: a.Flavor.Name, Spot: a.Spot}
}

// Offers returns what could ever serve the request, cheapest first, whatever is
// in use now. When nothing could, the error says why: CodeUnsatisfiable or
// CodeNoEngine.
func Offers(r *skyport.Request, account string, accounts []skyport.Account, sites []skyport.Site, flavors []skyport.Flavor) ([]Available, error) {
	allowed := map[string]skyport.Site{}
	at := slices.IndexFunc(accounts, func(a skyport.Account) bool { return a.Name == account })
	if at < 0 {
		return nil, skyport.Errorf(skyport.CodeUnknownAccount, "there is no account %q", account)
	}
	unpaid := ""      // what a site charges in and the account cannot pay
	var bare []string // sites without the storage
	for _, site := range sites {
		switch {
		case (r.Site != "" && r.Site != site.Name) || !MayUse(&accounts[at], site.Name):
		case !accounts[at].Budget.Covers(site.Currency):
			unpaid = fmt.Sprintf("site %s charges in %s, and the budget of account %s is in %s", site.Name, site.Currency, account,
				cmp.Or(accounts[at].Budget.Currency, "no currency"))
		case r.Storage != "" && !slices.Contains(site.Storages, r.Storage):
			bare = append(bare, site.Name)
		default:
			allowed[site.Name] = site
		}
	}
	if len(allowed) == 0 && len(bare) > 0 {
		return nil, skyport.Errorf(skyport.CodeUnsatisfiable, "no site that account %s may use%s has a storage %q", account,
			named(" and that is named ", r.Site), skyport.Abbreviate(r.Storage, 80)).WithHint("%s", storagesOf(sites))
	}
	if len(allowed) == 0 && unpaid != "" {
		return nil, skyport.Errorf(skyport.CodeUnsatisfiable, "%s", unpaid).
			WithHint("name another site, or an account with a budget in that currency; the operator sets accounts[].budget.currency in skyport.yaml")
	}
	if len(allowed) == 0 {
		return nil, skyport.Errorf(skyport.CodeUnsatisfiable, "account %s may not use any site%s", account, named(" named ", r.Site))
	}
	var offers []Available
	var why shortfall
	usual := architectures(sites, flavors)
	for _, f := range flavors {
		site, ok := allowed[f.Site]
		if !ok || (r.Flavor != "" && r.Flavor != f.Name) || (r.Flavor == "" && foreign(f, usual[f.Site])) {
			continue
		}
		for _, o := range ways(r, site, f) {
			if why.check(r, site, o.Flavor) {
				offers = append(offers, o)
			}
		}
		if r.Spot == skyport.SpotYes && f.SpotPrice == 0 {
			why.spot = append(why.spot, f.Site)
		}
	}
	if len(offers) == 0 {
		return nil, why.error(r)
	}
	slices.SortStableFunc(offers, func(a, b Available) int {
		return cmp.Or(
			compareBool(a.Flavor.Unpriced, b.Flavor.Unpriced), // what may cost anything comes last
			-compareBool(a.Spot, b.Spot),                      // whoever prefers spot gets it where it is
			cmp.Compare(a.Flavor.Price, b.Flavor.Price), cmp.Compare(a.Flavor.CPUs, b.Flavor.CPUs),
			cmp.Compare(a.Flavor.Memory, b.Flavor.Memory), cmp.Compare(a.Site.Name, b.Site.Name), cmp.Compare(a.Flavor.Name, b.Flavor.Name))
	})
	return offers, nil
}

// storagesOf says where which storages are.
func storagesOf(sites []skyport.Site) string {
	var there []string
	for _, s := range sites {
		if len(s.Storages) > 0 {
			there = append(there, fmt.Sprintf("site %s has %s", s.Name, strings.Join(s.Storages, ", ")))
		}
	}
	if len(there) == 0 {
		return "no site has any; the operator names them as storages of a site in gate.yaml"
	}
	return strings.Join(there, "; ")
}

// architectures are those of the sites' default flavors: what jobs, and images,
// are for when they do not say.
func architectures(sites []skyport.Site, flavors []skyport.Flavor) map[string]string {
	usual := make(map[string]string, len(sites))
	defaults := make(map[string]string, len(sites))
	for _, s := range sites {
		defaults[s.Name] = s.DefaultFlavor
	}
	for _, f := range flavors {
		if f.Name == defaults[f.Site] {
			usual[f.Site] = f.Arch
		}
	}
	return usual
}

// foreign says whether a flavor is of another architecture than the usual one. A
// job gets such a node only when it names the flavor.
func foreign(f skyport.Flavor, usual string) bool {
	return f.Arch != "" && usual != "" && f.Arch != usual
}

// ways are the ways in which a flavor can be had for the request: on demand, as
// spot, or both.
func ways(r *skyport.Request, site skyport.Site, f skyport.Flavor) []Available {
	onDemand, spot := Available{Site: site, Flavor: f}, Available{Site: site, Flavor: f, Spot: true}
	spot.Flavor.Price, spot.Flavor.Unpriced = f.SpotPrice, false
	switch {
	case r.Spot == skyport.SpotYes && f.SpotPrice > 0:
		return []Available{spot}
	case r.Spot == skyport.SpotYes:
		return nil
	case r.Spot == skyport.SpotPrefer && f.SpotPrice > 0:
		return []Available{spot, onDemand}
	}
	return []Available{onDemand}
}

// spotFits says whether a job can go onto a partition of nodes that are spot, or not.
func spotFits(r *skyport.Request, spot bool) bool {
	switch r.Spot {
	case skyport.SpotYes:
		return spot
	case skyport.SpotPrefer:
		return true
	}
	return !spot
}

// MayUse says whether the account may use the site.
func MayUse(a *skyport.Account, site string) bool {
	return slices.Contains(a.Sites, "*") || slices.Contains(a.Sites, site)
}

// RoomOf is the room that a request takes of each node of a flavor: what it
// asks for, or the whole node when it names the flavor and not the cpus, or
// wants several nodes.
func RoomOf(r *skyport.Request, f skyport.Flavor) Room {
	if nodesOf(r) > 1 || (r.Flavor != "" && r.CPUs == 0) {
		return Room{CPUs: f.CPUs, Memory: f.Memory, GPUs: f.GPUs}
	}
	return Room{CPUs: max(1, r.CPUs), Memory: r.Memory, GPUs: r.GPUs}
}

func nodesOf(r *skyport.Request) int { return max(1, r.Nodes) }

// shortfall remembers what each flavor lacks.
type shortfall struct{ engine, price, nodes, size, spot []string }

func (s *shortfall) check(r *skyport.Request, site skyport.Site, f skyport.Flavor) bool {
	nodes, name := nodesOf(r), f.Site+"/"+f.Name
	switch {
	case f.CPUs < r.CPUs || f.Memory < r.Memory || f.GPUs < r.GPUs:
		s.size = append(s.size, name)
	case new(usage).lacks(site.Limits, nodes, f) != "":
		s.nodes = append(s.nodes, fmt.Sprintf("%s has %s at most", site.Name, new(usage).lacks(site.Limits, nodes, f)))
	case r.MaxPrice > 0 && f.Unpriced:
		s.price = append(s.price, name+" has no known price")
	case r.MaxPrice > 0 && f.Price*float64(nodes) > r.MaxPrice:
		s.price = append(s.price, fmt.Sprintf("%s costs %.4g an hour", name, f.Price*float64(nodes)))
	case r.ContainerImage != "" && !site.Container:
		s.engine = append(s.engine, site.Name)
	default:
		return true
	}
	return false
}

func (s *shortfall) error(r *skyport.Request) error {
	switch {
	case len(s.engine) > 0:
		return skyport.Errorf(skyport.CodeNoEngine, "the nodes of site %s have no container engine, which container-image %s needs", slices.Min(s.engine), r.ContainerImage).
			WithHint("leave out container-image, or name a site whose nodes have one (skyport sites)")
	case len(s.price) > 0:
		return skyport.Errorf(skyport.CodeUnsatisfiable, "nothing that fits costs %.4g an hour or less: %s", r.MaxPrice, slices.Min(s.price)).
			WithHint("raise max-price")
	case len(s.nodes) > 0:
		return skyport.Errorf(skyport.CodeUnsatisfiable, "%d node(s) are more than there can be: %s", nodesOf(r), slices.Min(s.nodes)).
			WithHint("ask for fewer nodes or a smaller flavor")
	case len(s.spot) > 0:
		return skyport.Errorf(skyport.CodeUnsatisfiable, "nothing that fits is to be had as spot at site %s", slices.Min(s.spot)).
			WithHint("write #SWM spot prefer, which takes nodes on demand where there is no spot")
	case len(s.size) > 0:
		return skyport.Errorf(skyport.CodeUnsatisfiable, "no flavor has %s", needs(r)).
			WithHint("skyport flavors lists what there is")
	}
	return skyport.Errorf(skyport.CodeUnsatisfiable, "no flavor%s%s", named(" named ", r.Flavor), named(" at site ", r.Site)).
		WithHint("skyport flavors lists what there is")
}

// needs says the size that a request asks for.
func needs(r *skyport.Request) string {
	var parts []string
	if r.CPUs > 0 {
		parts = append(parts, fmt.Sprintf("%d CPUs", r.CPUs))
	}
	if r.Memory > 0 {
		parts = append(parts, r.Memory.String()+" of memory")
	}
	if r.GPUs > 0 {
		parts = append(parts, fmt.Sprintf("%d GPUs", r.GPUs))
	}
	return strings.Join(parts, ", ")
}

func named(before, name string) string {
	if name == "" {
		return ""
	}
	return before + name
}
