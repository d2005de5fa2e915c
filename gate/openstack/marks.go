package openstack

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/openworkload/skyport/gate/cloud"
)

// Marks of ours beside the tags.
const (
	markNode   = "skyport-node"   // which node a server, port or volume belongs to: 0 is main
	markHost   = "skyport-host"   // the node's name
	markPublic = "skyport-public" // "yes": main was meant to have a floating address
	markMade   = "skyport-made"   // "yes": all was there once
)

// A description is "skyport: owner=…;partition=…", names without the prefix
// "skyport-". It has room for 255 characters, in every kind of thing:
// https://docs.openstack.org/api-ref/network/v2/#standard-attributes-description
const (
	descriptionIs   = "skyport: "
	descriptionRoom = 255
	prefix          = "skyport-"
)

// order is what must be in a description, then what may be left out when there
// is no room: job, user and extra tags are for people, and servers have them.
var order = []string{
	cloud.TagPartition, cloud.TagOwner, cloud.TagDeleteAt, cloud.TagCondemned, cloud.TagNodes, markNode, markPublic, markMade,
	cloud.TagFingerprint, cloud.TagJob, cloud.TagUser,
}

// describe writes marks into a description of at most room bytes.
func describe(marks map[string]string, room int) string {
	names := slices.Clone(order)
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		if !slices.Contains(order, name) && name != markHost {
			names = append(names, name)
		}
	}
	text := descriptionIs
	for _, name := range names {
		value, ok := marks[name]
		if !ok || value == "" {
			continue
		}
		part := strings.TrimPrefix(name, prefix) + "=" + escape(value)
		if len(text) > len(descriptionIs) {
			part = ";" + part
		}
		if len(text)+len(part) <= room {
			text += part
		}
	}
	return text
}

// undescribe reads marks from a description; nil when it is not ours.
func undescribe(text string) map[string]string {
	rest, ours := strings.CutPrefix(text, descriptionIs)
	if !ours {
		return nil
	}
	marks := map[string]string{}
	for part := range strings.SplitSeq(rest, ";") {
		name, value, _ := strings.Cut(part, "=")
		if value, err := url.PathUnescape(value); err == nil {
			marks[prefix+name] = value
		}
	}
	return marks
}

var escaper = strings.NewReplacer("%", "%25", ";", "%3B", "=", "%3D", "\n", "%0A", "\r", "%0D")

func escape(value string) string { return escaper.Replace(value) }

// with returns the marks and some more.
func with(marks map[string]string, more ...string) map[string]string {
	all := maps.Clone(marks)
	for i := 0; i+1 < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

// metadata cuts marks to what a server's metadata takes: 255 characters each.
// https://docs.openstack.org/api-ref/compute/#create-server
func metadata(marks map[string]string) map[string]string {
	all := map[string]string{}
	for name, value := range marks {
		if name = metadataName(name); name != "" && value != "" {
			all[name] = value[:min(len(value), 255)]
		}
	}
	return all
}

func metadataName(name string) string {
	name = strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.ContainsRune("-_:. ", c):
			return c
		}
		return '_'
	}, name)
	return name[:min(len(name), 255)]
}
