package jobscript

import (
	"slices"

	"github.com/openworkload/skyport"
)

// Keyword describes a directive, for flags and for docs.
type Keyword struct {
	Name       string
	Aliases    []string // other spellings of Name
	Summary    string   // one sentence without a full stop
	Example    string   // a whole line of a script
	Argument   string   // what follows the keyword, such as COUNT or PATH...
	Repeatable bool     // lines add up; any other directive stands at most once
	Switch     bool     // on-off: the bare keyword means yes, Argument is optional
}

// Keywords returns every directive, in the order of the reference. The slice is
// the caller's own.
func Keywords() []Keyword {
	list := make([]Keyword, len(table))
	for i := range table {
		list[i] = table[i].Keyword
		list[i].Aliases = slices.Clone(list[i].Aliases)
	}
	return list
}

// row is a directive with how its argument is read and written.
type row struct {
	Keyword
	argument argument
	// dashed allows a leading -- in a script, as old scripts have it.
	dashed bool
}

// example shows the directive as a line of a script or as a flag.
func (r *row) example(flag bool) string {
	if flag {
		return "--" + r.Example[len(mark)+1:]
	}
	return r.Example
}

// argument is one kind of value: the fields of a request that it fills.
type argument interface {
	// expects says what the value is, for messages.
	expects() string
	// read puts the value into the request of its parser, or reports what is
	// wrong with it.
	read(v value)
	// write returns the values that read back to what the request has; none
	// for a default.
	write(r *skyport.Request) []string
	// clear puts the default back.
	clear(r *skyport.Request)
}

// table is all that is known of directives: parser, formatter, flags and docs
// go by it.
var table = []row{
	{
		Keyword: Keyword{
			Name: "name", Argument: "TEXT",
			Summary: "Name of the job, for people",
			Example: "#SWM name Opticks word count",
		},
		argument: text{"a name", 255, func(r *request) *string { return &r.Name }},
	},
	{
		Keyword: Keyword{
			Name: "comment", Argument: "TEXT",
			Summary: "Free text that is kept with the job",
			Example: "#SWM comment second run, with the corrected input",
		},
		argument: text{"a text", 4096, func(r *request) *string { return &r.Comment }},
	},
	{
		Keyword: Keyword{
			Name: "account", Argument: "NAME",
			Summary: "Account that pays; it also selects the sites where the job may run",
			Example: "#SWM account physics",
		},
		argument: text{"the name of an account", 255, func(r *request) *string { return &r.Account }},
	},
	{
		Keyword: Keyword{
			Name: "site", Argument: "NAME",
			Summary: "Site to run at; without it any site of the account",
			Example: "#SWM site local",
		},
		argument: text{"the name of a site", 255, func(r *request) *string { return &r.Site }},
	},
	{
		Keyword: Keyword{
			Name: "flavor", Argument: "NAME",
			Summary: "Flavor of the nodes; without it the cheapest that fits",
			Example: "#SWM flavor Standard_D4s_v5",
		},
		argument: text{"the name of a flavor", 255, func(r *request) *string { return &r.Flavor }},
	},
	{
		Keyword: Keyword{
			Name: "nodes", Argument: "COUNT",
			Summary: "Number of nodes, 1 to 10000; default 1",
			Example: "#SWM nodes 2",
		},
		argument: count{1, 10_000, 1, func(r *request) *int { return &r.Nodes }},
	},
	{
		Keyword: Keyword{
			Name: "cpus", Argument: "COUNT",
			Summary: "CPUs per node; without it one, or the whole node when a flavor is named",
			Example: "#SWM cpus 4",
		},
		argument: count{1, 10_000, 0, func(r *request) *int { return &r.CPUs }},
	},
	{
		Keyword: Keyword{
			Name: "memory", Argument: "SIZE",
			Summary: "Memory per node: 512M, 4G, 1.5GiB; units are binary, a bare number is MiB",
			Example: "#SWM memory 4G",
		},
		argument: size{func(r *request) *skyport.Bytes { return &r.Memory }},
	},
	{
		Keyword: Keyword{
			Name: "gpus", Argument: "COUNT",
			Summary: "GPUs per node; default 0",
			Example: "#SWM gpus 1",
		},
		argument: count{0, 1024, 0, func(r *request) *int { return &r.GPUs }},
	},
	{
		Keyword: Keyword{
			Name: "max-price", Argument: "PRICE",
			Summary: "Highest price per hour of all nodes together, in the currency of the site",
			Example: "#SWM max-price 2.50",
		},
		argument: price{func(r *request) *float64 { return &r.MaxPrice }},
	},
	{
		Keyword: Keyword{
			Name: "spot", Argument: "[yes|no|prefer]", Switch: true,
			Summary: "Spot nodes: cheaper, and the site takes them back when it wants; prefer: on demand where there are none; default no",
			Example: "#SWM spot prefer",
		},
		argument: spot{},
		dashed:   true,
	},
	{
		Keyword: Keyword{
			Name: "cloud-image", Argument: "NAME",
			Summary: "Image that the nodes boot; without it the site's own choice",
			Example: "#SWM cloud-image ubuntu-24.04",
		},
		argument: text{"the name of an image", 255, func(r *request) *string { return &r.CloudImage }},
	},
	{
		Keyword: Keyword{
			Name: "container-image", Aliases: []string{"image"}, Argument: "IMAGE",
			Summary: "Container image that the script runs in; without it the node itself",
			Example: "#SWM container-image docker.io/library/python:3.13",
		},
		argument: image{func(r *request) *string { return &r.ContainerImage }},
	},
	{
		Keyword: Keyword{
			Name: "time", Argument: "DURATION",
			Summary: "Wall-clock limit of the script: 90 (minutes), 1:30:00, 2-12 (days-hours), 1h30m; 0 for none",
			Example: "#SWM time 1:30:00",
		},
		argument: duration{minute, func(r *request) *skyport.Seconds { return &r.TimeLimit }},
	},
	{
		Keyword: Keyword{
			Name: "priority", Argument: "NUMBER",
			Summary: "Jobs of higher priority start earlier; -10000 to 10000, default 0",
			Example: "#SWM priority 10",
		},
		argument: count{-10_000, 10_000, 0, func(r *request) *int { return &r.Priority }},
	},
	{
		Keyword: Keyword{
			Name: "retries", Argument: "COUNT",
			Summary: "New attempts after a node or a site failed, 0 to 100; default 0",
			Example: "#SWM retries 2",
		},
		argument: count{0, 100, 0, func(r *request) *int { return &r.Retries }},
	},
	{
		Keyword: Keyword{
			Name: "keep-alive", Argument: "DURATION",
			Summary: "How long the partition waits idle for a next job: 10 (minutes), 10m, 1h30m",
			Example: "#SWM keep-alive 10m",
		},
		argument: duration{minute, func(r *request) *skyport.Seconds { return &r.KeepAlive }},
	},
	{
		Keyword: Keyword{
			Name: "keep-resources", Argument: "[yes|no]", Switch: true,
			Summary: "Do not delete the partition at the end",
			Example: "#SWM keep-resources",
		},
		argument: onOff{false, func(r *request) *bool { return &r.KeepResources }},
		dashed:   true,
	},
	{
		Keyword: Keyword{
			Name: "relocatable", Argument: "[yes|no]", Switch: true,
			Summary: "The job may run at a remote site; default yes",
			Example: "#SWM relocatable no",
		},
		argument: onOff{true, func(r *request) *bool { return &r.Relocatable }},
	},
	{
		Keyword: Keyword{
			Name: "input-files", Aliases: []string{"input"}, Argument: "PATH...", Repeatable: true,
			Summary: "Files and directories that land in the work directory under their base names",
			Example: "#SWM input-files data.csv ../models/large 'my notes.txt'",
		},
		argument: inputs{},
	},
	{
		Keyword: Keyword{
			Name: "output-files", Aliases: []string{"output"}, Argument: "PATH...", Repeatable: true,
			Summary: "Files and directories, relative to the work directory, that come back at the end",
			Example: "#SWM output-files result.csv plots",
		},
		argument: outputs{},
	},
	{
		Keyword: Keyword{
			Name: "workdir", Argument: "PATH",
			Summary: "Work directory on the nodes; without it a directory of the job's own",
			Example: "#SWM workdir /data/run1",
		},
		argument: path{"the path of a directory", true, func(r *request) *string { return &r.WorkDir }},
	},
	{
		Keyword: Keyword{
			Name: "stdin", Argument: "PATH",
			Summary: "File for standard input, relative to the work directory; without it there is none",
			Example: "#SWM stdin commands.txt",
		},
		argument: path{"the path of a file", false, func(r *request) *string { return &r.Stdin }},
	},
	{
		Keyword: Keyword{
			Name: "stdout", Argument: "PATH",
			Summary: "File of standard output, relative to the work directory; default stdout.log",
			Example: "#SWM stdout run.log",
		},
		argument: path{"the path of a file", false, func(r *request) *string { return &r.Stdout }},
	},
	{
		Keyword: Keyword{
			Name: "stderr", Argument: "PATH",
			Summary: "File of standard error, relative to the work directory; default stderr.log",
			Example: "#SWM stderr errors.log",
		},
		argument: path{"the path of a file", false, func(r *request) *string { return &r.Stderr }},
	},
	{
		Keyword: Keyword{
			Name: "env", Argument: "NAME=VALUE", Repeatable: true,
			Summary: "A variable for the environment of the script",
			Example: "#SWM env OMP_NUM_THREADS=4",
		},
		argument: environment{},
	},
	{
		Keyword: Keyword{
			Name: "ports", Argument: "PORT[/tcp[/in|out]],...", Repeatable: true,
			Summary: "Ports to forward: in is a port of the job for the user (default), out one at the user's side for the job",
			Example: "#SWM ports 8888/tcp/in,8081/tcp/out",
		},
		argument: ports{},
	},
	{
		Keyword: Keyword{
			Name: "submission-address", Argument: "HOST",
			Summary: "Where out ports lead; default the address that the job was submitted from",
			Example: "#SWM submission-address 192.0.2.10",
		},
		argument: host{func(r *request) *string { return &r.SubmissionAddress }},
	},
	{
		Keyword: Keyword{
			Name: "storage", Argument: "NAME",
			Summary: "Storage of the site to mount on the nodes",
			Example: "#SWM storage scratch",
		},
		argument: text{"the name of a storage", 255, func(r *request) *string { return &r.Storage }},
	},
	{
		Keyword: Keyword{
			Name: "checkpoint", Argument: "[yes|no]", Switch: true,
			Summary: "The application writes checkpoints of its own",
			Example: "#SWM checkpoint",
		},
		argument: onOff{false, func(r *request) *bool { return &r.Checkpoint }},
	},
	{
		Keyword: Keyword{
			Name: "checkpoint-dir", Argument: "PATH",
			Summary: "Directory that the application writes its checkpoints to",
			Example: "#SWM checkpoint-dir /data/checkpoints",
		},
		argument: path{"the path of a directory", true, func(r *request) *string { return &r.CheckpointDir }},
	},
	{
		Keyword: Keyword{
			Name: "checkpoint-interval", Argument: "DURATION",
			Summary: "Time between checkpoints: 300 (seconds), 5m, 0:05:00",
			Example: "#SWM checkpoint-interval 300",
		},
		argument: duration{second, func(r *request) *skyport.Seconds { return &r.CheckpointInterval }},
	},
}

// request is short for the type that every line of the table names.
type request = skyport.Request

// byWord finds a directive by each word that a script may call it by.
var byWord = func() map[string]*row {
	words := make(map[string]*row, 2*len(table))
	for i := range table {
		r := &table[i]
		words[r.Name] = r
		for _, alias := range r.Aliases {
			words[alias] = r
		}
		if r.dashed {
			words["--"+r.Name] = r
		}
	}
	return words
}()
