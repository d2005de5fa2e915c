package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/bootstrap"
	"github.com/openworkload/skyport/internal/core/link"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// request asks the process with the link for something.
type request struct {
	Op      string // open, up, leave, prepare, start, ended, push, remove, serve, measure, close
	Nodes   []skyport.Node
	Keys    *bootstrap.Keys `json:",omitempty"`
	Run     string
	From    string // directory that is pushed
	Tell    bool   // progress
	Script  string
	Image   string // that the script runs in
	Port    int
	Address string
	Echoes  int
	Stream  int64
}

// reply answers a request. Those with Progress come before.
type reply struct {
	Error    string
	Took     time.Duration
	Moved    skyport.Transfer
	Address  string
	Progress *skyport.Transfer `json:",omitempty"`

	Trips, Dials, To, From series
}

// holder is the process with the link.
type holder struct {
	link     *link.Link
	changed  chan struct{} // told when a node came or went
	forwards []*forward.Set

	mu  sync.Mutex
	out *json.Encoder
}

// remoteChild answers requests until it is asked to close or nobody asks.
func remoteChild() (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h := &holder{out: json.NewEncoder(os.Stdout)}
	defer func() {
		for _, f := range h.forwards {
			err = errors.Join(err, f.Close())
		}
		if h.link != nil {
			h.link.Close()
		}
	}()
	requests := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var q request
		if err := requests.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		begin := time.Now()
		a, err := h.do(ctx, q)
		if a.Took == 0 {
			a.Took = time.Since(begin)
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := h.say(a); err != nil || q.Op == "close" {
			return err
		}
	}
}

func (h *holder) say(a reply) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out.Encode(a)
}

func (h *holder) do(ctx context.Context, q request) (a reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	switch q.Op {
	case "close":
		return a, nil
	case "open":
		return a, h.open(q)
	case "up":
		return a, h.up(ctx)
	case "leave":
		h.link.Close()
		h.link = nil
		return a, nil
	case "start":
		if err := h.up(ctx); err != nil {
			return a, err
		}
		spec := protocol.RunSpec{Run: q.Run, Script: []byte(q.Script), Start: true, Request: skyport.Request{ContainerImage: q.Image}}
		_, err = h.link.Worker().Prepare(ctx, spec)
		return a, err
	case "prepare":
		_, err = h.link.Worker().Prepare(ctx, protocol.RunSpec{Run: q.Run, Script: []byte(q.Script)})
		return a, err
	case "remove":
		if err := h.link.Worker().Stop(ctx, q.Run); err != nil {
			return a, err
		}
		if err := h.ended(ctx, q.Run); err != nil {
			return a, err
		}
		return a, h.link.Worker().Remove(ctx, q.Run)
	case "ended":
		return a, h.ended(ctx, q.Run)
	case "push":
		return h.push(ctx, q)
	case "serve":
		return h.serve(ctx, q)
	case "measure":
		e := &portEnd{name: q.Address, address: q.Address}
		err := e.measure(ctx, sizes{echoes: q.Echoes, stream: q.Stream})
		return reply{Trips: e.trips, Dials: e.dials, To: e.to, From: e.from}, err
	}
	return a, fmt.Errorf("nobody knows what %q is", q.Op)
}

func (h *holder) open(q request) (err error) {
	h.changed = make(chan struct{}, 1)
	o := link.Options{Nodes: q.Nodes, Keys: q.Keys, Changed: func(string) {
		select {
		case h.changed <- struct{}{}:
		default:
		}
	}}
	if len(q.Nodes) > 1 {
		o.Join = func(i int) string { return joining(q.Nodes, q.Keys, i) }
	}
	h.link, err = link.Open(o)
	return err
}

// up waits for the link.
func (h *holder) up(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		up, _, err := h.link.Up()
		if up {
			return nil
		}
		if errors.Is(err, link.ErrRefused) {
			return err
		}
		select {
		case <-h.changed:
		case <-ctx.Done():
			return fmt.Errorf("%w, after %w", err, ctx.Err())
		}
	}
}

// push is all that core does with a job's inputs: scan, send, place.
func (h *holder) push(ctx context.Context, q request) (a reply, err error) {
	begin := time.Now()
	tree, err := transfer.Scan(ctx, transfer.ScanOptions{Root: q.From, Strict: true})
	if err != nil {
		return a, err
	}
	worker := h.link.Worker()
	options := transfer.Options{Name: "inputs", Ahead: true}
	if q.Tell {
		options.Progress = func(p skyport.Transfer) { _ = h.say(reply{Progress: &p}) } // nobody listens any more: the answer fails too
	}
	a.Moved, err = transfer.Push(ctx, worker.HTTP(), worker.InputsURL(q.Run), tree, options)
	a.Took = time.Since(begin)
	return a, err
}

// serve runs a job with a port and forwards the port, as core does.
func (h *holder) serve(ctx context.Context, q request) (a reply, err error) {
	worker := h.link.Worker()
	port := skyport.Port{Number: q.Port, Direction: skyport.In}
	spec := protocol.RunSpec{Run: q.Run, Script: []byte(q.Script), Start: true, Request: skyport.Request{Ports: []skyport.Port{port}}}
	if _, err := worker.Prepare(ctx, spec); err != nil {
		return a, err
	}
	set, err := forward.Open(context.Background(), forward.Config{
		Address: "127.0.0.2", Ports: []skyport.Port{port},
		Connect: func(ctx context.Context, port int) (net.Conn, error) { return worker.Connect(ctx, q.Run, port) },
		Dial:    h.link.DialMain,
		Accept:  func(ctx context.Context, port int) (net.Conn, error) { return worker.Accept(ctx, q.Run, port) },
	})
	if err != nil {
		return a, err
	}
	h.forwards = append(h.forwards, set)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		status, err := worker.Status(ctx, q.Run)
		if err != nil {
			return a, err
		}
		if len(status.Ports) == 1 {
			err := set.ListeningAt(map[int]string{q.Port: status.Ports[0].Address})
			return reply{Address: set.Status()[0].Address}, err
		}
		if status.State == protocol.RunEnded {
			return a, fmt.Errorf("the server ended: %s", status.Details)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return a, ctx.Err()
		}
	}
}

func (h *holder) ended(ctx context.Context, run string) error {
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		status, err := h.link.Worker().Status(ctx, run)
		if err != nil || status.State == protocol.RunEnded {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
