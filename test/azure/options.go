package azuretest

import (
	"cmp"
	"crypto/x509"
	"log/slog"
	"time"
)

// What an emulator is called by where nothing else is said.
const (
	DefaultSubscription = "5b1e0000-0000-4000-8000-00000000e001"
	DefaultTenant       = "7e4a0000-0000-4000-8000-00000000e002"
	DefaultClientID     = "c11e0000-0000-4000-8000-00000000e003"
	DefaultClientSecret = "emulator-secret~1"
	DefaultLocation     = "westeurope"
)

// Options of an emulator. The zero value listens on a free port of the loopback,
// has machines that are nothing, and lets everything be done at once.
type Options struct {
	// Listen is an address; empty: a free port at 127.0.0.1.
	Listen string
	// Machines become the virtual machines; nil: [Nothing].
	Machines Machines
	// Boot is the time from the creation of a virtual machine to its running.
	Boot time.Duration
	// Latency is the time that any other resource takes, Removal that of a group's
	// deletion.
	Latency, Removal time.Duration
	// RetryAfter is what waiting callers are told; 0: 100 ms. Below a second it is
	// told in x-ms-retry-after-ms, which the SDK prefers.
	RetryAfter time.Duration
	// Seed of all chance.
	Seed uint64
	// State is a file that all resources are written to and read from at the
	// start; empty: none. It holds user data: mode 0600.
	State string
	// Subscription, Tenant and the one client that has a role; empty: the defaults.
	Subscription, Tenant, ClientID, ClientSecret string
	// Certificates may sign the client's assertions.
	Certificates []*x509.Certificate
	// TokenLife is how long a token lasts; 0: an hour.
	TokenLife time.Duration
	// Location has all sizes; empty: westeurope. Others have them too.
	Location string
	// Sizes blows the list of sizes up to so many, with invented ones.
	Sizes int
	// Quotas are limits of usages by name, such as cores or
	// standardDSv5Family; those not named have 10,000.
	Quotas map[string]int
	// Unregistered are name spaces whose registration is missing.
	Unregistered []string
	// Faults from the start.
	Faults Faults
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:0")
	o.Subscription = cmp.Or(o.Subscription, DefaultSubscription)
	o.Tenant = cmp.Or(o.Tenant, DefaultTenant)
	o.ClientID = cmp.Or(o.ClientID, DefaultClientID)
	o.ClientSecret = cmp.Or(o.ClientSecret, DefaultClientSecret)
	o.Location = cmp.Or(o.Location, DefaultLocation)
	o.RetryAfter = cmp.Or(o.RetryAfter, 100*time.Millisecond)
	o.TokenLife = cmp.Or(o.TokenLife, time.Hour)
	if o.Machines == nil {
		o.Machines = &Nothing{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
