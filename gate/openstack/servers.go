package openstack

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// pack compresses what each node boots with; cloud-init reads it so. Nova takes it
// in base64, up to 65535 bytes of it:
// https://docs.openstack.org/nova/latest/user/metadata.html#user-provided-data
func pack(plan cloud.Plan) ([]string, error) {
	packed := make([]string, len(plan.Nodes))
	for i, text := range plan.UserData {
		if i >= len(packed) || text == "" {
			continue
		}
		small, err := cloud.UserData(text)
		if err != nil {
			return nil, err
		}
		packed[i] = base64.StdEncoding.EncodeToString(small)
	}
	return packed, nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// makeCluster asks for nodes that are near each other, as far as there is room.
// https://docs.openstack.org/api-ref/compute/#create-server-group
func (m *making) makeCluster(ctx context.Context) error {
	if len(m.have.serverGroups) > 0 {
		m.cluster = m.have.serverGroups[0].ID
		return nil
	}
	// A group has nothing but a name, of 255 characters, to say whose it is.
	group := map[string]any{"name": m.plan.Name + " " + describe(m.marks, descriptionRoom-len(m.plan.Name)-1)}
	switch {
	case m.se.minor >= 64:
		group["policy"] = "soft-affinity"
	case m.se.minor >= 15:
		group["policies"] = []string{"soft-affinity"}
	default:
		return nil // an old cloud: only all on one host or none
	}
	var answer struct {
		Group serverGroup `json:"server_group"`
	}
	err := create(ctx, m.se.compute, "os-server-groups", map[string]any{"server_group": group}, &answer)
	m.cluster = answer.Group.ID
	return m.explain(err, "make the server group")
}

// makeServer makes a node, unless it is there.
// https://docs.openstack.org/api-ref/compute/#create-server
func (m *making) makeServer(ctx context.Context, index int, port thing) error {
	host := m.plan.Nodes[index]
	if there := nodeOf(m.have.servers, serverMarks, index); len(there) > 0 {
		// Two when an answer was lost and the call made again: the port let only one start.
		keep := max(0, slices.IndexFunc(there, func(s server) bool { return s.Status != "ERROR" }))
		for i, extra := range there {
			if i != keep {
				if err := m.explain(remove(ctx, m.se.compute, "servers", extra.ID), "remove a second server of "+host); err != nil {
					return err
				}
			}
		}
		return nil
	}
	suffix := "-main"
	if index > 0 {
		suffix = "-compute" + itoa(index)
	}
	body := map[string]any{
		"name": m.plan.Name + suffix, "flavorRef": m.flavor.ID, "config_drive": true,
		"networks": []map[string]string{{"port": port.ID}},
		"metadata": metadata(with(m.marks, markNode, itoa(index), markHost, host)),
	}
	if m.userData[index] != "" {
		body["user_data"] = m.userData[index]
	}
	if m.o.AvailabilityZone != "" {
		body["availability_zone"] = m.o.AvailabilityZone
	}
	if m.o.BootVolume {
		id, err := m.makeVolume(ctx, index)
		if err != nil {
			return err
		}
		body["block_device_mapping_v2"] = []map[string]any{{
			"boot_index": 0, "uuid": id, "source_type": "volume", "destination_type": "volume", "delete_on_termination": true,
		}}
	} else {
		body["imageRef"] = m.image.ID
	}
	all := map[string]any{"server": body}
	if m.cluster != "" {
		all["os:scheduler_hints"] = map[string]string{"group": m.cluster}
	}
	m.say("makes server " + host)
	err := m.explain(create(ctx, m.se.compute, "servers", all, nil), "make node "+host)
	if code := skyport.CodeOf(err); err != nil && (code == skyport.CodeUnknownImage || code == skyport.CodeUnknownFlavor) {
		m.forgetCatalogue() // it was true once
	}
	return err
}

// makeVolume makes a node's system disk of the image, before the server: what
// Nova makes by itself has no name and no tags.
// https://docs.openstack.org/api-ref/block-storage/v3/#create-a-volume
func (m *making) makeVolume(ctx context.Context, index int) (string, error) {
	doing := "make the system disk of " + m.plan.Nodes[index]
	var answer struct {
		Volume volume `json:"volume"`
	}
	if there := nodeOf(m.have.volumes, volumeMarks, index); len(there) > 0 {
		answer.Volume = there[0]
	} else {
		const gib = skyport.Bytes(1) << 30
		size := max((m.o.Disk+gib-1)/gib, skyport.Bytes(m.image.MinDisk), (skyport.Bytes(m.image.Size)+gib-1)/gib)
		body := map[string]any{
			"name": m.plan.Name + "-" + itoa(index), "size": size, "imageRef": m.image.ID,
			"metadata": metadata(with(m.marks, markNode, itoa(index))),
		}
		if m.o.VolumeType != "" {
			body["volume_type"] = m.o.VolumeType
		}
		if m.o.AvailabilityZone != "" {
			body["availability_zone"] = m.o.AvailabilityZone
		}
		if err := create(ctx, m.se.volume, "volumes", map[string]any{"volume": body}, &answer); err != nil {
			return "", m.explain(err, doing)
		}
	}
	for {
		switch v := answer.Volume; v.Status {
		case "available", "in-use":
			return v.ID, nil
		case "error", "error_deleting":
			return "", cloud.Permanent(skyport.CodeUnavailable, "%s: the volume is in state %s", doing, v.Status).
				WithHint("openstack volume show %s", v.ID)
		}
		if err := pause(ctx, m.o.Poll); err != nil {
			return "", m.explain(err, doing)
		}
		if err := fetch(ctx, m.se.volume, m.se.volume.ServiceURL("volumes", answer.Volume.ID), &answer); err != nil {
			return "", m.explain(err, doing)
		}
	}
}

// awaitServers waits until every node is active.
func (m *making) awaitServers(ctx context.Context) error {
	said := ""
	for wait := m.o.Poll / 4; ; wait = min(wait*3/2, m.o.Poll*3) {
		servers, err := m.listServers(ctx, m.se, m.plan.ID)
		if err != nil {
			return err
		}
		active := map[string]bool{}
		for _, one := range servers {
			host := one.Metadata[markHost]
			switch one.Status {
			case "ACTIVE":
				active[one.Metadata[markNode]] = true
			case "ERROR":
				return broken(host, one.Fault.Message)
			case "SHUTOFF":
				return cloud.Permanent(skyport.CodeUnavailable, "node %s was stopped while it was made", host).WithHint("openstack server show %s", one.ID)
			}
		}
		if len(active) == len(m.plan.Nodes) {
			return nil
		}
		if text := fmt.Sprintf("%d of %s active", len(active), count(len(m.plan.Nodes), "server")); text != said {
			said = text
			m.say(text)
		}
		if err := pause(ctx, wait); err != nil {
			return m.explain(err, "wait for the nodes")
		}
	}
}

// retag writes changed marks into all that is there and can be written to.
func (s *site) retag(ctx context.Context, se *session, v *inventory, more ...string) []func() error {
	var calls []func() error
	for _, k := range kinds {
		for _, t := range v.things[k] {
			calls = append(calls, func() error {
				err := t.rewrite(ctx, se.network, with(t.marks, more...))
				return s.unlessGone(err, "tag "+k.name)
			})
		}
	}
	meta := map[string]string{}
	for i := 0; i+1 < len(more); i += 2 {
		meta[more[i]] = more[i+1]
	}
	for _, one := range v.servers {
		calls = append(calls, func() error {
			// https://docs.openstack.org/api-ref/compute/#create-or-update-server-metadata-items
			err := create(ctx, se.compute, "servers/"+one.ID+"/metadata", map[string]any{"metadata": maps.Clone(meta)}, nil)
			return s.unlessGone(err, "tag server "+one.Name)
		})
	}
	for _, one := range v.volumes {
		calls = append(calls, func() error {
			err := create(ctx, se.volume, "volumes/"+one.ID+"/metadata", map[string]any{"metadata": maps.Clone(meta)}, nil)
			return s.unlessGone(err, "tag volume "+one.Name)
		})
	}
	return calls
}

func (s *site) unlessGone(err error, doing string) error {
	if gone(err) {
		return nil
	}
	return s.explain(err, doing)
}
