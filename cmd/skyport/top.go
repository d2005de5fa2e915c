package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

type topOptions struct {
	interval time.Duration
	once     bool
}

func newTopCommand(a *app) *cobra.Command {
	opts := topOptions{interval: 2 * time.Second}
	cmd := &cobra.Command{
		Use:   "top [flags] JOB",
		Short: "Show what a running job uses, live",
		Long: `Show what the nodes of a running job use, and what of it is the job's, every two
seconds until the job ends: the share of all cpus of the node, memory, GPUs,
rates of disk and network; and of the job its cpus (100% is one) and memory. At
a terminal the table stays in its place, elsewhere one follows the other. What a
job used in all tells skyport metrics.

` + jobHelp,
		Example: lines(
			"skyport top @last",
			"skyport top 1a2b --interval 10s",
			"skyport top 1a2b --once --json",
		),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeJob(skyport.JobRunning),
		RunE:              func(cmd *cobra.Command, args []string) error { return runTop(cmd.Context(), a, opts, args[0]) },
	}
	f := cmd.Flags()
	f.DurationVarP(&opts.interval, "interval", "i", opts.interval, "measure over this `TIME`")
	f.BoolVar(&opts.once, "once", false, "show one table and end")
	completeOn(cmd, "interval", cobra.NoFileCompletions)
	return cmd
}

// nodeLoad is one node between two moments, as top prints it for programs.
// Rates are bytes per second.
type nodeLoad struct {
	Time       time.Time          `json:"time"`
	Node       string             `json:"node"`
	Role       skyport.Role       `json:"role"`
	Error      string             `json:"error,omitempty"`
	CPUs       int                `json:"cpus"`
	CPUPercent float64            `json:"cpu_percent"`
	Memory     skyport.Bytes      `json:"memory"`
	MemoryAll  skyport.Bytes      `json:"memory_all"`
	Disk       skyport.Bytes      `json:"disk"`
	DiskAll    skyport.Bytes      `json:"disk_all"`
	DiskRead   skyport.Bytes      `json:"disk_read_rate"`
	DiskWrite  skyport.Bytes      `json:"disk_write_rate"`
	NetIn      skyport.Bytes      `json:"net_in_rate"`
	NetOut     skyport.Bytes      `json:"net_out_rate"`
	GPUs       []skyport.GPUUsage `json:"gpus,omitempty"`
	Job        *skyport.Sample    `json:"job,omitempty"`
}

// leastInterval is how often nodes are asked at most.
const leastInterval = 500 * time.Millisecond

func runTop(ctx context.Context, a *app, opts topOptions, arg string) error {
	if opts.interval < leastInterval || opts.interval > time.Hour {
		return usagef("--interval %s: want %s to 1h", opts.interval, leastInterval)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := findJob(ctx, c, arg)
	if err != nil {
		return err
	}
	before, err := c.Usage(ctx, job.ID)
	if err != nil {
		return err
	}
	t := &topView{a: a, job: job}
	tick := time.NewTicker(opts.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // interrupted
		case <-tick.C:
		}
		now, err := c.Usage(ctx, job.ID)
		if err != nil {
			over, err := jobIsOver(ctx, c, job.ID, err)
			if over {
				a.Err.printf("%s has ended.\n", label(job))
			}
			return err
		}
		if err := t.show(loads(before, now)); err != nil || opts.once {
			return err
		}
		before = now
	}
}

// jobIsOver says whether the nodes could not be asked because the job has
// ended: that is no error.
func jobIsOver(ctx context.Context, c *client.Client, id skyport.JobID, err error) (bool, error) {
	if skyport.CodeOf(err) != skyport.CodeConflict {
		return false, err
	}
	now, again := c.Job(ctx, id)
	if again != nil || !now.State.Terminal() {
		return false, err
	}
	return true, nil
}

// loads compares two moments, node by node.
func loads(before, now skyport.JobUsage) []nodeLoad {
	earlier := map[string]*skyport.NodeUsage{}
	for _, n := range before.Nodes {
		earlier[n.Node] = n.Usage
	}
	all := make([]nodeLoad, 0, len(now.Nodes))
	for _, n := range now.Nodes {
		load := nodeLoad{Node: n.Node, Role: n.Role, Error: n.Error, Job: n.Job}
		if u := n.Usage; u != nil {
			load.Time, load.CPUs, load.GPUs = u.Time, u.CPUs, u.GPUs
			load.Memory, load.MemoryAll, load.Disk, load.DiskAll = u.Memory, u.MemoryAll, u.Disk, u.DiskAll
			if e := earlier[n.Node]; e != nil && u.Time.After(e.Time) {
				seconds := u.Time.Sub(e.Time).Seconds()
				load.CPUPercent = percent(u.CPUBusy-e.CPUBusy, seconds*float64(max(1, u.CPUs)))
				load.DiskRead, load.DiskWrite = rate(e.DiskRead, u.DiskRead, seconds), rate(e.DiskWrite, u.DiskWrite, seconds)
				load.NetIn, load.NetOut = rate(e.NetIn, u.NetIn, seconds), rate(e.NetOut, u.NetOut, seconds)
			}
		}
		all = append(all, load)
	}
	return all
}

// percent is a share between 0 and 100, with one digit: a node that booted
// meanwhile counts anew.
func percent(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return math.Round(min(max(part/whole, 0), 1)*1000) / 10
}

func rate(before, now skyport.Bytes, seconds float64) skyport.Bytes {
	if now < before || seconds <= 0 {
		return 0
	}
	return skyport.Bytes(float64(now-before) / seconds)
}

// topView shows one table after the other.
type topView struct {
	a     *app
	job   skyport.Job
	lines int // of the table that is there, at a terminal
}

func (v *topView) show(all []nodeLoad) error {
	if v.a.JSON {
		return v.a.printJSONLine(all)
	}
	out := v.a.Out
	if out.live && v.lines > 0 {
		out.printf("\x1b[%dA\x1b[J", v.lines)
	}
	counted := &lineCounter{}
	t := loadTable(all)
	shadow := &screen{w: counted, width: out.width, colour: out.colour}
	shadow.printf("%s  %s  %s\n", shadow.paint(bold, label(v.job)), v.job.Site, v.a.Now().Format(time.TimeOnly))
	t.print(shadow)
	for _, n := range all {
		if n.Error != "" {
			shadow.printf("%s %s\n", shadow.paint(yellow, oneLine(n.Node)+":"), oneLine(n.Error))
		}
	}
	if !out.live {
		shadow.printf("\n")
	}
	v.lines = strings.Count(counted.String(), "\n")
	out.printf("%s", counted.String())
	return out.failed()
}

// lineCounter keeps a table until it can be written at once.
type lineCounter struct{ strings.Builder }

func loadTable(all []nodeLoad) *table {
	t := &table{columns: []column{
		{title: "NODE", flex: true},
		{title: "CPU", right: true},
		{title: "CPUS", right: true, rank: 5},
		{title: "MEMORY", right: true},
		{title: "GPU", right: true, rank: 4},
		{title: "DISK", right: true, rank: 6},
		{title: "READ/S", right: true, rank: 3},
		{title: "WRITE/S", right: true, rank: 3},
		{title: "IN/S", right: true, rank: 2},
		{title: "OUT/S", right: true, rank: 2},
		{title: "JOB CPU", right: true, rank: 1},
		{title: "JOB MEM", right: true, rank: 1},
	}}
	for _, n := range all {
		if n.CPUs == 0 && n.Error != "" {
			row := []cell{text(n.Node)}
			for range t.columns[1:] {
				row = append(row, text("-"))
			}
			t.add(row...)
			continue
		}
		cpu, memory := "-", "-"
		if n.Job != nil {
			cpu, memory = fmt.Sprintf("%.0f%%", n.Job.CPU), n.Job.Memory.String()
		}
		t.add(text(n.Node), cell{fmt.Sprintf("%.0f%%", n.CPUPercent), loadStyle(n.CPUPercent)}, text(fmt.Sprint(n.CPUs)),
			cell{ofAll(n.Memory, n.MemoryAll), loadStyle(percent(float64(n.Memory), float64(n.MemoryAll)))}, text(gpuText(n.GPUs)),
			text(ofAll(n.Disk, n.DiskAll)), text(n.DiskRead.String()), text(n.DiskWrite.String()),
			text(n.NetIn.String()), text(n.NetOut.String()), text(cpu), text(memory))
	}
	return t
}

func ofAll(used, all skyport.Bytes) string { return used.String() + " / " + all.String() }

// gpuText is how busy the GPUs of a node are, one after the other, and their memory.
func gpuText(gpus []skyport.GPUUsage) string {
	if len(gpus) == 0 {
		return "-"
	}
	var memory skyport.Bytes
	busy := make([]string, len(gpus))
	for i, g := range gpus {
		busy[i] = fmt.Sprintf("%.0f%%", g.Busy)
		memory += g.Memory
	}
	return strings.Join(busy, " ") + " " + memory.String()
}

func loadStyle(percent float64) style {
	switch {
	case percent >= 95:
		return red
	case percent >= 50:
		return green
	}
	return ""
}
