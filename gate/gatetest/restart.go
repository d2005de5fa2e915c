package gatetest

import (
	"errors"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport/gate"
)

// restart: a provider made anew knows everything, and its partitions are as they were.
func (e *exercise) restart() {
	spec := e.spec(1)
	e.create(spec)
	before := e.awaitUp(spec)
	e.remake()
	after := e.awaitUp(spec)
	if diff := cmp.Diff(before.Nodes, after.Nodes); diff != "" || !before.Created.Equal(after.Created) {
		e.Errorf("a restart changed the partition from\n%+v to\n%+v", before, after)
	}
	e.create(spec)
	other := spec
	other.Owner = "somebody-else"
	if err := e.Provider.Create(e.Context(), other); !errors.Is(err, gate.ErrConflict) {
		e.Errorf("another spec after a restart: got %v, want ErrConflict", err)
	}
	e.remove(e.Context(), spec.ID)
}

// restartEarly: a creation that was under way comes to its end.
func (e *exercise) restartEarly() {
	spec := e.spec(e.Nodes)
	e.create(spec)
	e.remake()
	e.create(spec)
	e.awaitUp(spec)
	e.remove(e.Context(), spec.ID)
}

// restartDeleting: a removal that was under way when the gate was killed comes
// to its end when core asks again.
func (e *exercise) restartDeleting() {
	spec := e.spec(1)
	e.create(spec)
	e.awaitUp(spec)
	e.until("delete", func() (bool, error) {
		err := e.Provider.Delete(e.Context(), e.Site, spec.ID)
		return err == nil, err
	})
	e.remake()
	e.remove(e.Context(), spec.ID)
	e.stays(spec.ID)
}
