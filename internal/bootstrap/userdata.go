package bootstrap

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"time"
)

// User is the user that user data makes on a node and that core logs in as, Dir
// the directory that belongs to it. They are gate.NodeUser and gate.NodeDir.
const (
	User = "skyport"
	Dir  = "/var/lib/skyport"
)

// Config is what the user data of a partition is made from.
type Config struct {
	Name  string   // of the partition, for people who look at a node
	Nodes []string // names, main first
	Keys  *Keys    // Hosts in the order of Nodes
	// Life is how long a node lives from its first boot unless its lease is
	// extended: then it powers itself off.
	Life time.Duration
	// Longest is how far ahead a lease may reach: one that reaches further is not
	// believed. Zero: twice Life, at least a day.
	Longest time.Duration
}

// UserData returns the cloud-config of one node: equal input, equal text.
func UserData(c Config, node int) (string, error) {
	return "#cloud-config\n", fmt.Errorf("user data of node %d of %s: not written yet", node, c.Name)
}

// Compressed returns user data as clouds take it when its size matters, which
// cloud-init unpacks by itself. Equal text, equal bytes.
func Compressed(userData string) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = io.WriteString(w, userData)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return []byte(userData) // cannot be: a buffer takes everything; plain text is as good
	}
	return b.Bytes()
}
