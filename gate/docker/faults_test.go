package docker_test

import (
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/docker"
)

func TestParseFaults(t *testing.T) {
	t.Parallel()
	size := func(string) (skyport.Bytes, error) { return 64 << 20, nil }
	got, err := docker.ParseFaults("never-boot, boot-delay=10s,die-after=1m,disk=64MiB,node-fails=2,create-fails=3,delete-fails=4,create-refused", size)
	want := docker.Faults{
		NeverBoot: true, BootDelay: 10 * time.Second, DieAfter: time.Minute, Disk: 64 << 20, NodeFails: 2,
		CreateFails: 3, DeleteFails: 4, CreateRefused: true,
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if got, err := docker.ParseFaults("", size); err != nil || got != (docker.Faults{}) {
		t.Errorf("nothing: %+v, %v", got, err)
	}
	for _, wrong := range []string{"die", "boot-delay", "boot-delay=soon", "node-fails=x"} {
		if _, err := docker.ParseFaults(wrong, size); skyport.CodeOf(err) != skyport.CodeInvalid || skyport.HintOf(err) == "" {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
