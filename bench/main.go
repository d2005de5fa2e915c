package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// measurement is a part of a run.
type measurement struct {
	name string
	run  func(context.Context, *bench) error
}

// measurements are what there is to measure, in the order of the table.
var measurements = []measurement{
	{"submit", measureSubmissions},
	{"warm", measureWarm},
	{"cold", measureCold},
	{"jobs", measureThroughput},
	{"stored", measureStored},
	{"transfer", measureTransfer},
	{"input", measureInput},
	{"port", measurePort},
	{"memory", measureMemory},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if child(os.Args[1:]) {
		return
	}
	var only []string
	flag.Func("only", "measure `NAME` only; may be given again: "+strings.Join(names(), ", "), func(name string) error {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("there are %s", strings.Join(names(), ", "))
		}
		only = append(only, name)
		return nil
	})
	remote := flag.Bool("remote", false, "measure nodes that are reached by SSH: "+strings.Join(namesOf(remoteMeasurements), ", "))
	cloud := flag.Bool("cloud", false, "measure what is added to a cloud's own time: "+strings.Join(namesOf(cloudMeasurements), ", "))
	mib := flag.Int64("mib", 0, "size of the large file in `MIB`; 0: 2048, with -short 8")
	files := flag.Int("files", 0, "`NUMBER` of small files; 0: 10000, with -short 100")
	rounds := flag.Int("rounds", 0, "`TIMES` that what is compared takes turns; 0: 3, with -short 1")
	short := flag.Bool("short", false, "small numbers, in seconds: shows that everything can be measured, and no more")
	binary := flag.String("skyport", "bin/skyport", "the `PROGRAM` that is measured")
	out := flag.String("out", "bench/out", "`DIRECTORY` that the JSON goes to")
	dir := flag.String("dir", os.TempDir(), "`DIRECTORY` on the disk that is measured")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	size := full
	if *short {
		size = small
	}
	if *mib > 0 {
		size.big = *mib << 20
	}
	if *files > 0 {
		size.files = *files
	}
	if *rounds > 0 {
		size.rounds = *rounds
	}
	what := measurements
	switch {
	case *remote:
		what = remoteMeasurements
	case *cloud:
		what = cloudMeasurements
	}
	if err := run(ctx, setting{program: *binary, dir: *dir, out: *out, only: only, short: *short, size: size, what: what}); err != nil {
		log.Fatal(err)
	}
}

func names() []string {
	return slices.Concat(namesOf(measurements), namesOf(remoteMeasurements), namesOf(cloudMeasurements))
}

func namesOf(measurements []measurement) (list []string) {
	for _, m := range measurements {
		list = append(list, m.name)
	}
	return list
}

// setting is what a run is asked for.
type setting struct {
	program, dir, out string
	what              []measurement
	only              []string // of these; empty: all
	short             bool
	size              sizes
}

// bench is one run of the program.
type bench struct {
	skyport string // the program that is measured, absolute
	self    string // this program: parts of it run as jobs and as other processes
	dir     string // throw-away
	size    sizes
	report  *report
	stages  int
}

// sizes say how much is done.
type sizes struct {
	submitFor     time.Duration // of each number of clients
	warm, cold    int           // jobs, one after another
	jobs          int           // at once
	stored        int           // jobs in the store
	reads, starts int           // of it
	rounds        int           // of what is compared
	big           int64         // bytes of the one big file
	files         int           // small ones
	echoes        int           // round trips over a port
	stream        int64         // bytes through a port, each way
	active        int           // jobs that core drives at once
	running       int           // of them run, on as many nodes
	cut           time.Duration // of a link
	many          int           // nodes of one partition
	creates       int           // partitions of a cloud, one after another
	lives         int           // whole lives on a cloud's machines
	partitions    int           // at once
	lists         int           // of a catalogue
}

var (
	full = sizes{
		submitFor: 5 * time.Second, warm: 200, cold: 30, jobs: 1000, stored: 100_000, reads: 31, starts: 7,
		rounds: 3, big: 2 << 30, files: 10_000, echoes: 5000, stream: 1 << 30, active: 1000, running: 50, cut: 20 * time.Second, many: 50,
		creates: 20, lives: 5, partitions: 100, lists: 100,
	}
	small = sizes{
		submitFor: 200 * time.Millisecond, warm: 3, cold: 2, jobs: 10, stored: 1000, reads: 3, starts: 1,
		rounds: 1, big: 8 << 20, files: 100, echoes: 50, stream: 8 << 20, active: 20, running: 3, cut: time.Second, many: 3,
		creates: 1, lives: 1, partitions: 3, lists: 3,
	}
)

func run(ctx context.Context, s setting) (err error) {
	b := &bench{size: s.size, report: &report{}}
	if b.skyport, err = filepath.Abs(s.program); err != nil {
		return fmt.Errorf("find %s: %w", s.program, err)
	}
	if _, err := os.Stat(b.skyport); err != nil {
		return fmt.Errorf("%w: make build makes it", err)
	}
	if b.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	// A short name: sockets of nodes lie below it.
	if b.dir, err = os.MkdirTemp(s.dir, "skybench"); err != nil {
		return fmt.Errorf("make a throw-away directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()

	b.report.Machine = lookAtMachine(b.dir)
	b.report.Version = versionOf(ctx, b.skyport)
	b.report.Short = s.short
	b.report.Started = time.Now().UTC().Truncate(time.Second)
	b.report.printHead(os.Stdout)
	var failed []error
	for _, m := range s.what {
		if len(s.only) > 0 && !slices.Contains(s.only, m.name) {
			continue
		}
		b.report.now = m.name
		if err := m.run(ctx, b); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
			log.Printf("%s: %v", m.name, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	b.report.Ended = time.Now().UTC().Truncate(time.Second)
	b.report.Machine.LoadAfter = load()
	path, err := b.report.write(s.out)
	if err == nil {
		fmt.Printf("\n%s\nJSON: %s\n", b.report.summary(), path)
	}
	return errors.Join(append(failed, err)...)
}
