package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// This file moves an attempt's data: the run and its inputs to the worker, logs
// and outputs back, and the connections of its ports.

// start brings the run to the worker and has it started. All of it can be done
// again: the worker knows the run by its name and starts it once.
func (a *attempt) start(ctx context.Context, v view) (progress bool, err error) {
	spec, err := a.runSpec(ctx, v)
	if err != nil {
		return false, a.judge(ctx, err)
	}
	if err := a.openForwards(ctx, v); err != nil {
		return true, a.fail(ctx, "the ports of the job cannot be opened: "+err.Error())
	}
	a.e.Archive.Begin(v.row.Job, v.row.Number)
	inputs := len(v.job.Request.InputFiles) > 0
	spec.Start = !inputs && len(spec.Peers) == 0
	if spec.Start {
		if err := a.starting(ctx); err != nil {
			return false, err
		}
	}
	worker := v.link.Worker()
	status, err := worker.Prepare(ctx, spec)
	if err != nil {
		return false, a.judge(ctx, fmt.Errorf("prepare the run: %w", err))
	}
	v.link.Note(status)
	if spec.Start {
		a.asked = true
		return true, nil
	}
	if err := prepareMembers(ctx, &v, spec); err != nil {
		return false, a.judge(ctx, err)
	}
	if inputs {
		if done, err := a.upload(ctx, v, spec); err != nil || !done {
			return true, err
		}
	}
	if ready, err := a.awaitMembers(ctx, &v); err != nil || !ready {
		return true, err
	}
	if err := a.starting(ctx); err != nil {
		return false, err
	}
	status, err = worker.Start(ctx, spec.Run)
	if err != nil {
		return false, a.judge(ctx, fmt.Errorf("start the run: %w", err))
	}
	a.asked = true
	v.link.Note(status)
	return true, nil
}

// upload brings the inputs to the main node. It is not done when the job was
// ended, because they cannot be read.
func (a *attempt) upload(ctx context.Context, v view, spec protocol.RunSpec) (done bool, err error) {
	worker := v.link.Worker()
	if err := a.update(ctx, func(tx *store.Tx, row *skyport.Attempt, job *skyport.Job) error {
		row.Phase = max(row.Phase, skyport.PhaseStaging)
		if err := tx.UpdateAttempt(row); err != nil {
			return err
		}
		return tx.MoveJob(job, skyport.JobTransferring, skyport.DetailsDataUploading)
	}); err != nil {
		return false, err
	}
	source, err := a.inputs(ctx, &v.job)
	if err != nil {
		return false, a.fail(ctx, "the inputs cannot be read: "+err.Error())
	}
	for _, text := range source.Manifest().Warnings {
		a.warn(ctx, "input "+text)
	}
	moved, err := transfer.Push(ctx, worker.HTTP(), worker.InputsURL(spec.Run), source, transfer.Options{
		Name: "inputs", Attempts: 5, Ahead: true, Progress: a.progress(&v),
	})
	if err != nil {
		return false, a.judge(ctx, fmt.Errorf("upload the inputs: %w", err))
	}
	err = a.update(ctx, func(tx *store.Tx, row *skyport.Attempt, job *skyport.Job) error {
		if len(spec.Peers) == 0 { // else other nodes may not be ready yet
			if err := markStarting(tx, row); err != nil {
				return err
			}
		}
		if err := tx.NoteJob(job, skyport.EventTransfer, fmt.Sprintf("Inputs uploaded: %s in %d file(s)", moved.Total, moved.Files), &moved); err != nil {
			return err
		}
		return tx.MoveJob(job, skyport.JobTransferring, skyport.DetailsDataUploaded)
	})
	return err == nil, err
}

// starting notes, before it is so, that the start is asked for: a script that may
// have begun must not be taken for one that has not, should its node be lost.
func (a *attempt) starting(ctx context.Context) error {
	if a.noted() {
		return nil
	}
	return a.update(ctx, func(tx *store.Tx, row *skyport.Attempt, _ *skyport.Job) error {
		return markStarting(tx, row)
	})
}

// noted says whether that is written already.
func (a *attempt) noted() bool {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	return a.row.Phase >= skyport.PhaseStarting
}

func markStarting(tx *store.Tx, row *skyport.Attempt) error {
	if row.Phase >= skyport.PhaseStarting {
		return nil
	}
	row.Phase = skyport.PhaseStarting
	return tx.UpdateAttempt(row)
}

// judge fails the job for refusals that no second try mends, and passes on
// what may go over by itself.
func (a *attempt) judge(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errMoved
	}
	if errors.Is(err, gate.ErrPermanent) {
		return a.fail(ctx, withHint(err))
	}
	switch skyport.CodeOf(err) {
	case skyport.CodeInvalid, skyport.CodeConflict, skyport.CodeUnsupported, skyport.CodeTooLarge, skyport.CodeNoSpace,
		skyport.CodeInputUnreadable, skyport.CodeForbidden:
		return a.fail(ctx, err.Error())
	}
	return err
}

// inputs is the source of the job's inputs: what its terminal staged, or paths
// of this machine that admission has allowed.
func (a *attempt) inputs(ctx context.Context, job *skyport.Job) (transfer.Source, error) {
	if len(job.Inputs) == 0 {
		return transfer.ScanInputs(ctx, job.Request.InputFiles)
	}
	depot, err := a.e.Staging(job.Owner)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var sources []transfer.Source
	for _, input := range job.Inputs {
		if seen[input.Manifest] {
			continue
		}
		seen[input.Manifest] = true
		source, err := depot.Source(input.Manifest)
		if err != nil {
			return nil, fmt.Errorf("staged input %s: %w", input.Name, err)
		}
		sources = append(sources, source)
	}
	return transfer.Join(sources...)
}

// runSpec is what the worker is told. It is made of rows alone, so that the
// same run is asked for each time.
func (a *attempt) runSpec(ctx context.Context, v view) (protocol.RunSpec, error) {
	script, err := a.e.Store.Script(ctx, v.row.Job)
	if err != nil {
		return protocol.RunSpec{}, err
	}
	request := v.job.Request
	// Out ports that the job reaches without us need nobody to listen.
	request.Ports = forward.Forwarded(request.Ports, a.e.local(v.partition.Site), a.submissionAddress(&v.job))
	spec := protocol.RunSpec{
		Run: skyport.RunName(v.row.Job, v.row.Number), Job: v.row.Job, Attempt: v.row.Number, Script: script,
		Request: request, Nodes: v.job.NodeNames, Env: environment(&v.job),
		CPUs: v.row.CPUs, Memory: v.row.Memory, GPUs: v.row.GPUs, Address: v.row.Address,
		Grace: skyport.Seconds(a.e.Limits.Grace / time.Second), Peers: peers(v.partition.Nodes),
	}
	err = a.lend(ctx, v, &spec)
	return spec, err
}

// lend adds to a run what opens what its job uses. It is asked for each time, for
// it ends by itself.
func (a *attempt) lend(ctx context.Context, v view, spec *protocol.RunSpec) (err error) {
	request, site := &v.job.Request, v.partition.Site
	if request.ContainerImage != "" && a.e.Registries != nil {
		if spec.Registries, err = a.e.Registries(ctx, v.job.Owner, site, request.ContainerImage); err != nil {
			return fmt.Errorf("logins for the registry of %s: %w", request.ContainerImage, err)
		}
	}
	if request.Storage == "" {
		return nil
	}
	if a.e.Storage == nil {
		return skyport.Errorf(skyport.CodeUnsupported, "site %s has no storage %s", site, request.Storage)
	}
	storage, err := a.e.Storage(ctx, site, request.Storage, storageLife(request))
	if err != nil {
		return fmt.Errorf("open the storage %s of site %s: %w", request.Storage, site, err)
	}
	spec.Storage = &storage
	return nil
}

// storageLife is for how long a job needs its storage: until its end, with some
// time for what comes before. Sites give less where their keys end earlier.
func storageLife(r *skyport.Request) time.Duration {
	const before, longest = 2 * time.Hour, 7 * 24 * time.Hour
	if r.TimeLimit > 0 && r.TimeLimit < skyport.Seconds(longest/time.Second) {
		return time.Duration(r.TimeLimit)*time.Second + before
	}
	return longest
}

// environment is what the contract promises a job, and what the job adds.
func environment(job *skyport.Job) map[string]string {
	r := &job.Request
	ports := make([]string, len(r.Ports))
	for i, p := range r.Ports {
		ports[i] = p.String()
	}
	env := map[string]string{
		"SWM_JOB_ID": string(job.ID), "SWM_JOB_NAME": job.Name, "SWM_JOB_ACCOUNT": job.Account, "SWM_JOB_COMMENT": r.Comment,
		"SWM_JOB_NODES": strings.Join(job.NodeNames, ","), "SWM_JOB_NODES_NUMBER": strconv.Itoa(len(job.NodeNames)),
		"SWM_JOB_INPUT_FILES": strings.Join(r.InputFiles, ","), "SWM_JOB_OUTPUT_FILES": strings.Join(r.OutputFiles, ","),
		"SWM_JOB_PORTS": strings.Join(ports, ","), "SWM_RELOCATABLE": yesNo(r.Relocatable), "SWM_KEEP_RESOURCES": yesNo(r.KeepResources),
		"SWM_CKPT": yesNo(r.Checkpoint), "SWM_CKPT_DIR": r.CheckpointDir, "SWM_CKPT_INTERVAL": strconv.FormatInt(int64(r.CheckpointInterval), 10),
	}
	if job.Address != "" {
		// A job that listens here does not meet others on the same machine.
		env["SWM_JOB_ADDRESS"] = job.Address
	}
	maps.Copy(env, r.Env)
	return env
}

func yesNo(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}

// fetchLogs brings the logs here up to what the status says there is.
func (a *attempt) fetchLogs(ctx context.Context, v view, status protocol.RunStatus) error {
	for stream, size := range map[skyport.LogStream]skyport.Bytes{skyport.Stdout: status.Stdout, skyport.Stderr: status.Stderr} {
		if err := a.fetchLog(ctx, v, stream, int64(size)); err != nil {
			return err
		}
	}
	return nil
}

func (a *attempt) fetchLog(ctx context.Context, v view, stream skyport.LogStream, size int64) error {
	have, err := a.e.Archive.LogSize(v.row.Job, v.row.Number, stream)
	if err != nil {
		return err
	}
	if most := int64(a.e.Limits.JobLog); size > most {
		a.warn(ctx, fmt.Sprintf("only the first %s of %s are kept", a.e.Limits.JobLog, stream))
		size = most
	}
	for have < size {
		var got int64
		err := a.e.Archive.AppendLog(v.row.Job, v.row.Number, stream, func(w io.Writer) (err error) {
			bounded := &boundedWriter{w: w, left: int64(a.e.Limits.JobLog) - have}
			got, err = v.link.Worker().Log(ctx, skyport.RunName(v.row.Job, v.row.Number), string(stream), have, bounded)
			return err
		})
		if err != nil {
			return err
		}
		if got == 0 {
			return nil // the log has shrunk: the job truncated its own file
		}
		have += got
	}
	return nil
}

// boundedWriter drops what is beyond its bound: a node is not trusted to stop.
type boundedWriter struct {
	w    io.Writer
	left int64
}

func (b *boundedWriter) Write(p []byte) (int, error) {
	keep := min(int64(len(p)), max(b.left, 0))
	n, err := b.w.Write(p[:keep])
	b.left -= int64(n)
	if err != nil {
		return n, err //nolint:wrapcheck // the archive says on what
	}
	return len(p), nil
}

// outcome is what came of fetching the outputs.
type outcome struct {
	moved    *skyport.Transfer
	bytes    skyport.Bytes
	warnings []string
}

// write notes the transfer and the warnings on the job.
func (o *outcome) write(tx *store.Tx, job *skyport.Job) error {
	if o.moved != nil {
		text := fmt.Sprintf("Outputs downloaded: %s in %d file(s)", o.moved.Total, o.moved.Files)
		if err := tx.NoteJob(job, skyport.EventTransfer, text, o.moved); err != nil {
			return err
		}
	}
	for _, w := range o.warnings {
		job.Warnings = append(job.Warnings, w)
		if err := tx.NoteJob(job, skyport.EventWarning, w, nil); err != nil {
			return err
		}
	}
	return nil
}

// fetchOutputs downloads the outputs, checked, and keeps their manifest. A
// missing output is a warning; the others arrive.
func (a *attempt) fetchOutputs(ctx context.Context, v view) (outcome, error) {
	dir, err := a.e.Archive.OutputsDir(v.row.Job, v.row.Number)
	if err != nil {
		return outcome{}, err
	}
	var manifest *transfer.Manifest
	worker := v.link.Worker()
	moved, err := transfer.Pull(ctx, worker.HTTP(), worker.OutputsURL(skyport.RunName(v.row.Job, v.row.Number)), dir, transfer.Options{
		Name: "outputs", Attempts: 5, Progress: a.progress(&v),
		Receiver: transfer.ReceiverOptions{Durable: true},
		Manifest: func(m *transfer.Manifest) { manifest = m },
	})
	if err != nil {
		return outcome{}, fmt.Errorf("download the outputs: %w", err)
	}
	if manifest == nil {
		return outcome{}, errors.New("download the outputs: the worker sent no manifest")
	}
	if err := a.e.Archive.SaveManifest(v.row.Job, v.row.Number, manifest); err != nil {
		return outcome{}, err
	}
	came := outcome{moved: &moved, bytes: manifest.Bytes()}
	for _, name := range manifest.Missing {
		came.warnings = append(came.warnings, fmt.Sprintf("the job made no output %s", name))
	}
	came.warnings = append(came.warnings, manifest.Warnings...)
	return came, nil
}

// progress sends live events of a transfer.
func (a *attempt) progress(v *view) func(skyport.Transfer) {
	return func(t skyport.Transfer) {
		a.e.Live(skyport.Event{
			Time: time.Now().UTC(), Kind: skyport.EventProgress, Job: v.row.Job, Owner: v.job.Owner, Attempt: v.row.Number,
			Partition: v.row.Partition, State: string(skyport.JobTransferring), Transfer: &t,
		})
	}
}

// openForwards opens the forwarded ports of the job, once.
func (a *attempt) openForwards(ctx context.Context, v view) error {
	if a.forwards != nil || len(v.job.Request.Ports) == 0 {
		return nil
	}
	run, worker := skyport.RunName(v.row.Job, v.row.Number), v.link.Worker()
	set, err := forward.Open(ctx, forward.Config{
		Address: v.row.Address, Ports: v.job.Request.Ports,
		Connect:           func(ctx context.Context, port int) (net.Conn, error) { return worker.Connect(ctx, run, port) },
		Dial:              v.link.DialMain,
		Accept:            func(ctx context.Context, port int) (net.Conn, error) { return worker.Accept(ctx, run, port) },
		SubmissionAddress: a.submissionAddress(&v.job),
		SharedNetwork:     a.e.local(v.partition.Site),
		Logger:            a.e.log,
	})
	if err != nil {
		return err
	}
	a.e.mu.Lock()
	a.forwards = set
	a.e.mu.Unlock()
	return nil
}

// listening passes on where the job listens.
func (a *attempt) listening(status protocol.RunStatus) {
	if a.forwards == nil {
		return
	}
	// A port that is not in the news is one that nothing listens on any more.
	at := map[int]string{}
	for _, p := range status.Ports {
		at[p.Port] = p.Address
	}
	if err := a.forwards.ListeningAt(at); err != nil {
		a.e.log.Warn("a port of a job cannot be opened", "job", a.job, "error", err)
	}
}

func (a *attempt) closeForwards() {
	a.e.mu.Lock()
	set := a.forwards
	a.forwards = nil
	a.e.mu.Unlock()
	if set == nil {
		return
	}
	if err := set.Close(); err != nil {
		a.e.log.Warn("closing the ports of a job", "job", a.job, "error", err)
	}
}

// submissionAddress is where the job's out ports lead.
func (a *attempt) submissionAddress(job *skyport.Job) string {
	if job.Request.SubmissionAddress != "" {
		return job.Request.SubmissionAddress
	}
	return job.Origin
}

// Ports tells how the forwarded ports of a job are doing.
func (e *Engine) Ports(id skyport.JobID) []forward.PortStatus {
	e.mu.Lock()
	var set *forward.Set
	for _, a := range e.attempts[id] {
		if job := e.jobs[id]; job != nil && isMine(job, &a.row) {
			set = a.forwards
		}
	}
	e.mu.Unlock()
	if set == nil {
		return nil
	}
	return set.Status()
}

// Usage tells what a running job used so far, as the worker said last.
func (e *Engine) Usage(id skyport.JobID) (skyport.Usage, bool) {
	e.mu.Lock()
	var run string
	var p *partition
	for _, a := range e.attempts[id] {
		if job := e.jobs[id]; job != nil && isMine(job, &a.row) {
			run, p = skyport.RunName(id, a.row.Number), e.partitions[a.row.Partition]
		}
	}
	e.mu.Unlock()
	if p == nil {
		return skyport.Usage{}, false
	}
	l := p.linked()
	if l == nil {
		return skyport.Usage{}, false
	}
	status, known := l.Status(run)
	return status.Usage, known && status.Usage.Count > 0
}
