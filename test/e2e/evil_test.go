package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/zeebo/blake3"

	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// evilEnv names the kind of evil that the test's binary is to be, on a node: paths
// that lead out of the results, chunks that are not what their hashes say, or a
// log that never ends. It takes the worker's place, by the worker's own protocol.
const evilEnv = "SKYPORT_TEST_EVIL"

// beEvil runs until it is killed.
func beEvil(kind string) error {
	socket := gate.NodeDir + "/worker.sock"
	honest := protocol.NewClient(protocol.DialUnix(socket))
	ctx := context.Background()
	info, err := honest.Info(ctx)
	if err != nil {
		return err
	}
	var run protocol.RunStatus
	enough := errors.New("enough")
	err = honest.Watch(ctx, func(e protocol.Event) error {
		if e.Status != nil && e.Status.State == protocol.RunRunning {
			run = *e.Status
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		return fmt.Errorf("no run to be evil about: %w", err)
	}
	// The worker stays, deaf and dumb, for whoever looks whether one is there.
	if err := syscall.Kill(info.PID, syscall.SIGSTOP); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	run.Version += 1 << 40
	run.State, run.Ended, run.Stdout = protocol.RunEnded, time.Now(), 12
	if kind == "logs" {
		run.Stdout = 1 << 50
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/worker", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(info) })
	mux.HandleFunc("GET /v1/watch", func(w http.ResponseWriter, r *http.Request) {
		for _, e := range []protocol.Event{{Status: &run}, {Synced: true}} {
			_ = json.NewEncoder(w).Encode(e)
		}
		for r.Context().Err() == nil {
			_ = json.NewEncoder(w).Encode(protocol.Event{})
			_ = http.NewResponseController(w).Flush()
			<-time.After(time.Second)
		}
	})
	mux.HandleFunc("GET /v1/runs/{run}/logs/{stream}", func(w http.ResponseWriter, r *http.Request) {
		if kind == "logs" {
			for block := bytes.Repeat([]byte("evil\n"), 1000); r.Context().Err() == nil; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}
		_, _ = w.Write([]byte("evil is here"))
	})
	mux.Handle("/v1/runs/{run}/outputs/", transfer.NewSendHandler(func(*http.Request) (transfer.Source, error) { return evilTree(kind), nil }))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	return http.Serve(listener, mux)
}

// evilTree is a tree that must not be taken.
type evilTree string

func (kind evilTree) Manifest() *transfer.Manifest {
	name := "back"
	if kind == "paths" {
		name = strings.Repeat("../", 12) + "tmp/evil"
	}
	content := []byte("evil")
	sum := blake3.Sum256(content)
	if kind == "logs" {
		return &transfer.Manifest{}
	}
	return &transfer.Manifest{Entries: []transfer.Entry{{
		Path: []byte(name), Kind: transfer.File, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1e9, 0),
		Chunks: []transfer.Chunk{{Hash: sum, Size: uint32(len(content))}},
	}}}
}

func (kind evilTree) ReadChunk(_ context.Context, _ transfer.ChunkRef, p []byte) error {
	copy(p, "live")
	return nil
}
