package ssh

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/openworkload/skyport"
)

// library is what scripts on hosts are made of.
//
//go:embed host.sh
var library string

// assignment is a variable of a script.
type assignment struct{ name, value string }

// script lets one operation of the library run. Values travel within it, on
// standard input: no list of processes shows them.
func script(operation string, variables ...assignment) string {
	var head strings.Builder
	for _, v := range variables {
		fmt.Fprintf(&head, "%s='%s'\n", v.name, strings.ReplaceAll(v.value, "'", `'\''`))
	}
	var s strings.Builder
	s.WriteString(head.String())
	if operation == "claim" {
		const end = "SKYPORT_WATCHDOG_ENDS"
		fmt.Fprintf(&s, "write_watchdog() {\ncat <<'%s'\n", end)
		for _, v := range variables {
			if v.name == "BASE" || v.name == "ID" || v.name == "NODE" {
				fmt.Fprintf(&s, "%s='%s'\n", v.name, v.value)
			}
		}
		fmt.Fprintf(&s, "%s\nwatch\n%s\n}\n", library, end)
	}
	s.WriteString(library)
	// The rest of standard input is nobody's.
	s.WriteString("\n" + operation + " </dev/null\nexit 0\n")
	return s.String()
}

// look is what a host says of itself.
type look struct {
	home, base string
	skew       time.Duration // how far its clock is ahead of ours
	claimed    bool          // by somebody
	claim      claim         // zero when it cannot be read
	lease      time.Time
	ready      bool
	deleting   bool
	taken      bool // a claim found another one there
	left       bool // a directory of the partition in question is there
}

// has says whether a partition has the host.
func (l *look) has(id skyport.PartitionID) bool { return l.claimed && l.claim.Partition == id }

// dir is the partition's directory on the host.
func (l *look) dir(id skyport.PartitionID) string { return l.base + "/" + string(id) }

// parseLook reads the answer of a script.
func parseLook(answer string, now time.Time) (look, error) {
	var l look
	complete := false
	for line := range strings.Lines(answer) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch word {
		case "error":
			return l, skyport.Errorf(skyport.CodeUnavailable, "%s", plain(rest))
		case "home":
			l.home = rest
		case "base":
			l.base = rest
		case "now":
			if seconds, err := strconv.ParseInt(rest, 10, 64); err == nil {
				l.skew = time.Unix(seconds, 0).Sub(now)
			}
		case "claim":
			l.claimed = true
			var c claim
			if json.Unmarshal([]byte(rest), &c) == nil && c.valid() {
				l.claim = c
			}
		case "lease":
			if seconds, err := strconv.ParseInt(rest, 10, 64); err == nil {
				l.lease = time.Unix(seconds, 0).UTC()
			}
		case "ready":
			l.ready = true
		case "deleting":
			l.deleting = true
		case "taken":
			l.taken = true
		case "left":
			l.left = true
		case "end":
			complete = true
		}
	}
	if !complete || !pathPattern.MatchString(l.base) {
		return l, skyport.Errorf(skyport.CodeUnavailable, "the answer is cut off or none of ours: %q", skyport.Abbreviate(answer, 200))
	}
	return l, nil
}

// valid says whether a claim fits together: hosts are not believed blindly.
func (c *claim) valid() bool {
	r := &c.Record
	if c.Partition != r.Spec.ID || len(r.Hosts) != len(r.Spec.Nodes) || c.Index < 0 || c.Index >= len(r.Hosts) || r.Version > recordVersion {
		return false
	}
	_, err := checkSpec(&r.Spec)
	return err == nil && r.Spec.Nodes[c.Index] == c.NodeName
}

// facts are the size of a host and what it has.
type facts struct {
	CPUs    int           `json:"cpus"`
	Memory  skyport.Bytes `json:"memory"`
	GPUs    int           `json:"gpus"`
	Storage skyport.Bytes `json:"storage"`
	Arch    string        `json:"arch"`
	Engine  string        `json:"engine"`
	System  string        `json:"system"`
}

func parseFacts(answer string) (facts, error) {
	var f facts
	complete := false
	number := func(text string) int64 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n > 1<<50 {
			return 0
		}
		return n
	}
	for line := range strings.Lines(answer) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch word {
		case "cpus":
			f.CPUs = int(number(rest))
		case "memory":
			f.Memory = skyport.Bytes(number(rest) << 10)
		case "gpus":
			f.GPUs = int(number(rest))
		case "storage":
			f.Storage = skyport.Bytes(number(rest) << 10)
		case "arch":
			f.Arch = goArch(plain(rest))
		case "system":
			f.System = plain(rest)
		case "engine":
			f.Engine = plain(rest)
		case "end":
			complete = true
		}
	}
	if !complete || f.CPUs < 1 || f.Memory < 1 {
		return f, skyport.Errorf(skyport.CodeUnavailable, "its size cannot be told: %q", skyport.Abbreviate(answer, 200))
	}
	return f, nil
}

var unprintable = regexp.MustCompile(`[^ -~]+`)

// plain makes what a host said fit for people's terminals.
func plain(text string) string {
	return skyport.Abbreviate(unprintable.ReplaceAllString(text, "?"), 300)
}

// goArch is Go's word for what uname -m says.
func goArch(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return machine
}
