package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/pki"
	azuretest "github.com/openworkload/skyport/test/azure"
)

// cloudMeasurements are what -cloud measures: what is added to a cloud's own
// time, against the emulator of Azure, whose times are known.
var cloudMeasurements = []measurement{
	{"create", measureCreate},
	{"life", measureCloudLife},
	{"hundred", measureHundred},
	{"catalogue", measureCatalogue},
}

// nodeImage is what virtual machines boot: make node-image makes it.
const nodeImage = "skyport-node:dev"

// cloudStage is a stage whose only site is the emulator.
type cloudStage struct {
	*stage
	cloud  *azuretest.Emulator
	client *client.Client
}

// newCloud opens such a stage. lines are more of the site in gate.yaml.
func (b *bench) newCloud(ctx context.Context, o azuretest.Options, lines ...string) (s *cloudStage, err error) {
	s = &cloudStage{}
	if s.cloud, err = azuretest.New(o); err != nil {
		if o.Machines != nil {
			err = errors.Join(err, o.Machines.Close())
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.stage, err = b.newStage(ctx, "SWM_LOCAL_ENABLED=false", "SWM_KEEP_ALIVE=0s"); err != nil {
		return s, err
	}
	address, err := ownAddress()
	if err != nil {
		return s, err
	}
	lines = append(lines, "default_flavor: Standard_D2s_v5", "ssh_from: ["+address+"]")
	if err := os.WriteFile(s.layout.GateFile(), []byte(s.cloud.GateFile("azure", lines...)), 0o600); err != nil {
		return s, fmt.Errorf("write the site: %w", err)
	}
	if s.client, err = s.start(ctx, "up"); err != nil {
		return s, err
	}
	// The catalogue comes once, in the background.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s, s.until(ctx, s.daemons[0], func() error {
		flavors, err := s.client.Flavors(ctx)
		if err == nil && len(flavors) == 0 {
			err = errors.New("the site has no flavors")
		}
		return err //nolint:wrapcheck // says what
	})
}

// empty cancels the jobs and waits until the cloud has nothing any more.
func (s *cloudStage) empty(ctx context.Context, jobs ...skyport.JobID) error {
	for _, id := range jobs {
		if _, err := s.client.Cancel(ctx, id); err != nil && skyport.CodeOf(err) != skyport.CodeConflict {
			return fmt.Errorf("cancel job %s: %w", id, err)
		}
	}
	if err := partitionsBecome(ctx, s.client, func(list []skyport.Partition) bool {
		time.Sleep(20 * time.Millisecond) // the cloud has the processors
		return len(list) == 0
	}); err != nil {
		return err
	}
	if left := s.cloud.Resources(); len(left) > 0 {
		return fmt.Errorf("the cloud still has %+v", left)
	}
	return nil
}

func (s *cloudStage) close() error {
	var errs []error
	if s.client != nil {
		s.client.Close()
	}
	if s.stage != nil {
		errs = append(errs, s.stage.close())
	}
	return errors.Join(append(errs, s.cloud.Close())...)
}

// called is when the cloud was first called so on a partition; zero: not yet.
func (s *cloudStage) called(method, partition, suffix string) time.Time {
	for _, c := range s.cloud.Calls() {
		path := strings.ToLower(c.Path)
		if c.Method == method && strings.Contains(path, "/resourcegroups/"+partition) && strings.HasSuffix(path, suffix) {
			return c.Time
		}
	}
	return time.Time{}
}

// awaitCall waits for such a call.
func (s *cloudStage) awaitCall(ctx context.Context, method, partition, suffix string) (at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = s.until(ctx, s.daemons[0], func() error {
		if at = s.called(method, partition, suffix); at.IsZero() {
			time.Sleep(10 * time.Millisecond)
			return fmt.Errorf("nobody has called %s of %s", method, partition)
		}
		return nil
	})
	return at, err
}

// measureCreate times from Submit to the call that makes the resource group.
func measureCreate(ctx context.Context, b *bench) (err error) {
	s, err := b.newCloud(ctx, azuretest.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var took series
	for i := range b.size.creates + 1 {
		begin := time.Now()
		job, err := s.client.Submit(ctx, client.Submission{Script: []byte("#!/bin/sh\ntrue\n")})
		if err != nil {
			return fmt.Errorf("submit: %w", err)
		}
		partition, err := s.partitionOf(ctx, job.ID)
		if err != nil {
			return err
		}
		at, err := s.awaitCall(ctx, http.MethodPut, partition, partition)
		if err != nil {
			return err
		}
		if i > 0 { // the first one logs in
			took = append(took, at.Sub(begin))
		}
		if err := s.empty(ctx, job.ID); err != nil {
			return err
		}
	}
	b.report.add("submit to the call that creates, median", milliseconds(took.median()), "ms", under(100), took.spread())
	return nil
}

// partitionOf is the name of the partition that was made for a job.
func (s *cloudStage) partitionOf(ctx context.Context, id skyport.JobID) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = s.until(ctx, s.daemons[0], func() error {
		job, err := s.client.Job(ctx, id)
		if err == nil && job.Partition == "" {
			time.Sleep(10 * time.Millisecond)
			err = fmt.Errorf("job %s has no partition", id)
		}
		name = "swm-" + string(job.Partition)
		return err //nolint:wrapcheck // says what
	})
	return name, err
}

// measureCloudLife times jobs on machines that really boot: to the script's first
// line from when the gate knows the address and sshd answers, and from the
// script's end to the call that deletes. The results are small.
func measureCloudLife(ctx context.Context, b *bench) (err error) {
	if out, err := exec.CommandContext(ctx, "docker", "image", "inspect", "--format", "{{.Id}}", nodeImage).CombinedOutput(); err != nil {
		b.report.skip("a job's life on machines that boot", fmt.Sprintf("no node image, make node-image makes it: %s", strings.TrimSpace(string(out))))
		return nil
	}
	d, err := azuretest.NewDocker(azuretest.DockerOptions{Image: nodeImage, NoEngine: true, MaxMemory: 512 << 20})
	if err != nil {
		return err
	}
	machines := newWatched(d)
	s, err := b.newCloud(ctx, azuretest.Options{Machines: machines})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	heard, err := listenForCalls()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, heard.close()) }()
	var first, known, last series
	for i := range b.size.lives {
		begun, ended := fmt.Sprintf("begun-%d", i), fmt.Sprintf("ended-%d", i)
		script := fmt.Sprintf("#!/bin/bash\n#SWM output-files result\n%s\necho small >result\n%s\n", heard.tell(begun), heard.tell(ended))
		job, err := s.client.Submit(ctx, client.Submission{Script: []byte(script)})
		if err != nil {
			return fmt.Errorf("submit: %w", err)
		}
		partition, err := s.partitionOf(ctx, job.ID)
		if err != nil {
			return err
		}
		line, err := heard.await(ctx, begun)
		if err != nil {
			return err
		}
		// The gate says so to the cloud as soon as it has seen all nodes.
		told, err := s.awaitCall(ctx, http.MethodPatch, partition, "/tags/default")
		if err != nil {
			return err
		}
		up := machines.since(skyport.PartitionName(skyport.PartitionID(strings.TrimPrefix(partition, "swm-"))))
		known = append(known, max(0, told.Sub(up)))
		first = append(first, line.Sub(slices.MaxFunc([]time.Time{told, up}, time.Time.Compare)))
		end, err := heard.await(ctx, ended)
		if err != nil {
			return err
		}
		at, err := s.awaitCall(ctx, http.MethodDelete, partition, partition)
		if err != nil {
			return err
		}
		last = append(last, at.Sub(end))
		if err := s.empty(ctx); err != nil {
			return err
		}
	}
	b.report.add("address known and sshd up to the script's first line, median", milliseconds(first.median()), "ms", under(2000), first.spread())
	b.report.add("sshd up to the address known, median", milliseconds(known.median()), "ms", aim{}, "0: it was known before; "+known.spread())
	b.report.add("job's end to the call that deletes, median", milliseconds(last.median()), "ms", under(500), last.spread()+"; one small result")
	return nil
}

// measureHundred times many partitions that are asked for at once, until the last
// one is up, against a cloud that boots all of them in ten seconds.
func measureHundred(ctx context.Context, b *bench) (err error) {
	const boot = 10 * time.Second
	// Azure has callers wait for seconds; a hundred that ask ten times a second measure the emulator.
	s, err := b.newCloud(ctx, azuretest.Options{Boot: boot, Removal: time.Second, RetryAfter: time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	subs := make([]client.Submission, b.size.partitions)
	for i := range subs {
		subs[i].Script = []byte("#!/bin/sh\n#SWM flavor Standard_D2s_v5\ntrue\n")
	}
	begin := time.Now()
	jobs, err := s.client.SubmitBatch(ctx, "", subs)
	if err != nil {
		return fmt.Errorf("submit %d jobs: %w", len(subs), err)
	}
	if err := partitionsBecome(ctx, s.client, func(list []skyport.Partition) bool {
		time.Sleep(50 * time.Millisecond) // the cloud has the processors
		up := 0
		for i := range list {
			// Core turns to the nodes as soon as the gate says that they are up.
			if list[i].State == skyport.PartitionConnecting {
				up++
			}
		}
		return up >= len(subs)
	}); err != nil {
		return err
	}
	took, used := time.Since(begin), s.processorTime()
	var puts []time.Time
	all := s.cloud.Calls()
	for _, c := range all {
		if path := strings.ToLower(c.Path); c.Method == http.MethodPut && strings.HasPrefix(path[strings.LastIndex(path, "/")+1:], "swm-") && strings.Contains(path, "/resourcegroups/swm-") {
			puts = append(puts, c.Time)
		}
	}
	asked := slices.MaxFunc(puts, time.Time.Compare).Sub(begin)
	b.report.add(fmt.Sprintf("%d partitions at once: added to the cloud's own %s", len(subs), boot), (took - boot).Seconds(), "s", aim{},
		fmt.Sprintf("all up after %s, the last one asked for after %s; %d calls, core and gate took %s of the processors, which the emulator shares",
			round(took), round(asked), len(all), round(used)))
	var ids []skyport.JobID
	for i := range jobs {
		ids = append(ids, jobs[i].ID)
	}
	return s.empty(ctx, ids...)
}

// measureCatalogue times the list of 1,000 flavors as core asks the gate for it.
func measureCatalogue(ctx context.Context, b *bench) (err error) {
	const flavors = 1000
	s, err := b.newCloud(ctx, azuretest.Options{Sizes: flavors + 4}, `flavors: ["*"]`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	address, err := s.layout.Announced("gate")
	if err != nil {
		return fmt.Errorf("find the gate: %w", err)
	}
	certificates, err := pki.NewReloader(s.layout.CoreFiles(), slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("read core's certificate: %w", err)
	}
	transport := &http.Transport{TLSClientConfig: certificates.ClientTLS(pki.RoleGate)}
	defer transport.CloseIdleConnections()
	speak := gate.NewClient(address.URL, &http.Client{Transport: transport})
	var took series
	n := 0
	for range b.size.lists + 1 {
		begin := time.Now()
		list, err := speak.Flavors(ctx, "azure")
		if err != nil {
			return fmt.Errorf("list the flavors: %w", err)
		}
		took, n = append(took, time.Since(begin)), len(list)
	}
	took = took[1:] // the first one made the connection
	if n < flavors {
		return fmt.Errorf("the gate offers %d flavors", n)
	}
	what := fmt.Sprintf("%d flavors from the gate", n)
	b.report.add(what+", median", milliseconds(took.median()), "ms", under(10), took.spread()+"; decoding included")
	b.report.add(what+", p99", milliseconds(took.quantile(0.99)), "ms", under(10), "")
	return nil
}
