package worker_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// example is a file of the examples, wherever the test runs.
func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Real launchers of MPI find the nodes in their environment and start what they
// need there by swm-rsh.
func TestMPI(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, needs, text, want string }{
		{
			"Open MPI", "mpirun.openmpi --version && /usr/bin/python3 -c 'import mpi4py'",
			"mpirun.openmpi /usr/bin/python3 " + example(t, "mpi/ring.py"), "4 ranks in 2 places, the token came back as 6",
		},
		{
			"MPICH", "mpiexec.hydra -version", // It hands on its own environment; that of the node is its proxy's.
			`mpiexec.hydra -n 4 sh -c 'tr "\0" "\n" < /proc/$PPID/environ | grep SWM_JOB_HOSTFILE' | sort | uniq -c | awk '{print $1}'`, "2\n2",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if exec.Command("sh", "-c", test.needs).Run() != nil {
				t.Skipf("needs %s: this fails: %s", test.name, test.needs)
			}
			a, _, spec := cluster(t, waits)
			spec.Env["OMPI_ALLOW_RUN_AS_ROOT"], spec.Env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1", "1"
			a.runs(spec)
			if s := a.call(sh(spec.Run, "timeout 100 "+test.text), ""); s.exit.Code != 0 || strings.TrimSpace(s.out) != test.want {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Tasks meet at the address and port in their environment, as torchrun's do.
func TestRendezvous(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	a, _, spec := cluster(t, waits)
	a.runs(spec)
	s := a.call(sh(spec.Run, "swm-task --ntasks-per-node 2 -k python3 "+example(t, "rendezvous/meet.py")), "")
	lines := strings.Split(strings.TrimSpace(s.out), "\n")
	slices.Sort(lines)
	if s.exit.Code != 0 || len(lines) != 4 || lines[3] != "rank 3 of 4: the sum is 14" {
		t.Errorf("%+v", s)
	}
}
