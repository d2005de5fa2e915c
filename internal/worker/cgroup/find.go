package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Find looks for a place where this process may make groups: beside or below
// its own, so that limits set by an administrator go on to hold. It makes and
// removes an empty group to be sure.
func Find() Base {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Base{Reason: err.Error()}
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Base{Reason: err.Error()}
	}
	hierarchies := parse(string(mounts), string(own))
	if base, ok := findV2(hierarchies[unified]); ok {
		return base
	}
	base := Base{Version: 1}
	base.CPU = findV1(hierarchies["cpu"])
	base.Memory = findV1(hierarchies["memory"])
	if base.CPU == "" || base.Memory == "" {
		base.Reason = "this user may not make cgroups here"
	}
	return base
}

// unified is the name under which parse returns the version 2 hierarchy.
const unified = ""

// hierarchy is a mounted cgroup file system and this process's place in it.
type hierarchy struct{ mount, own string }

// parse joins mountinfo and cgroup of a process to one hierarchy per controller.
func parse(mountinfo, cgroups string) map[string]hierarchy {
	own := map[string]string{}
	for line := range strings.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			own[controller] = parts[2]
		}
	}
	found := map[string]hierarchy{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(tail) < 3 {
			continue
		}
		root, mount := fields[3], fields[4]
		place := func(controller string) hierarchy {
			// A cgroup namespace shows a part of the hierarchy as its root.
			path := strings.TrimPrefix(own[controller], strings.TrimSuffix(root, "/"))
			return hierarchy{mount: mount, own: filepath.Join(mount, filepath.Clean("/"+path))}
		}
		switch tail[0] {
		case "cgroup2":
			found[unified] = place(unified)
		case "cgroup":
			for controller := range strings.SplitSeq(tail[2], ",") {
				if controller == "cpu" || controller == "memory" {
					found[controller] = place(controller)
				}
			}
		}
	}
	return found
}

// findV2 walks up from the own group: a group with processes in it cannot
// have limited children, one of its ancestors can. Root may switch the
// controllers on at the very top.
func findV2(h hierarchy) (Base, bool) {
	if h.mount == "" {
		return Base{}, false
	}
	for dir := h.own; len(dir) >= len(h.mount); dir = filepath.Dir(dir) {
		if dir == h.mount && os.Geteuid() == 0 {
			// Fails where somebody else manages the top; the probe tells.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+cpu +memory"), 0o600)
		}
		probe, ok := try(dir)
		if !ok {
			continue
		}
		controllers, err := os.ReadFile(filepath.Join(probe, "cgroup.controllers"))
		_ = os.Remove(probe)
		if err != nil {
			continue
		}
		names := strings.Fields(string(controllers))
		base := Base{Version: 2}
		if slices.Contains(names, "cpu") {
			base.CPU = dir
		}
		if slices.Contains(names, "memory") {
			base.Memory = dir
		}
		if base.Memory == "" {
			continue
		}
		if base.CPU == "" {
			base.Reason = "the cpu controller is not delegated to this user"
		}
		return base, true
	}
	return Base{}, false
}

func findV1(h hierarchy) string {
	if h.mount == "" {
		return ""
	}
	for _, dir := range []string{h.own, h.mount} {
		if probe, ok := try(dir); ok {
			_ = os.Remove(probe) // empty, made a moment ago
			return dir
		}
	}
	return ""
}

func try(dir string) (string, bool) {
	probe := filepath.Join(dir, fmt.Sprintf("skyport-probe-%d", os.Getpid()))
	err := os.Mkdir(probe, 0o755) //nolint:gosec // the kernel decides the modes of its files
	return probe, err == nil
}
