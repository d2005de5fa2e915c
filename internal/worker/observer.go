package worker

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// observer looks at the processes of all running runs: what they use, once a
// second, and where they listen, more often while a port is awaited. One look
// at the process table serves all. It rests while nothing runs.
type observer struct {
	w    *Worker
	wake chan struct{} // holds one: a run began or ended
}

func newObserver(w *Worker) *observer { return &observer{w: w, wake: make(chan struct{}, 1)} }

func (o *observer) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

const samplePeriod = time.Second

func (o *observer) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var sampled time.Time // monotonic
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		case <-timer.C:
		}
		running := o.w.running()
		if len(running) == 0 {
			timer.Stop()
			continue
		}
		look := &look{}
		now := time.Now()
		if now.Sub(sampled) >= samplePeriod {
			sampled = now
			for _, r := range running {
				r.sample(look.table())
			}
		}
		next := samplePeriod - time.Since(sampled)
		if wait := findPorts(running, look, now); wait > 0 {
			next = min(next, wait)
		}
		timer.Reset(max(next, time.Millisecond))
	}
}

// look is one look at the process table, taken when first asked for.
type look struct{ snapshot *proc.Table }

func (l *look) table() *proc.Table {
	if l.snapshot == nil {
		table, err := proc.Snapshot()
		if err != nil {
			table = &proc.Table{} // /proc is gone: nothing to be seen
		}
		l.snapshot = table
	}
	return l.snapshot
}

// sample measures the run's tree.
func (r *run) sample(table *proc.Table) {
	r.change(func(s *protocol.RunStatus) {
		if s.State != protocol.RunRunning || r.began.PID == 0 && len(r.beside) == 0 && len(r.record.samples) == 0 {
			return
		}
		now := time.Now()
		if now.Sub(r.began.Time) < samplePeriod/2 && len(r.record.samples) == 0 {
			return // too little to be told from nothing
		}
		cpu, memory := r.use(table)
		r.record.look(now, r.began.Time, cpu, skyport.Bytes(memory))
		s.Usage = r.record.usage(0)
		r.readLogs(s) // growth that the kernel did not tell, as on a network file system
		if err := r.record.save(r.path(metricsFile), now); err != nil {
			r.log.Warn("samples are not saved", "error", err)
		}
	})
}

// use sums up the run's processes, and those of the commands beside its script.
// Those of a container are nobody's children of ours; what stands for it is no
// use of the run's. r.mu is held.
func (r *run) use(table *proc.Table) (cpu time.Duration, memory int64) {
	if first := r.firstInside(table); first > 0 {
		cpu, memory = tree(table, first)
	} else if r.began.PID > 0 {
		cpu, memory = table.Tree(r.began.PID)
	}
	for pid, seen := range r.beside {
		if row, ok := table.Process(pid); !ok || row.Parent != os.Getpid() {
			r.over += seen
			delete(r.beside, pid)
			continue
		}
		c, m := tree(table, pid)
		r.beside[pid] = max(seen, c)
		cpu, memory = cpu+r.beside[pid], memory+m
	}
	return cpu + r.over, memory
}

// tree sums up a process and its descendants.
func tree(table *proc.Table, pid int) (cpu time.Duration, memory int64) {
	row, _ := table.Process(pid)
	cpu, memory = table.Tree(pid) // what it has reaped is in it
	return cpu + row.CPU, memory + row.Memory
}

// firstInside returns the first process of the run's container, or 0.
func (r *run) firstInside(table *proc.Table) int {
	var c shim.Container
	if r.spec.Request.ContainerImage == "" || shim.Read(r.dir, shim.ContainerFile, &c) != nil || c.PID == 0 {
		return 0
	}
	if row, ok := table.Process(c.PID); !ok || row.Start != c.Start {
		return 0
	}
	return c.PID
}

// findPorts looks where runs listen for their in ports. It returns how long
// to wait until the next look, or 0 when the sampler's pace is enough.
func findPorts(running []*run, look *look, now time.Time) time.Duration {
	var ports []int
	for _, r := range running {
		ports = append(ports, r.inPorts...)
	}
	if len(ports) == 0 {
		return 0
	}
	listeners, err := proc.Listeners(ports)
	if err != nil {
		return 0 // the next look may do
	}
	var wait time.Duration
	for _, r := range running {
		if len(r.inPorts) == 0 {
			continue
		}
		if open := r.matchPorts(listeners, look); open {
			continue
		}
		age := now.Sub(r.beganAt())
		pace := 250 * time.Millisecond
		switch {
		case age < 3*time.Second:
			pace = 10 * time.Millisecond
		case age < time.Minute:
			pace = 50 * time.Millisecond
		}
		if wait == 0 || pace < wait {
			wait = pace
		}
	}
	return wait
}

// matchPorts finds out which of the listeners belong to the run, and says
// whether each of its in ports has one.
func (r *run) matchPorts(listeners []proc.Listener, look *look) bool {
	r.mu.Lock()
	known, pid, beside := r.sockets, r.began.PID, slices.Collect(maps.Keys(r.beside))
	r.mu.Unlock()

	found := make(map[int]proc.Listener, len(r.inPorts))
	var inodes []uint64 // of the run's processes, read when a listener is new
	for _, port := range r.inPorts {
		for _, l := range listeners {
			if int(l.Address.Port()) != port {
				continue
			}
			if old, ok := known[port]; !ok || old.Inode != l.Inode {
				if inodes == nil {
					inodes = append(inodes, 0)
					if first := r.firstInside(look.table()); first > 0 {
						pid = first
					}
					for _, p := range look.table().Descendants(pid) {
						inodes = append(inodes, proc.Sockets(p)...)
					}
					for _, command := range beside {
						for _, p := range append(look.table().Descendants(command), command) {
							inodes = append(inodes, proc.Sockets(p)...)
						}
					}
				}
				if !slices.Contains(inodes, l.Inode) {
					continue
				}
			}
			if best, ok := found[port]; !ok || rank(l.Address.Addr()) < rank(best.Address.Addr()) {
				found[port] = l
			}
		}
	}
	r.change(func(s *protocol.RunStatus) {
		if s.State != protocol.RunRunning {
			return
		}
		r.sockets = found
		ports := make([]protocol.PortStatus, 0, len(r.inPorts))
		for _, port := range r.inPorts {
			if l, ok := found[port]; ok {
				ports = append(ports, protocol.PortStatus{Port: port, Address: l.Address.Addr().String()})
			}
		}
		s.Ports = ports
		if len(ports) == 0 {
			s.Ports = nil
		}
	})
	return len(found) == len(r.inPorts)
}

// rank orders the addresses that a job may listen on: the one told is the one
// that answers most widely.
func rank(addr netip.Addr) int {
	switch {
	case addr.IsUnspecified() && addr.Is4():
		return 0
	case addr.IsUnspecified():
		return 1
	case addr.IsLoopback() && addr.Is4():
		return 2
	default:
		return 3
	}
}
