package store_test

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/core/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Exercise(t, func(t *testing.T) storetest.Fixture {
		path := filepath.Join(t.TempDir(), "odd name?#%.db")
		return storetest.Fixture{Open: func(t *testing.T, onCommit func(store.Commit)) *store.Store {
			t.Helper()
			s, err := store.Open(t.Context(), store.Options{Path: path, OnCommit: onCommit})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}}
	})
}

func BenchmarkSubmit(b *testing.B) {
	for _, clients := range []int{1, 8} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s, err := store.Open(b.Context(), store.Options{Path: filepath.Join(b.TempDir(), "db")})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			script := []byte("#!/bin/sh\n#SWM name bench\ntrue\n")
			var failed atomic.Int64
			b.SetParallelism(clients)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					job := skyport.Job{ID: skyport.NewJobID(), Owner: "owner", State: skyport.JobQueued, Request: skyport.Request{Nodes: 1}}
					if err := s.Update(b.Context(), func(tx *store.Tx) error { return tx.InsertJob(&job, script) }); err != nil {
						failed.Add(1)
					}
				}
			})
			if failed.Load() > 0 {
				b.Fatalf("%d updates failed", failed.Load())
			}
		})
	}
}
