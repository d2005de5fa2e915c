package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/openworkload/skyport"
)

// catalogRoutes tell what there is, to any user.
func (a *api) catalogRoutes() {
	type none struct{}
	catalog, service := []string{"Catalogue"}, []string{"Core"}

	operation(a, huma.Operation{
		OperationID: "list-sites", Method: http.MethodGet, Path: "/v1/sites", Tags: catalog, Summary: "Sites that jobs may run at",
	}, func(ctx context.Context, _ *none) (*body[sites], error) {
		list, err := a.Backend.Sites(ctx)
		return &body[sites]{Body: sites{notNil(list)}}, err
	})
	operation(a, huma.Operation{
		OperationID: "list-flavors", Method: http.MethodGet, Path: "/v1/flavors", Tags: catalog, Summary: "Flavors of all sites",
	}, func(ctx context.Context, _ *none) (*body[flavors], error) {
		list, err := a.Backend.Flavors(ctx)
		return &body[flavors]{Body: flavors{notNil(list)}}, err
	})
	operation(a, huma.Operation{
		OperationID: "list-images", Method: http.MethodGet, Path: "/v1/images", Tags: catalog, Summary: "Images of all sites",
	}, func(ctx context.Context, _ *none) (*body[images], error) {
		list, err := a.Backend.Images(ctx)
		return &body[images]{Body: images{notNil(list)}}, err
	})
	operation(a, huma.Operation{
		OperationID: "list-accounts", Method: http.MethodGet, Path: "/v1/accounts", Tags: catalog, Summary: "Accounts that the caller may spend from",
	}, func(ctx context.Context, _ *none) (*body[accounts], error) {
		list, err := a.Backend.Accounts(ctx)
		caller := callerOf(ctx)
		list = slices.DeleteFunc(slices.Clone(list), func(a skyport.Account) bool { return !maySpend(a, caller) })
		return &body[accounts]{Body: accounts{notNil(list)}}, err
	})
	operation(a, huma.Operation{
		OperationID: "list-partitions", Method: http.MethodGet, Path: "/v1/partitions", Tags: catalog, Summary: "Partitions",
	}, func(ctx context.Context, in *struct {
		All bool `query:"all" doc:"Also those that were deleted"`
	},
	) (*body[partitions], error) {
		list, err := a.Backend.Partitions(ctx, in.All)
		return &body[partitions]{Body: partitions{notNil(list)}}, err
	})
	operation(a, huma.Operation{
		OperationID: "list-nodes", Method: http.MethodGet, Path: "/v1/nodes", Tags: catalog, Summary: "Nodes of the partitions that there are",
	}, func(ctx context.Context, _ *none) (*body[nodes], error) {
		list, err := a.Backend.Partitions(ctx, false)
		return &body[nodes]{Body: nodes{nodesOf(list)}}, err
	})

	operation(a, huma.Operation{
		OperationID: "sweep", Method: http.MethodPost, Path: "/v1/gc", Tags: service,
		Summary: "Remove from the sites what core does not know",
	}, func(ctx context.Context, in *struct {
		Site string `query:"site" maxLength:"200" doc:"Only at this site"`
		Dry  bool   `query:"dry" doc:"Only tell"`
	},
	) (*body[orphans], error) {
		list, err := a.Backend.Sweep(ctx, in.Site, in.Dry)
		return &body[orphans]{Body: orphans{notNil(list)}}, err
	})
	operation(a, huma.Operation{
		OperationID: "whoami", Method: http.MethodGet, Path: "/v1/whoami", Tags: service, Summary: "The caller, as its certificate says",
	}, func(ctx context.Context, _ *none) (*body[User], error) {
		return &body[User]{Body: callerOf(ctx)}, nil
	})
	operation(a, huma.Operation{
		OperationID: "version", Method: http.MethodGet, Path: "/v1/version", Tags: service, Summary: "What runs",
	}, func(context.Context, *none) (*body[skyport.Version], error) {
		return &body[skyport.Version]{Body: skyport.Version{Version: a.Version, API: APIVersion}}, nil
	})
}

type (
	sites struct {
		Sites []skyport.Site `json:"sites"`
	}
	flavors struct {
		Flavors []skyport.Flavor `json:"flavors"`
	}
	images struct {
		Images []skyport.Image `json:"images"`
	}
	accounts struct {
		Accounts []skyport.Account `json:"accounts"`
	}
	partitions struct {
		Partitions []skyport.Partition `json:"partitions"`
	}
	nodes struct {
		Nodes []skyport.NodeStatus `json:"nodes"`
	}
	orphans struct {
		Orphans []skyport.Orphan `json:"orphans"`
	}
)

func nodesOf(partitions []skyport.Partition) []skyport.NodeStatus {
	list := []skyport.NodeStatus{}
	for _, p := range partitions {
		for _, n := range p.Nodes {
			list = append(list, skyport.NodeStatus{
				Node: n, Partition: p.ID, State: p.State, Site: p.Site, Flavor: p.Flavor.Name, Account: p.Account,
			})
		}
	}
	return list
}
