package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	"go.yaml.in/yaml/v3"

	"github.com/openworkload/skyport"
)

// cdiKind is the kind of devices that a GPU is asked for by.
const cdiKind = "nvidia.com/gpu"

// cdiVersion is the engine's API since which it knows CDI.
const cdiVersion = "1.44"

// cdiDirs are where specifications of devices lie, the later ones counting more.
var cdiDirs = []string{"/etc/cdi", "/var/run/cdi"}

// cdiDevices lists the GPUs that the node's specifications name by number.
func cdiDevices(dirs []string) (indexes []int) {
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			var spec struct {
				Kind    string `json:"kind" yaml:"kind"`
				Devices []struct {
					Name string `json:"name" yaml:"name"`
				} `json:"devices" yaml:"devices"`
			}
			data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil {
				continue
			}
			switch filepath.Ext(entry.Name()) {
			case ".json":
				err = json.Unmarshal(data, &spec)
			case ".yaml", ".yml":
				err = yaml.Unmarshal(data, &spec)
			default:
				continue
			}
			if err != nil || spec.Kind != cdiKind {
				continue
			}
			for _, device := range spec.Devices {
				if n, err := strconv.Atoi(device.Name); err == nil && !slices.Contains(indexes, n) {
					indexes = append(indexes, n)
				}
			}
		}
	}
	slices.Sort(indexes)
	return indexes
}

// gpuNode is what the node has to offer.
type gpuNode struct {
	version string // of the engine's API
	podman  bool
	cdi     []int // numbers of the GPUs by CDI
	nvidia  bool  // the engine has NVIDIA's own runtime
	devices []int // numbers of the devices /dev/nvidiaN
}

// lookForGPUs finds out what the node has.
func lookForGPUs(e *engine) gpuNode {
	n := gpuNode{version: e.api.ClientVersion(), podman: e.podman, cdi: cdiDevices(cdiDirs)}
	_, n.nvidia = e.info.Runtimes["nvidia"]
	if _, err := exec.LookPath("nvidia-container-runtime-hook"); err == nil {
		n.nvidia = true
	}
	paths, _ := filepath.Glob("/dev/nvidia[0-9]*") // the pattern is right
	for _, path := range paths {
		if i, err := strconv.Atoi(strings.TrimPrefix(path, "/dev/nvidia")); err == nil {
			n.devices = append(n.devices, i)
		}
	}
	slices.Sort(n.devices)
	return n
}

// request asks the engine for so many GPUs that no other run has, and returns
// their numbers.
func (n gpuNode) request(count int, taken []int) (container.DeviceRequest, []string, error) {
	byCDI := len(n.cdi) > 0 && (n.podman || versions.GreaterThanOrEqualTo(n.version, cdiVersion))
	all := n.devices
	if byCDI {
		all = n.cdi
	}
	var free []string
	for _, i := range all {
		if !slices.Contains(taken, i) {
			free = append(free, strconv.Itoa(i))
		}
	}
	if (!byCDI && !n.nvidia) || len(all) < count {
		return container.DeviceRequest{}, nil, skyport.Errorf(skyport.CodeUnsatisfiable,
			"the job asks for %s, and the node's container engine can give none: %s", plural(count, "GPU"), n.found()).
			WithHint("install the NVIDIA driver and nvidia-container-toolkit in the node's image (nvidia-ctk cdi generate), or choose a flavor with GPUs")
	}
	if len(free) < count {
		return container.DeviceRequest{}, nil, skyport.Errorf(skyport.CodeUnsatisfiable,
			"the job asks for %s, and of the node's %d only %d are free", plural(count, "GPU"), len(all), len(free))
	}
	free = free[:count]
	if !byCDI {
		return container.DeviceRequest{Driver: "nvidia", DeviceIDs: free, Capabilities: [][]string{{"gpu"}}}, free, nil
	}
	request := container.DeviceRequest{Driver: "cdi"}
	for _, i := range free {
		request.DeviceIDs = append(request.DeviceIDs, cdiKind+"="+i)
	}
	return request, free, nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// found says for people what was found of GPUs.
func (n gpuNode) found() string {
	var said []string
	switch {
	case len(n.cdi) == 0:
		said = append(said, "no device "+cdiKind+" in "+strings.Join(cdiDirs, " and "))
	case n.podman || versions.GreaterThanOrEqualTo(n.version, cdiVersion):
		said = append(said, fmt.Sprintf("%s by CDI", plural(len(n.cdi), "device")))
	default:
		said = append(said, fmt.Sprintf("%s by CDI, which its API %s does not know (%s does)", plural(len(n.cdi), "device"), n.version, cdiVersion))
	}
	if !n.nvidia {
		said = append(said, "no nvidia runtime")
	}
	return strings.Join(append(said, plural(len(n.devices), "device")+" /dev/nvidia…"), ", ")
}

// takenGPUs lists the GPUs of the containers of all workers on this engine.
func takenGPUs(ctx context.Context, api *client.Client) ([]int, error) {
	list, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", labelGPUs)})
	if err != nil {
		return nil, fmt.Errorf("look for GPUs in use: %w", plain(err))
	}
	var taken []int
	for _, item := range list.Items {
		for number := range strings.SplitSeq(item.Labels[labelGPUs], ",") {
			if i, err := strconv.Atoi(number); err == nil {
				taken = append(taken, i)
			}
		}
	}
	return taken, nil
}
