package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/test/wire"
)

// remoteMeasurements are what -remote measures: nodes that are reached by SSH,
// against OpenSSH's own tools in the same run, on the same link.
var remoteMeasurements = []measurement{
	{"large", measureRemoteLarge},
	{"small", measureRemoteSmall},
	{"cut", measureRemoteCut},
	{"tunnel", measureRemotePort},
	{"start", measureRemoteStart},
	{"fifty", measureRemoteMany},
}

// far is what a link to another city is like.
var far = wire.Settings{RTT: 50 * time.Millisecond, Rate: wire.Gbit}

// overLinks measures on loopback, then on an emulated link when there can be one.
func (b *bench) overLinks(ctx context.Context, what string, measure func(ctx context.Context, r *remote, where string) error) error {
	if _, err := exec.LookPath(sshd); err != nil {
		b.report.skip(what, err.Error())
		return nil
	}
	if err := b.overLink(ctx, nil, "loopback", measure); err != nil {
		return fmt.Errorf("on loopback: %w", err)
	}
	where := fmt.Sprintf("%s, %d Mbit/s", far.RTT, far.Rate/wire.Mbit)
	if err := wire.Available(); err != nil {
		b.report.skip(what+", "+where, err.Error())
		return nil
	}
	if err := b.overLink(ctx, &far, where, measure); err != nil {
		return fmt.Errorf("at %s: %w", where, err)
	}
	return nil
}

func (b *bench) overLink(ctx context.Context, s *wire.Settings, where string, measure func(context.Context, *remote, string) error) (err error) {
	r, err := b.newRemote(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	return measure(ctx, r, where)
}

// measureRemoteLarge brings one big file of random bytes to a node, by all ways
// in turns, and then the same with 1 % changed, as 16 stretches anywhere.
func measureRemoteLarge(ctx context.Context, b *bench) (err error) {
	size := b.size.big
	if err := enoughDisk(b.dir, 4*size); err != nil {
		b.report.skip("a large file", err.Error())
		return nil
	}
	from := filepath.Join(b.dir, "r", "big")
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Dir(from))) }()
	if err := randomFile(filepath.Join(from, "file"), size); err != nil {
		return err
	}
	return b.overLinks(ctx, "a large file", func(ctx context.Context, r *remote, where string) error {
		what := fmt.Sprintf("%s of random bytes, %s", skyport.Bytes(size), where)
		aims := map[string]aim{"scp": atLeast(1), "rsync": atLeast(1)}
		rounds := b.size.rounds
		if r.link != nil {
			aims, rounds = map[string]aim{"scp": atLeast(3), "rsync": atLeast(3)}, min(rounds, 1)
		}
		return b.remoteRace(ctx, r, raceOf{what: what, from: from, size: size, rounds: rounds, aims: aims, changed: true})
	})
}

// measureRemoteSmall brings many small files to a node.
func measureRemoteSmall(ctx context.Context, b *bench) (err error) {
	from := filepath.Join(b.dir, "r", "many")
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Dir(from))) }()
	if err := manyFiles(from, b.size.files); err != nil {
		return err
	}
	return b.overLinks(ctx, "many files", func(ctx context.Context, r *remote, where string) error {
		aims := map[string]aim{"rsync": atLeast(1)}
		if r.link != nil {
			aims["rsync"] = atLeast(5)
		}
		what := fmt.Sprintf("%d files of 4 KiB, %s", b.size.files, where)
		return b.remoteRace(ctx, r, raceOf{what: what, from: from, size: int64(b.size.files) << 12, rounds: b.size.rounds, aims: aims})
	})
}

// raceOf says what several ways bring to a node in turns.
type raceOf struct {
	what    string
	from    string
	size    int64
	rounds  int
	aims    map[string]aim // by the other's name: how many times as long it should take
	changed bool           // and again with 1 % changed
}

func (b *bench) remoteRace(ctx context.Context, r *remote, race raceOf) error {
	ours := &way{name: "skyport"}
	all := []*way{ours}
	for _, name := range []string{"scp", "rsync"} {
		if _, wanted := race.aims[name]; !wanted {
			continue
		}
		if _, err := exec.LookPath(name); err != nil {
			b.report.skip(race.what+", "+name, err.Error())
			continue
		}
		all = append(all, &way{name: name, copy: r.tool(name)})
	}
	again := map[string]series{}
	for round := range race.rounds {
		for i := range all {
			w := all[(i+round)%len(all)]
			if err := b.remoteTurn(ctx, r, race, w, again); err != nil {
				return fmt.Errorf("%s by %s: %w", race.what, w.name, err)
			}
		}
	}
	b.verdicts(race.what, race.size, all, race.aims)
	if race.changed {
		for _, w := range all {
			w.took = again[w.name]
		}
		b.verdicts(race.what+", again with 1 % changed", race.size, slicesWithout(all, "scp"), map[string]aim{"rsync": atLeast(1)})
	}
	return nil
}

func slicesWithout(all []*way, name string) (kept []*way) {
	for _, w := range all {
		if w.name != name {
			kept = append(kept, w)
		}
	}
	return kept
}

// remoteTurn is one way's turn.
func (b *bench) remoteTurn(ctx context.Context, r *remote, race raceOf, w *way, again map[string]series) (err error) {
	to := filepath.Join(r.dir, "to-"+w.name)
	run := ""
	if w.copy == nil {
		if run, to, err = r.prepare(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.forget(run)) }()
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	}
	bring := func() (took time.Duration, err error) {
		if err := settle(b.dir); err != nil {
			return 0, err
		}
		if w.copy == nil {
			reply, err := r.ask(request{Op: "push", Run: run, From: race.from})
			return reply.Took, err
		}
		begin := time.Now()
		err = w.copy(ctx, race.from, to)
		return time.Since(begin), err
	}
	took, err := bring()
	if err != nil {
		return err
	}
	w.took = append(w.took, took)
	if err := same(race.from, to); err != nil {
		return err
	}
	if !race.changed || w.name == "scp" {
		return nil
	}
	const file = "file"
	if err := scribble(filepath.Join(race.from, file), race.size); err != nil {
		return err
	}
	if took, err = bring(); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	again[w.name] = append(again[w.name], took)
	return sameBytes(filepath.Join(race.from, file), filepath.Join(to, file))
}

// verdicts reports how long the ways took, and how much longer than ours.
func (b *bench) verdicts(what string, size int64, all []*way, aims map[string]aim) {
	ours := all[0].took.median()
	for _, w := range all {
		b.report.add(what+": "+w.name, w.took.median().Seconds(), "s", aim{},
			fmt.Sprintf("%s MB/s; %s", number(rate(size, w.took.median())), w.took.spread()))
	}
	for _, w := range all[1:] {
		b.report.add(what+": "+w.name+" to skyport", w.took.median().Seconds()/ours.Seconds(), "times", aims[w.name], "")
	}
}

// measureRemoteCut cuts the link in the middle of a transfer until all
// connections are given up, and tells how much travelled twice.
func measureRemoteCut(ctx context.Context, b *bench) (err error) {
	if err := wire.Available(); err != nil {
		b.report.skip("a cut", err.Error())
		return nil
	}
	if _, err := exec.LookPath(sshd); err != nil {
		b.report.skip("a cut", err.Error())
		return nil
	}
	from := filepath.Join(b.dir, "r", "cut")
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Dir(from))) }()
	size := max(b.size.big, 96<<20) // less is on its way at once, and not to be cut
	if err := randomFile(filepath.Join(from, "file"), size); err != nil {
		return err
	}
	return b.overLink(ctx, &far, "", func(_ context.Context, r *remote, _ string) error {
		run, to, err := r.prepare()
		if err != nil {
			return err
		}
		var once sync.Once
		var mending *time.Timer
		r.told = func(p skyport.Transfer) {
			if p.Total > 0 && p.Done > p.Total/2 {
				once.Do(func() {
					r.link.Cut()
					mending = time.AfterFunc(b.size.cut, func() { r.link.Forget(); r.link.Mend() })
				})
			}
		}
		reply, err := r.ask(request{Op: "push", Run: run, From: from, Tell: true})
		r.told = nil
		if mending != nil && mending.Stop() {
			err = errors.Join(err, errors.New("the transfer was over before the cut was"))
		}
		if mending == nil && err == nil {
			err = errors.New("the transfer was over before it could be cut")
		}
		if err != nil {
			return err
		}
		if err := sameBytes(filepath.Join(from, "file"), filepath.Join(to, "file")); err != nil {
			return err
		}
		extra := float64(reply.Moved.Wire-reply.Moved.Total) / float64(reply.Moved.Total) * 100
		b.report.add(fmt.Sprintf("%s, cut in the middle for %s: sent twice", skyport.Bytes(size), b.size.cut), max(extra, 0), "%", under(1),
			fmt.Sprintf("%s written to the link in all, headers included; whole transfer %s", reply.Moved.Wire, round(reply.Took)))
		return r.forget(run)
	})
}

// measureRemotePort compares a job's forwarded port with ssh -L to the same server.
func measureRemotePort(ctx context.Context, b *bench) error {
	return b.overLinks(ctx, "a forwarded port", func(ctx context.Context, r *remote, where string) error {
		run, port, forwarded, err := r.serve(ctx)
		if err != nil {
			return err
		}
		tunnel, stop, err := r.tunnel(ctx, port)
		if err != nil {
			return err
		}
		defer stop()
		size := b.size
		if r.link != nil { // a round trip is long, and the rate is known
			size.echoes, size.stream = max(size.echoes/50, 5), size.stream/8
		}
		ends := []*portEnd{{name: "ssh -L", address: tunnel}, {name: "skyport", address: forwarded}}
		for round := range b.size.rounds {
			for i := range ends {
				e := ends[(i+round)%len(ends)]
				reply, err := r.ask(request{Op: "measure", Address: e.address, Echoes: size.echoes, Stream: size.stream})
				if err != nil {
					return fmt.Errorf("%s: %w", e.name, err)
				}
				e.trips, e.dials = append(e.trips, reply.Trips...), append(e.dials, reply.Dials...)
				e.to, e.from = append(e.to, reply.To...), append(e.from, reply.From...)
			}
		}
		theirs, ours := ends[0], ends[1]
		for _, m := range []struct {
			name         string
			theirs, ours series
			stream       bool
		}{
			{"round trip of a byte", theirs.trips, ours.trips, false},
			{"connect and first answer", theirs.dials, ours.dials, false},
			{"throughput to the job", theirs.to, ours.to, true},
			{"throughput from the job", theirs.from, ours.from, true},
		} {
			note := fmt.Sprintf("ssh -L %s, skyport %s", round(m.theirs.median()), round(m.ours.median()))
			if m.stream {
				note = fmt.Sprintf("ssh -L %s MB/s, skyport %s MB/s", number(rate(size.stream, m.theirs.median())), number(rate(size.stream, m.ours.median())))
			}
			b.report.add(fmt.Sprintf("port, %s, %s: ssh -L to skyport", where, m.name), m.theirs.median().Seconds()/m.ours.median().Seconds(),
				"times", atLeast(1), note+"; medians")
		}
		return r.forget(run)
	})
}

// quoted makes a word of a shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
