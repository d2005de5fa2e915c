package pki

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/openworkload/skyport"
)

// Of many writers at once exactly one makes the file, and it is whole.
func TestWriteNewHasOneWinner(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	var winners atomic.Int32
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			switch err := WriteNew(path, []byte("whole"), 0o600); {
			case err == nil:
				winners.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if content, err := os.ReadFile(path); winners.Load() != 1 || err != nil || string(content) != "whole" {
		t.Errorf("%d winners, the file holds %q, %v", winners.Load(), content, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestWriteErrorsNameTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "no such directory", "file")
	for _, err := range []error{WriteNew(path, nil, 0o600), Replace(path, nil, 0o600)} {
		if !errors.Is(err, fs.ErrNotExist) || skyport.CodeOf(err) != skyport.CodeInternal {
			t.Errorf("%v: want one that matches fs.ErrNotExist", err)
		}
	}
}
