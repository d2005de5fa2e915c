package cloud

import (
	"bytes"
	"compress/gzip"
	"fmt"

	"github.com/openworkload/skyport"
)

// UserDataMost is how many bytes of user data the strictest cloud takes.
const UserDataMost = 16 << 10

// UserData is a node's user data as clouds take it: compressed, which cloud-init
// reads, and not too large.
func UserData(text string) ([]byte, error) {
	var small bytes.Buffer
	w, err := gzip.NewWriterLevel(&small, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("compress user data: %w", err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return nil, fmt.Errorf("compress user data: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress user data: %w", err)
	}
	if small.Len() > UserDataMost {
		return nil, Permanent(skyport.CodeUnsupported, "the user data of a node takes %d bytes compressed, clouds take %d", small.Len(), UserDataMost)
	}
	return small.Bytes(), nil
}
