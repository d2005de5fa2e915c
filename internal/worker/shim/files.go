package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/openworkload/skyport/internal/worker/cgroup"
)

// The files of a run's directory; see the package comment.
const (
	LaunchFile = "launch.json"
	LockFile   = "shim.lock"
	BeganFile  = "began"
	StopFile   = "stop"
	ExitFile   = "exit.json"
	// ResultFile and ContainerFile are there for runs in containers only.
	ResultFile    = "result.json"
	ContainerFile = "container.json"
	// LogFile is where a shim's own complaints go.
	LogFile = "shim.log"
)

// Launch is what a shim executes and the limits that it keeps.
type Launch struct {
	Argv   []string `json:"argv"`
	Env    []string `json:"env"`
	Dir    string   `json:"dir"`
	Stdin  string   `json:"stdin"`
	Stdout string   `json:"stdout"`
	Stderr string   `json:"stderr"`
	// TimeLimit is how long the script may run; 0: for ever.
	TimeLimit time.Duration `json:"time_limit,omitempty"`
	// Grace is how long the tree is given between TERM and KILL.
	Grace time.Duration `json:"grace"`
	// CPUs and Memory (bytes) are the limits; 0: none.
	CPUs   int   `json:"cpus,omitempty"`
	Memory int64 `json:"memory,omitempty"`
	// Base and Group say where the cgroup of the limits is made.
	Base  cgroup.Base `json:"base,omitzero"`
	Group string      `json:"group,omitempty"`
	// Contained says that the command stands for a container: it passes TERM on
	// and ends it at KillSignal, leaves a Result, and is started again when it
	// ended without one. Enforced says for people which limits the engine keeps.
	Contained bool   `json:"contained,omitempty"`
	Enforced  string `json:"enforced,omitempty"`
}

// Result is how a container ended, written by the command that stood for it.
type Result struct {
	// Refused says why the script was not started; then the rest means nothing.
	Refused    string  `json:"refused,omitempty"`
	ExitCode   int     `json:"exit_code"`
	Signal     int     `json:"signal"`
	OutOfMem   bool    `json:"out_of_memory,omitempty"`
	PeakMemory int64   `json:"peak_memory"`
	CPUSeconds float64 `json:"cpu_seconds"`
	Lost       bool    `json:"lost,omitempty"` // as in Exit
	Note       string  `json:"note,omitempty"`
}

// Container tells which container is a run's, while there is one.
type Container struct {
	ID string `json:"id"`
	// PID and Start are those of its first process, as this node sees it; 0 when it
	// does not run yet, or cannot be seen.
	PID   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"`
}

// Began tells who runs the script.
type Began struct {
	BootID string `json:"boot_id"`
	PID    int    `json:"pid"`   // of the shim
	Start  uint64 `json:"start"` // of the shim, see proc.Process
	// Time is when the script was about to start.
	Time time.Time `json:"time"`
	// Limits says for people which limits are in force and how.
	Limits string `json:"limits,omitempty"`
}

// Exit tells how a run ended.
type Exit struct {
	// Refused says why the script was not started; then the rest means nothing.
	Refused  string    `json:"refused,omitempty"`
	ExitCode int       `json:"exit_code"`
	Signal   int       `json:"signal"`
	Started  time.Time `json:"started,omitzero"` // zero when it was stopped before
	Ended    time.Time `json:"ended"`
	TimedOut bool      `json:"timed_out,omitempty"`
	OutOfMem bool      `json:"out_of_memory,omitempty"`
	Stopped  bool      `json:"stopped,omitempty"`
	// PeakMemory is the highest memory use in bytes, as well as it is known.
	PeakMemory int64 `json:"peak_memory"`
	// CPUSeconds is the cpu time of the whole tree.
	CPUSeconds float64 `json:"cpu_seconds"`
	// Lost says that neither the script, nor a limit, nor a request ended it, but the
	// node: by its own end, for instance. Note tells how.
	Lost bool `json:"lost,omitempty"`
	// Note is for people, such as processes that could not be killed.
	Note string `json:"note,omitempty"`
}

// Read reads one of the JSON files of a run's directory into v. The error
// matches os.ErrNotExist when it is not there yet.
func Read(dir, name string, v any) error {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("read %s of run %s: %w", name, filepath.Base(dir), err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s of run %s: %w", name, filepath.Base(dir), err)
	}
	return nil
}

// Write writes one of the JSON files of a run's directory: either all of it is
// there under its name, or nothing.
func Write(dir, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s of run %s: %w", name, filepath.Base(dir), err)
	}
	path := filepath.Join(dir, name)
	if err := errors.Join(overwrite(path+".tmp", data), os.Rename(path+".tmp", path)); err != nil {
		return fmt.Errorf("write %s of run %s: %w", name, filepath.Base(dir), err)
	}
	return nil
}

// reserved is the size that Reserve makes; records are smaller.
const reserved = 4096

// Reserve makes room for a later Write of a record, so that it succeeds on a
// disk that has become full.
func Reserve(dir, name string) error {
	blanks := make([]byte, reserved)
	for i := range blanks {
		blanks[i] = ' '
	}
	if err := os.WriteFile(filepath.Join(dir, name+".tmp"), blanks, 0o600); err != nil {
		return fmt.Errorf("reserve %s of run %s: %w", name, filepath.Base(dir), err)
	}
	return nil
}

// overwrite writes without truncating first: blocks that Reserve took stay
// taken. What is left of the blanks is valid JSON.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // Write wraps
	}
	_, err = f.Write(data)
	if info, statErr := f.Stat(); statErr == nil && info.Size() != reserved && info.Size() > int64(len(data)) {
		err = errors.Join(err, f.Truncate(int64(len(data)))) // of a write that was cut off
	}
	return errors.Join(err, f.Close())
}

// Exists says whether a file of a run's directory is there.
func Exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}
