package proc

import (
	"slices"
	"testing"
)

// A process whose parent ended while the table was read is still one of the
// processes: whoever must reach them all relies on it.
func TestProcessesOfVanishedParent(t *testing.T) {
	t.Parallel()
	table := &Table{
		rows:     map[int]Process{1: {PID: 1}, 7: {PID: 7, Parent: 5}},
		children: map[int][]int{0: {1}, 5: {7}},
	}
	if got := table.Descendants(0); slices.Contains(got, 7) {
		t.Errorf("descendants of 0: %v", got)
	}
	if got, want := table.Processes(), []int{1, 7}; !slices.Equal(got, want) {
		t.Errorf("processes %v, not %v", got, want)
	}
}
