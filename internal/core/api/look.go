package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// Reach is the way to the workers of a partition's nodes.
type Reach struct {
	// Run is the job's run there, "" for a partition as such.
	Run string
	// Nodes of the partition, main first.
	Nodes []skyport.Node
	// Worker is the client of a node's worker; "" is the main node. CodeNotFound
	// says which nodes there are.
	Worker func(node string) (*protocol.Client, error)
}

const (
	// answerTime is how long a node may take to answer a question, or to begin
	// a command.
	answerTime = 20 * time.Second
	usageTime  = 5 * time.Second
)

// lookRoutes let users look into their jobs while these are on nodes: by
// commands beside the script, by what the nodes use, by files.
func (a *api) lookRoutes() {
	a.handle("POST /v1/jobs/{id}/commands", a.problems(a.jobCommand))
	a.describeCommand("/v1/jobs/{id}/commands", "id", "Run a command beside the script of a job", "Jobs")
	a.handle("POST /v1/partitions/{partition}/commands", a.problems(a.partitionCommand))
	a.describeCommand("/v1/partitions/{partition}/commands", "partition", "Run a command on a node of a partition", "Catalogue")
	a.handle("POST /v1/jobs/{id}/files/put/{path}/{rest...}", a.problems(a.jobFiles))
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		a.handle(method+" /v1/jobs/{id}/files/get/{path}/{rest...}", a.problems(a.jobFiles))
	}

	operation(a, huma.Operation{
		OperationID: "get-usage", Method: http.MethodGet, Path: "/v1/jobs/{id}/usage", Tags: []string{"Jobs"},
		Summary:     "What the nodes of a running job use now",
		Description: "Asked of the nodes at once. Counters grow since a node's boot: ask twice for rates.",
	}, func(ctx context.Context, _ *jobPath) (*body[skyport.JobUsage], error) {
		return answerWith(a.jobUsage(ctx, jobOf(ctx).ID))
	})
}

// describeCommand describes a route that huma cannot serve: it becomes a raw
// connection.
func (a *api) describeCommand(path, id, summary, tag string) {
	text := &huma.Schema{Type: huma.TypeString}
	op := &huma.Operation{
		OperationID: "command-" + id, Method: http.MethodPost, Path: path, Tags: []string{tag}, Summary: summary,
		Description: "The request upgrades to " + forward.Protocol + "; then the frames of a session follow, see the package internal/session.",
		Parameters: []*huma.Param{
			{Name: id, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString, Format: "uuid"}},
			{Name: "node", In: "query", Description: "Name of the node; default main", Schema: text},
		},
		Responses: map[string]*huma.Response{"101": {Description: "The connection is the session's"}},
	}
	a.describeErrors(op)
	a.huma.OpenAPI().AddOperation(op)
}

// problems answers with the error of a handler that has not answered.
func (a *api) problems(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := handle(w, r); err != nil {
			a.writeProblem(w, r, err)
		}
	}
}

func (a *api) jobCommand(w http.ResponseWriter, r *http.Request) error {
	reach, err := a.Backend.Reach(jobOf(r.Context()).ID)
	if err != nil {
		return err
	}
	return a.command(r.Context(), w, r, reach)
}

// partitionCommand gives a shell on a node itself. It sees what lies there, so
// it is for the one user whose jobs are there, and ends when that changes.
func (a *api) partitionCommand(w http.ResponseWriter, r *http.Request) error {
	id, err := skyport.ParsePartitionID(r.PathValue("partition"))
	if err != nil { // what is no id names no partition
		return skyport.Errorf(skyport.CodeNotFound, "there is no such partition")
	}
	reach, err := a.Backend.ReachPartition(id)
	if err != nil {
		return err
	}
	caller := callerOf(r.Context()).ID
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	// First listen, then look: no job comes unnoticed.
	watch := &partitionWatch{backend: a.Backend, id: id, caller: caller}
	watch.begin()
	if err := watch.check(ctx); err != nil {
		watch.stop()
		return err
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil) // before the wait
	watching.Go(func() { cancel(watch.run(ctx)) })
	return a.command(ctx, w, r, reach)
}

// command connects the caller with the worker of a node. The frames of the
// session go between the two: core only sees to it that the run is the caller's.
func (a *api) command(ctx context.Context, w http.ResponseWriter, r *http.Request, reach Reach) error {
	node := r.URL.Query().Get("node")
	worker, err := reach.Worker(node)
	if err != nil {
		return err
	}
	beginning, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	there, err := worker.CommandIn(beginning, reach.Run)
	if err != nil {
		return unreachable(err, node, reach)
	}
	here, err := forward.Upgrade(w, r)
	if err != nil {
		_ = there.Close() // nothing was asked of it
		return err
	}
	a.metrics.streams.Inc()
	defer a.metrics.streams.Dec()
	stats, err := forward.Pipe(ctx, here, there)
	a.Logger.DebugContext(ctx, "a command has ended", "run", reach.Run, "in", stats.AtoB, "out", stats.BtoA, "error", err)
	return nil
}

// unreachable gives the error of a worker that was not reached its code.
func unreachable(err error, node string, reach Reach) error {
	if _, known := errors.AsType[*skyport.Error](err); known {
		return err
	}
	if node == "" && len(reach.Nodes) > 0 {
		node = reach.Nodes[0].Name
	}
	return skyport.Errorf(skyport.CodeUnavailable, "node %s does not answer: %w", node, err)
}

// partitionWatch sees to it that a partition is one user's.
type partitionWatch struct {
	backend Backend
	id      skyport.PartitionID
	caller  skyport.UserID

	events <-chan skyport.Event
	stop   func()
}

func (p *partitionWatch) begin() { p.events, p.stop = p.backend.Subscribe(EventQuery{}) }

// check says whether the caller is the one user of the partition.
func (p *partitionWatch) check(ctx context.Context) error {
	users, err := p.backend.UsersOf(ctx, p.id)
	if err != nil {
		return err
	}
	switch {
	case len(users) == 0:
		return skyport.Errorf(skyport.CodeForbidden, "no job of yours has been on partition %s", p.id.Short()).
			WithHint("a partition's nodes are for the user whose jobs are on it, or were the last")
	case slices.ContainsFunc(users, func(u skyport.UserID) bool { return u != p.caller }):
		return skyport.Errorf(skyport.CodeForbidden, "partition %s has jobs of another user, or had the last one", p.id.Short()).
			WithHint("look into a job of yours with skyport exec or skyport attach")
	}
	return nil
}

// run returns why the partition is not the caller's any more, or that ctx ended.
func (p *partitionWatch) run(ctx context.Context) error {
	defer func() { p.stop() }()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx) //nolint:wrapcheck // nobody hears it
		case e, open := <-p.events:
			if !open { // fell behind
				p.stop()
				p.begin()
			} else if e.Partition != p.id || e.Owner == p.caller {
				continue
			}
			if err := p.check(ctx); err != nil {
				return err
			}
		}
	}
}

// jobFiles passes transfers on to the work directory of the job.
func (a *api) jobFiles(w http.ResponseWriter, r *http.Request) error {
	reach, err := a.Backend.Reach(jobOf(r.Context()).ID)
	if err != nil {
		return err
	}
	worker, err := reach.Worker("")
	if err != nil {
		return err
	}
	// What goes into the path of another request must stay where it is put.
	rest := r.PathValue("rest")
	if _, err := protocol.FilesPath(r.PathValue("path")); err != nil {
		return err
	}
	if strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789/") != "" {
		return skyport.Errorf(skyport.CodeNotFound, "no such route of a transfer: %s", skyport.Abbreviate(rest, 100))
	}
	_, op, _ := strings.Cut(r.URL.Path, "/files/")
	op, _, _ = strings.Cut(op, "/") // put or get: the pattern has no other
	target, err := url.Parse(worker.FilesURL(reach.Run))
	if err != nil {
		return skyport.Errorf(skyport.CodeInternal, "files of run %s: %w", reach.Run, err)
	}
	target = target.JoinPath(op, r.PathValue("path"), rest)
	target.RawQuery = r.URL.RawQuery
	streaming(w)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host = target, target.Host
		},
		Transport:     worker.HTTP().Transport,
		FlushInterval: -1, // what comes is sent on: the peer works on it
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			a.writeProblem(w, r, unreachable(err, "", reach))
		},
	}
	proxy.ServeHTTP(w, r)
	return nil
}

// jobUsage asks all nodes of a job at once.
func (a *api) jobUsage(ctx context.Context, id skyport.JobID) (skyport.JobUsage, error) {
	reach, err := a.Backend.Reach(id)
	if err != nil {
		return skyport.JobUsage{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, usageTime)
	defer cancel()
	usage := skyport.JobUsage{Job: id, Nodes: make([]skyport.JobNodeUsage, len(reach.Nodes))}
	var asking sync.WaitGroup
	for i, node := range reach.Nodes {
		usage.Nodes[i] = skyport.JobNodeUsage{Node: node.Name, Role: node.Role}
		asking.Go(func() {
			if err := nodeUsage(ctx, reach, &usage.Nodes[i]); err != nil {
				usage.Nodes[i].Error = skyport.Abbreviate(unreachable(err, node.Name, reach).Error(), 500)
			}
		})
	}
	asking.Wait()
	return usage, nil
}

func nodeUsage(ctx context.Context, reach Reach, into *skyport.JobNodeUsage) error {
	worker, err := reach.Worker(into.Node)
	if err != nil {
		return err
	}
	usage, err := worker.NodeUsage(ctx)
	if err != nil {
		return err
	}
	usage.Node = into.Node
	into.Usage = &usage
	samples, err := worker.Metrics(ctx, reach.Run)
	switch {
	case err != nil && skyport.CodeOf(err) == skyport.CodeNotFound: // the run comes, or is gone
		return nil
	case err != nil:
		return err
	case len(samples) > 0:
		newest := slices.MaxFunc(samples, func(x, y skyport.Sample) int { return cmp.Compare(x.Time.UnixNano(), y.Time.UnixNano()) })
		into.Job = &newest
	}
	return nil
}
