package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/spool"
)

// liveClouds are the sites of all clouds: what gate.yaml says of them may
// change while they serve. Each site has a provider of its own, so that a
// change of one disturbs no other. What an old provider of a site was doing
// goes on in the new one, as after a restart of the gate.
type liveClouds struct {
	load  func() (spool.GateFile, error)
	open  cloudOpener
	log   *slog.Logger
	kinds []*cloudKind

	// Of the one goroutine that calls look.
	file    spool.GateFile
	settled bool   // everything is as the file says
	told    string // the trouble that was logged last
}

// cloudOpener checks what the file says of a site, and returns what starts its
// provider. Only when that is called may something happen at the site.
type cloudOpener func(spool.CloudSite) (start func() (cloudProvider, error), err error)

const (
	// gateFilePeriod is how often gate.yaml is looked at.
	gateFilePeriod = 3 * time.Second
	// leavingLimit is how long a site that leaves may take to say what it has.
	leavingLimit = 30 * time.Second
)

// openClouds opens what gate.yaml names. A file that is wrong is refused; a
// site that cannot be opened is told of, and tried again by follow.
func openClouds(ctx context.Context, s *spool.Spool, log *slog.Logger) (*liveClouds, error) {
	l := newLiveClouds(s.LoadGateFile, func(c spool.CloudSite) (func() (cloudProvider, error), error) {
		site, err := openCloud(c, log.With("kind", c.Kind, "site", c.Name))
		if err != nil {
			return nil, fmt.Errorf("open site %s: %w", c.Name, err)
		}
		return func() (cloudProvider, error) { return provideCloud(c, site, cloudDir(s), log) }, nil
	}, log)
	file, err := l.load()
	if err != nil {
		return nil, err
	}
	l.take(ctx, file)
	return l, nil
}

func newLiveClouds(load func() (spool.GateFile, error), open cloudOpener, log *slog.Logger) *liveClouds {
	l := &liveClouds{load: load, open: open, log: log}
	for _, kind := range cloudKinds {
		l.kinds = append(l.kinds, newCloudKind(kind, log))
	}
	return l
}

// follow looks at the file until ctx ends.
func (l *liveClouds) follow(ctx context.Context) {
	ticker := time.NewTicker(gateFilePeriod)
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

// look takes a changed file in. A file that is wrong, or gone, changes nothing.
func (l *liveClouds) look(ctx context.Context) {
	file, err := l.load()
	if err == nil && len(file.Sites) == 0 && file.Absent && len(l.file.Sites) > 0 {
		err = skyport.Errorf(skyport.CodeNotFound, "the file of the clouds is gone: the gate keeps to what it said; with sites: [] it would give them up")
	}
	if err != nil {
		l.tell(err)
		return
	}
	if l.settled && reflect.DeepEqual(file, l.file) {
		l.tell(nil)
		return
	}
	l.take(ctx, file)
}

// take brings the sites to what the file says.
func (l *liveClouds) take(ctx context.Context, file spool.GateFile) {
	var errs []error
	l.file, l.settled = file, true
	for _, k := range l.kinds {
		wanted := slices.DeleteFunc(slices.Clone(file.Sites), func(c spool.CloudSite) bool { return c.Kind != k.kind })
		settled, err := k.take(ctx, wanted, l.open)
		l.settled = l.settled && settled
		errs = append(errs, err)
	}
	if ctx.Err() == nil { // else the gate ends, which is no trouble
		l.tell(errors.Join(errs...))
	}
}

// tell logs a trouble once, and shows it where the sites are listed.
func (l *liveClouds) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	for _, k := range l.kinds {
		k.trouble(err)
	}
	switch text {
	case l.told:
	case "":
		l.log.Info("the clouds are as their file says again")
	default:
		l.log.Error("the clouds are not as their file says", "error", text, "hint", skyport.HintOf(err))
	}
	l.told = text
}

// providers are one for each kind, with sites or without.
func (l *liveClouds) providers() (all []gate.Provider) {
	for _, k := range l.kinds {
		all = append(all, k)
	}
	return all
}

// Close closes the providers. Partitions stay.
func (l *liveClouds) Close() error {
	var errs []error
	for _, k := range l.kinds {
		errs = append(errs, k.Close())
	}
	return errors.Join(errs...)
}
