package gate

import (
	"strings"

	"github.com/google/uuid"
)

// StableID is the UUID of something at a site, made from its names, such as
// StableID("azure", "westeurope", "flavor", "Standard_D4s_v5"). The same names
// give the same id, on every gate and after every restart.
func StableID(names ...string) string {
	space := uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://github.com/openworkload/skyport"))
	return uuid.NewSHA1(space, []byte(strings.Join(names, "\x00"))).String()
}
