package gate

import (
	"cmp"
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/openworkload/skyport"
)

// maxWait is the longest that a long poll waits.
const maxWait = 60 * time.Second

// maxBody bounds request bodies: a spec with room for what nodes are booted with.
const maxBody = 256 << 10

// SiteProblem tells why sites of a provider may be missing or out of date.
type SiteProblem struct {
	Kind    string `json:"kind" doc:"Kind of the provider"`
	Details string `json:"details" doc:"What went wrong, for people"`
}

type (
	sitesAnswer struct {
		Body struct {
			Sites    []skyport.Site `json:"sites"`
			Problems []SiteProblem  `json:"problems,omitempty" doc:"Providers that did not answer: of them the last known sites are told"`
		}
	}
	siteInput struct {
		Site string `path:"site" doc:"Name of the site"`
	}
	flavorsAnswer struct {
		Body struct {
			Flavors []skyport.Flavor `json:"flavors"`
		}
	}
	imagesAnswer struct {
		Body struct {
			Images []skyport.Image `json:"images"`
		}
	}
	createInput struct {
		ID   string `path:"id" format:"uuid" doc:"Id of the partition, chosen by core"`
		Body PartitionSpec
	}
	partitionInput struct {
		ID   string `path:"id" format:"uuid" doc:"Id of the partition"`
		Site string `query:"site" required:"true" doc:"Name of the site"`
	}
	// Embedding partitionInput would hide its fields from huma: they are repeated.
	statusInput struct {
		ID    string `path:"id" format:"uuid" doc:"Id of the partition"`
		Site  string `query:"site" required:"true" doc:"Name of the site"`
		After string `query:"after" maxLength:"64" doc:"Version that the caller has seen: the answer comes when there is another, or when the wait is over"`
		Wait  int    `query:"wait" minimum:"0" maximum:"60" doc:"Longest wait in seconds; needs after"`
	}
	statusAnswer struct {
		Body versionedStatus
	}
	listInput struct {
		Site  string `query:"site" required:"true" doc:"Name of the site"`
		Owner string `query:"owner" doc:"Tag of a core; empty: of every core"`
	}
	listAnswer struct {
		Body struct {
			Partitions []PartitionStatus `json:"partitions"`
		}
	}
	leaseInput struct {
		ID   string `path:"id" format:"uuid" doc:"Id of the partition"`
		Site string `query:"site" required:"true" doc:"Name of the site"`
		Body leaseBody
	}
	leaseBody struct {
		Until time.Time `json:"until" doc:"New end of the lease"`
	}
)

// versionedStatus is a status with the name of its content: an opaque word
// that changes whenever anything in the status does.
type versionedStatus struct {
	PartitionStatus
	Version string `json:"version" doc:"Give it as after to wait for the next change"`
}

// routes builds the handler: health checks, then, for core only, the API
// with its description, and the metrics.
func (s *Server) routes() http.Handler {
	api := http.NewServeMux()
	s.describe(api)
	api.Handle("GET /metrics", promhttp.HandlerFor(s.options.Registry, promhttp.HandlerOpts{}))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { sayPlain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("/", s.admit(api))
	return mux
}

// describe registers the operations of the API.
func (s *Server) describe(mux *http.ServeMux) {
	config := huma.DefaultConfig("Sky Port gate", cmp.Or(s.options.Version, "0"))
	config.CreateHooks = nil // no $schema links in bodies
	config.DocsPath = ""     // the description is served, a page from a foreign CDN is not
	config.RejectUnknownQueryParameters = true
	config.Transformers = append(config.Transformers, sayProblem)
	api := humago.New(mux, config)
	api.UseMiddleware(s.measure)

	schema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	op := func(method, path, id, summary string, status int) huma.Operation {
		return huma.Operation{
			Method: method, Path: path, OperationID: id, Summary: summary, DefaultStatus: status,
			MaxBodyBytes: maxBody,
			// A deadline for reading the body would stay on the connection and
			// end the context of a handler that takes longer: there is none.
			BodyReadTimeout: -1,
			Responses: map[string]*huma.Response{"default": {
				Description: "Error",
				Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: schema}},
			}},
		}
	}
	get, put := http.MethodGet, http.MethodPut

	huma.Register(api, op(get, "/v1/sites", "list-sites", "Sites of all providers", 200), s.listSites)
	huma.Register(api, op(get, "/v1/sites/{site}/flavors", "list-flavors", "Flavors of a site, with prices", 200), s.listFlavors)
	huma.Register(api, op(get, "/v1/sites/{site}/images", "list-images", "Images of a site", 200), s.listImages)
	huma.Register(api, op(get, "/v1/sites/{site}/registries/{host}", "registry-login", "Login of a container registry that the site opens", 200), s.registry)
	huma.Register(api, op(http.MethodPost, "/v1/sites/{site}/storages/{name}", "open-storage", "What opens a storage of the site for reading", 200), s.storage)
	huma.Register(api, op(put, "/v1/partitions/{id}", "create-partition", "Start the creation of a partition; idempotent", 202), s.create)
	huma.Register(api, op(get, "/v1/partitions/{id}", "partition", "Status of a partition, at once or when it changes", 200), s.status)
	huma.Register(api, op(get, "/v1/partitions", "list-partitions", "Partitions at a site", 200), s.list)
	huma.Register(api, op(put, "/v1/partitions/{id}/lease", "extend-lease", "Move the end of a partition's lease", 204), s.extend)
	huma.Register(api, op(http.MethodDelete, "/v1/partitions/{id}", "delete-partition", "Start the removal of a partition; idempotent", 202), s.delete)
}

func (s *Server) listSites(ctx context.Context, _ *struct{}) (*sitesAnswer, error) {
	a := &sitesAnswer{}
	sites, problems := s.allSites(ctx)
	for _, h := range s.houses {
		if troubled, ok := h.provider.(Troubled); ok {
			for _, err := range troubled.Troubles() {
				problems = append(problems, SiteProblem{Kind: h.provider.Kind(), Details: err.Error()})
			}
		}
	}
	a.Body.Sites, a.Body.Problems = full(sites), problems
	return a, nil
}

func (s *Server) listFlavors(ctx context.Context, in *siteInput) (*flavorsAnswer, error) {
	flavors, err := atSite(ctx, s, in.Site, "flavors", func(ctx context.Context, p Provider) ([]skyport.Flavor, error) {
		return p.Flavors(ctx, in.Site)
	})
	if err != nil {
		return nil, err
	}
	a := &flavorsAnswer{}
	a.Body.Flavors = full(flavors)
	return a, nil
}

func (s *Server) listImages(ctx context.Context, in *siteInput) (*imagesAnswer, error) {
	images, err := atSite(ctx, s, in.Site, "images", func(ctx context.Context, p Provider) ([]skyport.Image, error) {
		return p.Images(ctx, in.Site)
	})
	if err != nil {
		return nil, err
	}
	a := &imagesAnswer{}
	a.Body.Images = full(images)
	return a, nil
}

func (s *Server) create(ctx context.Context, in *createInput) (*struct{}, error) {
	spec, err := s.checked(in)
	if err != nil {
		return nil, problemOf(err)
	}
	h, err := s.houseOf(ctx, spec.Site)
	if err != nil {
		return nil, problemOf(err)
	}
	_, err = call(ctx, s, h, "create", done(func(ctx context.Context) error { return h.provider.Create(ctx, spec) }))
	// Even a failed create may have left something: its lease is watched.
	h.leases.note(spec.Lease)
	if err != nil {
		s.log.WarnContext(ctx, "partition not created", "partition", spec.ID, "site", spec.Site, "flavor", spec.Flavor, "error", err)
		return nil, problemOf(err)
	}
	s.log.InfoContext(ctx, "partition asked for", "partition", spec.ID, "site", spec.Site, "flavor", spec.Flavor, "nodes", len(spec.Nodes), "owner", spec.Owner)
	return nil, nil
}

// checked says a spec as providers may rely on it: one spelling of the id,
// names that are safe in any path, command or tag, a lease.
func (s *Server) checked(in *createInput) (PartitionSpec, error) {
	spec := in.Body
	wrong := func(format string, args ...any) error {
		err := skyport.Errorf(skyport.CodeInvalid, format, args...)
		err.Cause = ErrPermanent
		return err
	}
	id, err := skyport.ParsePartitionID(string(spec.ID))
	if err != nil {
		return spec, wrong("%v", err)
	}
	if path, err := skyport.ParsePartitionID(in.ID); err != nil || path != id {
		return spec, wrong("the id in the body is not the one in the path")
	}
	spec.ID = id
	if !safeName(spec.Owner) {
		return spec, wrong("owner %q: want 1 to 63 letters, digits, dots, dashes or underscores", skyport.Abbreviate(spec.Owner, 70))
	}
	seen := map[string]bool{}
	for _, name := range spec.Nodes {
		if !safeName(name) || seen[name] {
			return spec, wrong("node %q: names are different from each other and have 1 to 63 letters, digits, dots, dashes or underscores",
				skyport.Abbreviate(name, 70))
		}
		seen[name] = true
	}
	if spec.Lease.IsZero() {
		return spec, wrong("a partition needs a lease")
	}
	spec.Lease = spec.Lease.UTC()
	return spec, nil
}

// safeName admits what is safe as a file name, a host label, a tag and an
// argument everywhere.
func safeName(name string) bool {
	if len(name) == 0 || len(name) > 63 || name[0] == '.' || name[0] == '-' {
		return false
	}
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

func (s *Server) list(ctx context.Context, in *listInput) (*listAnswer, error) {
	all, err := atSite(ctx, s, in.Site, "list", func(ctx context.Context, p Provider) ([]PartitionStatus, error) {
		return p.List(ctx, in.Site, in.Owner)
	})
	if err != nil {
		return nil, err
	}
	a := &listAnswer{}
	a.Body.Partitions = full(all)
	for i := range a.Body.Partitions {
		a.Body.Partitions[i].Nodes = full(a.Body.Partitions[i].Nodes)
	}
	return a, nil
}

func (s *Server) extend(ctx context.Context, in *leaseInput) (*struct{}, error) {
	id, h, err := s.partition(ctx, in.ID, in.Site)
	if err != nil {
		return nil, problemOf(err)
	}
	until := in.Body.Until.UTC()
	_, err = call(ctx, s, h, "extend", done(func(ctx context.Context) error { return h.provider.Extend(ctx, in.Site, id, until) }))
	if err != nil {
		return nil, problemOf(err)
	}
	h.leases.note(until)
	return nil, nil
}

func (s *Server) delete(ctx context.Context, in *partitionInput) (*struct{}, error) {
	id, h, err := s.partition(ctx, in.ID, in.Site)
	if err != nil {
		return nil, problemOf(err)
	}
	_, err = call(ctx, s, h, "delete", done(func(ctx context.Context) error { return h.provider.Delete(ctx, in.Site, id) }))
	if err != nil {
		s.log.WarnContext(ctx, "partition not deleted", "partition", id, "site", in.Site, "error", err)
		return nil, problemOf(err)
	}
	s.log.InfoContext(ctx, "partition's removal asked for", "partition", id, "site", in.Site)
	return nil, nil
}

// partition reads an id in its one spelling and finds the provider.
func (s *Server) partition(ctx context.Context, text, site string) (skyport.PartitionID, *house, error) {
	id, err := skyport.ParsePartitionID(text)
	if err != nil {
		wrong := skyport.Errorf(skyport.CodeInvalid, "%v", err)
		wrong.Cause = ErrPermanent
		return "", nil, wrong
	}
	h, err := s.houseOf(ctx, site)
	return id, h, err
}

// atSite asks the provider of a site.
func atSite[T any](ctx context.Context, s *Server, site, method string, f func(context.Context, Provider) (T, error)) (T, error) {
	var none T
	h, err := s.houseOf(ctx, site)
	if err != nil {
		return none, problemOf(err)
	}
	answer, err := call(ctx, s, h, method, func(ctx context.Context) (T, error) { return f(ctx, h.provider) })
	if err != nil {
		return none, problemOf(err)
	}
	return answer, nil
}

// full makes an empty list of none at all: clients see [], never null.
func full[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
