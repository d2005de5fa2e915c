package live

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Options say which sites there are and how they are opened. All but Every and
// Logger are needed.
type Options struct {
	// Kinds are the kinds that sites may have.
	Kinds []string
	// Read tells which sites are wanted, or [ErrAbsent]. Their names are unique.
	Read func() ([]Site, error)
	// Open checks the configuration of a site, and returns what starts its
	// provider. Only when that is called may something happen at the site.
	Open   func(Site) (start func() (Provider, error), err error)
	Every  time.Duration // how often Run reads; 0: 3 seconds
	Logger *slog.Logger  // nil: slog.Default()
}

// Site is a site that is wanted. It is opened anew when Config is not deeply
// equal to what it was.
type Site struct {
	Kind, Name string
	Config     any
}

// Provider is the provider of one site.
type Provider interface {
	gate.Provider
	gate.Watcher
	Close() error
}

// ErrAbsent is what Read returns when nothing says which sites are wanted. That
// is no sites in the beginning, and later on a trouble: it may be a slip.
var ErrAbsent = errors.New("there is no list of sites")

// leavingLimit is how long a site that leaves may take to say what it has.
const leavingLimit = 30 * time.Second

// Sites are open. Close them after Run has returned.
type Sites struct {
	o     Options
	kinds []*kind

	// Of the one goroutine that reads.
	wanted  []Site
	settled bool   // everything is as wanted
	told    string // the trouble that was logged last
}

// Open opens the wanted sites. That they cannot be read is an error; a site
// that cannot be opened is told of, and tried again by Run.
func Open(ctx context.Context, o Options) (*Sites, error) {
	if o.Every <= 0 {
		o.Every = 3 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	l := &Sites{o: o}
	for _, name := range o.Kinds {
		l.kinds = append(l.kinds, &kind{name: name, open: o.Open, log: o.Logger, changed: make(chan struct{})})
	}
	wanted, err := o.Read()
	if err != nil && !errors.Is(err, ErrAbsent) {
		return nil, err
	}
	l.take(ctx, wanted)
	return l, nil
}

// Providers are one for each kind, with sites or without.
func (l *Sites) Providers() (all []gate.Provider) {
	for _, k := range l.kinds {
		all = append(all, k)
	}
	return all
}

// Run takes changes in until ctx ends.
func (l *Sites) Run(ctx context.Context) {
	ticker := time.NewTicker(l.o.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.look(ctx)
		}
	}
}

// look takes a change in.
func (l *Sites) look(ctx context.Context) {
	wanted, err := l.o.Read()
	if errors.Is(err, ErrAbsent) {
		err = nil
		if len(l.wanted) > 0 {
			err = skyport.Errorf(skyport.CodeNotFound, "the file of the clouds is gone: the gate keeps to what it said; with sites: [] it would give them up")
		}
	}
	switch {
	case err != nil:
		l.tell(err)
	case l.settled && reflect.DeepEqual(wanted, l.wanted):
		l.tell(nil)
	default:
		l.take(ctx, wanted)
	}
}

// take brings the sites to what is wanted.
func (l *Sites) take(ctx context.Context, wanted []Site) {
	var errs []error
	for _, k := range l.kinds {
		errs = append(errs, k.take(ctx, slices.DeleteFunc(slices.Clone(wanted), func(s Site) bool { return s.Kind != k.name })))
	}
	err := errors.Join(errs...)
	l.wanted, l.settled = wanted, err == nil
	if ctx.Err() == nil { // else the gate ends, which is no trouble
		l.tell(err)
	}
}

// tell logs a trouble once, and shows it where the sites are listed.
func (l *Sites) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	for _, k := range l.kinds {
		k.setTrouble(err)
	}
	switch text {
	case l.told:
	case "":
		l.o.Logger.Info("the clouds are as their file says again")
	default:
		l.o.Logger.Error("the clouds are not as their file says", "error", text, "hint", skyport.HintOf(err))
	}
	l.told = text
}

// Close closes the providers. Partitions stay.
func (l *Sites) Close() error {
	var errs []error
	for _, k := range l.kinds {
		errs = append(errs, k.close())
	}
	return errors.Join(errs...)
}
