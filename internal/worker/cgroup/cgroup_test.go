package cgroup

import (
	"maps"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, mounts, own string
		want              map[string]hierarchy
	}{
		{
			"unified", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/user.slice/user-1000.slice/session-3.scope\n",
			map[string]hierarchy{unified: {"/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope"}},
		},
		{
			"version 1, joint controllers", "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			"4:cpu,cpuacct:/a\n5:memory:/b/c\n",
			map[string]hierarchy{"cpu": {"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/a"}, "memory": {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/b/c"}},
		},
		{
			"a container's part", "32 23 0:28 /docker/1234 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", "5:memory:/docker/1234\n",
			map[string]hierarchy{"memory": {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory"}},
		},
		{"nonsense", "x\n - \n1 2 3 4 5 -\n", ":\n\n", map[string]hierarchy{}},
	} {
		if got := parse(test.mounts, test.own); !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
