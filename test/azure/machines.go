package azuretest

import "context"

// Machine is a virtual machine to be.
type Machine struct {
	ID, Group, Name string
	Host            string // its own name for itself
	Size            string
	CPUs            int
	MemoryMiB       int64
	CustomData      []byte // as sent, decoded from base64
}

// Addresses of a machine; an empty one stays as the emulator invented it.
type Addresses struct{ Private, Public string }

// Machines become of virtual machines. Its methods take the time that they need
// and end with their context.
type Machines interface {
	// Boot starts the machines of one deployment and returns when they run; they
	// need not answer yet. Addresses are by id.
	Boot(ctx context.Context, machines []Machine) (map[string]Addresses, error)
	// Stop ends machines that may be started again, Start starts one again.
	Stop(ctx context.Context, machine Machine) error
	Start(ctx context.Context, machine Machine) error
	// Remove ends machines for good; those that are not there are no error.
	Remove(ctx context.Context, machines []Machine) error
	Close() error
}

// Nothing is what machines are that nobody will use: they have addresses that
// the emulator invents.
type Nothing struct{}

// Boot does nothing.
func (*Nothing) Boot(context.Context, []Machine) (map[string]Addresses, error) { return nil, nil }

// Stop does nothing.
func (*Nothing) Stop(context.Context, Machine) error { return nil }

// Start does nothing.
func (*Nothing) Start(context.Context, Machine) error { return nil }

// Remove does nothing.
func (*Nothing) Remove(context.Context, []Machine) error { return nil }

// Close does nothing.
func (*Nothing) Close() error { return nil }
