package crash

import (
	"context"
	"os"
	"strings"

	azuretest "github.com/openworkload/skyport/test/azure"
)

// onAzure is Azure: the emulator, whose virtual machines are containers that
// boot as machines do. What is on them is killed as on nodes of the Docker site;
// nodes themselves only die as those of a cloud: it shuts them down, and says so.
type onAzure struct {
	*remote
	cloud *azuretest.Emulator
}

func newAzure(h *house, image string) site {
	r := newRemote(h, image).(*remote)
	machines, err := azuretest.NewDocker(azuretest.DockerOptions{Image: image, NoEngine: true, MaxCPUs: 1, MaxMemory: 512 << 20})
	if err != nil {
		h.t.Fatal(err)
	}
	a := &onAzure{remote: r}
	if a.cloud, err = azuretest.New(azuretest.Options{Machines: machines, Seed: *seed}); err != nil {
		h.t.Fatal(err)
	}
	r.owns = machines.Name()
	r.end = a.cloud.ShutDown
	return a
}

// settings says where the cloud is by the file that the gate reads them from.
func (a *onAzure) settings() []string {
	address, err := ownAddress()
	if err != nil {
		a.h.t.Fatal(err)
	}
	file := a.h.path("gate.yaml")
	text := a.cloud.GateFile("azure", "default_flavor: Standard_D2s_v5", "ssh_from: ["+address+"]")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		a.h.t.Fatal(err)
	}
	return []string{"SWM_LOCAL_ENABLED=false", "SWM_GATE_CONFIG=" + file}
}

func (a *onAzure) script(w *work) (shell string, directives []string, mark string) {
	shell, directives, mark = a.remote.script(w)
	for i, d := range directives {
		directives[i] = strings.Replace(d, "flavor large", "flavor Standard_D4s_v5", 1)
	}
	return shell, directives, mark
}

func (a *onAzure) victims() []victim {
	return []victim{theCore, theGate, aWorker, aShim, aServer, aNode, allAtOnce, machine}
}

func (a *onAzure) remains(ctx context.Context) map[string][]string {
	left := a.remote.remains(ctx)
	for _, r := range a.cloud.Resources() {
		left["resources of the cloud"] = append(left["resources of the cloud"], r.ID)
	}
	return left
}

// cleanUp ends the cloud with its machines; what the engine still has then was
// not the cloud's.
func (a *onAzure) cleanUp() {
	if err := a.cloud.Close(); err != nil {
		a.h.t.Errorf("cloud: %v", err)
	}
	a.remote.cleanUp()
}
