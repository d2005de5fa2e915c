package local

import (
	"github.com/openworkload/skyport"
)

// Faults are what tests switch on to see how the rest copes.
type Faults struct {
	CreateFails   int  // so many calls of Create fail with a passing error
	CreateRefused bool // Create fails for good
	NeverBoot     bool // nodes appear, their workers are never started
	DieAtBoot     bool // workers are killed right after their start, every time
	DeleteFails   int  // so many calls of Delete fail with a passing error
}

// SetFaults switches faults on and off. Nodes that exist are not touched.
func (p *Provider) SetFaults(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

func (f *Faults) create() error {
	if f.CreateRefused {
		return permanent(skyport.CodeUnsupported, "creation is refused: a fault is switched on")
	}
	return spend(&f.CreateFails, "creation")
}

func (f *Faults) delete() error { return spend(&f.DeleteFails, "deletion") }

func spend(n *int, what string) error {
	if *n <= 0 {
		return nil
	}
	*n--
	return skyport.Errorf(skyport.CodeUnavailable, "%s fails: a fault is switched on", what)
}
