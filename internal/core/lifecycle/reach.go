package lifecycle

import (
	"strings"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/link"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// Reach is the way to the workers of a partition, for who wants to look in.
type Reach struct {
	// Run is the job's run there, "" for a partition as such.
	Run string
	// Nodes of the partition, main first.
	Nodes []skyport.Node
	link  *link.Link
}

// Worker is the client of a node's worker; "" is the main node. CodeNotFound
// says which nodes there are.
func (r Reach) Worker(node string) (*protocol.Client, error) {
	if node == "" {
		return r.link.Worker(), nil
	}
	if worker, known := r.link.Named(node); known {
		return worker, nil
	}
	names := make([]string, len(r.Nodes))
	for i, n := range r.Nodes {
		names[i] = n.Name
	}
	return nil, skyport.Errorf(skyport.CodeNotFound, "there is no node %s", skyport.Abbreviate(node, 80)).
		WithHint("its nodes are %s", strings.Join(names, ", "))
}

// Reach finds the way to the nodes of a job that is on them now. A job that has
// no nodes now is CodeConflict, nodes that do not answer are CodeUnavailable.
func (e *Engine) Reach(id skyport.JobID) (Reach, error) {
	e.mu.Lock()
	job := e.jobs[id]
	var p *partition
	var run string
	for _, a := range e.attempts[id] {
		if job != nil && isMine(job, &a.row) {
			run, p = skyport.RunName(id, a.row.Number), e.partitions[a.row.Partition]
		}
	}
	var state skyport.JobState
	if job != nil {
		state = job.State
	}
	e.mu.Unlock()
	switch {
	case job == nil:
		return Reach{}, skyport.Errorf(skyport.CodeConflict, "job %s is over: it has no nodes any more", id)
	case p == nil:
		return Reach{}, skyport.Errorf(skyport.CodeConflict, "job %s is %s: it has no nodes yet", id, state.Word()).
			WithHint("skyport events -f tells when it runs")
	}
	r, err := p.reach()
	r.Run = run
	return r, err
}

// ReachPartition finds the way to the nodes of a partition.
func (e *Engine) ReachPartition(id skyport.PartitionID) (Reach, error) {
	e.mu.Lock()
	p := e.partitions[id]
	e.mu.Unlock()
	if p == nil {
		return Reach{}, skyport.Errorf(skyport.CodeNotFound, "there is no partition %s now", id)
	}
	return p.reach()
}

// JobsOn lists the jobs that hold a partition now.
func (e *Engine) JobsOn(id skyport.PartitionID) []skyport.Job {
	e.mu.Lock()
	defer e.mu.Unlock()
	var jobs []skyport.Job
	for _, row := range e.attemptsOn(id) {
		if job := e.jobs[row.Job]; job != nil {
			jobs = append(jobs, *job)
		}
	}
	return jobs
}

func (p *partition) reach() (Reach, error) {
	row, l := p.current(), p.linked()
	if l == nil {
		return Reach{}, skyport.Errorf(skyport.CodeUnavailable, "partition %s is %s: its nodes cannot be reached yet", row.Name, row.State)
	}
	if up, _, err := l.Up(); !up {
		return Reach{}, skyport.Errorf(skyport.CodeUnavailable, "the nodes of partition %s do not answer now: %w", row.Name, err)
	}
	return Reach{Nodes: row.Nodes, link: l}, nil
}
