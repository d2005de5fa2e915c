package api

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
)

// APIVersion is the version of /v1 (and, by the same number, of /user). It
// grows only with a change that breaks terminals.
const APIVersion = 1

// Options of the API.
type Options struct {
	Backend Backend
	// Authenticate tells who calls. Any error is answered with 401 and its
	// text goes to the log only.
	Authenticate func(*http.Request) (User, error)
	// Logger hears of mistakes of ours; nil: slog.Default().
	Logger *slog.Logger
	// Registerer takes the API's own metrics and Gatherer is what /metrics
	// shows. Nil: a registry of the handler's own.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer
	// Version of the build.
	Version string
	// MaxScript bounds a job script, in bytes; 0: 16 MiB.
	MaxScript int64
	// MaxLimit bounds a page of a list; 0: 1000.
	MaxLimit int
	// Manifest bounds what may be staged at once.
	Manifest transfer.Limits
}

// New returns the handler of everything that core answers over HTTP. It panics
// only on options that can never work, such as no Backend.
func New(o Options) http.Handler {
	if o.Backend == nil || o.Authenticate == nil {
		panic("api: Backend and Authenticate are required")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Registerer == nil || o.Gatherer == nil {
		registry := prometheus.NewRegistry()
		o.Registerer, o.Gatherer = registry, registry
	}
	if o.MaxScript <= 0 {
		o.MaxScript = 16 << 20
	}
	if o.MaxLimit <= 0 {
		o.MaxLimit = 1000
	}

	a := &api{Options: o, mux: http.NewServeMux(), metrics: newMetrics(o.Registerer)}
	a.huma = a.newHuma()
	a.userRoutes()
	a.jobRoutes()
	a.eventRoutes()
	a.logRoutes()
	a.resultRoutes()
	a.stagingRoutes()
	a.lookRoutes()
	a.catalogRoutes()
	a.costRoutes()
	a.secretRoutes()
	a.healthRoutes()
	a.tidyDescription()
	a.descriptionRoutes()
	return a
}

type api struct {
	Options
	mux     *http.ServeMux
	huma    huma.API
	metrics *metrics
	routes  []string // every pattern, for the test that walks them
}

// newHuma prepares the part that is described by OpenAPI. Its own pages are
// off: they load scripts from elsewhere, and the description is served by us.
func (a *api) newHuma() huma.API {
	config := huma.DefaultConfig("Sky Port core", a.Version)
	config.Info.Description = "Jobs, their events, logs and results; sites, flavors and images. " +
		"Callers are known by their client certificate. docs/api.md explains the whole."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil
	config.Formats = map[string]huma.Format{
		"application/json": huma.DefaultJSONFormat,
		"json":             huma.DefaultJSONFormat,
	}
	config.Transformers = []huma.Transformer{asProblem}
	h := humago.New(router{a}, config)
	h.UseMiddleware(withProblemStatus)
	return h
}

// operation adds one operation of /v1: described, validated, its errors told
// as problems.
func operation[I, O any](a *api, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = 64 << 10
	}
	op.BodyReadTimeout = -1 // the paced body has its own deadlines
	op.RejectUnknownQueryParameters = true
	a.describeErrors(&op)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
	// The mux says {path...} where the description says {path}.
	paths := a.huma.OpenAPI().Paths
	if described := strings.ReplaceAll(op.Path, "...}", "}"); described != op.Path {
		paths[described] = paths[op.Path]
		delete(paths, op.Path)
	}
}

// tidyDescription says of answers what the types alone do not: that lists are
// never null, and that metrics may be.
func (a *api) tidyDescription() {
	taken := []string{"Submission", "Directive", "StagedInput", "SubmitBatchRequest"} // requests may say null
	for name, schema := range a.huma.OpenAPI().Components.Schemas.Map() {
		for property, s := range schema.Properties {
			switch {
			case s.Type == huma.TypeArray && !slices.Contains(taken, name):
				s.Nullable = false
			case name == "Metrics" && s.Ref != "":
				schema.Properties[property] = &huma.Schema{
					OneOf: []*huma.Schema{{Ref: s.Ref}, {Type: "null"}}, Description: s.Description,
				}
			}
		}
	}
}

func (a *api) schemaOf(v any) *huma.Schema {
	return a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(v), true, "")
}

// descriptionRoutes serve the OpenAPI description, rendered once.
func (a *api) descriptionRoutes() {
	asJSON, err := a.huma.OpenAPI().MarshalJSON()
	if err != nil {
		panic("api: the OpenAPI description cannot be rendered: " + err.Error())
	}
	asYAML, err := a.huma.OpenAPI().YAML()
	if err != nil {
		panic("api: the OpenAPI description cannot be rendered: " + err.Error())
	}
	a.handle("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		writeBytes(w, "application/openapi+json", asJSON)
	})
	a.handle("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		writeBytes(w, "application/openapi+yaml", asYAML)
	})
}

// healthRoutes answer without a certificate, except for the metrics.
func (a *api) healthRoutes() {
	a.handle("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeBytes(w, textPlain, []byte("ok\n"))
	})
	a.handle("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Backend.Ready(r.Context()); err != nil {
			if skyport.CodeOf(err) == skyport.CodeInternal {
				err = skyport.Errorf(skyport.CodeUnavailable, "not ready: %w", err)
			}
			a.writeProblem(w, r, err)
			return
		}
		writeBytes(w, textPlain, []byte("ready\n"))
	})
	a.handle("GET /metrics", promhttp.HandlerFor(a.Gatherer, promhttp.HandlerOpts{}).ServeHTTP)
}

const textPlain = "text/plain; charset=utf-8"

func writeBytes(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body) //nolint:gosec // no HTML; the peer went away: nobody is left to tell
}
