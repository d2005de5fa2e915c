package cloud

import (
	"context"
	"log/slog"
	"time"

	"github.com/openworkload/skyport/gate"
)

// Check tries what a site will need, as [Provider.Check] does, without a
// provider: what another process makes or removes there is left alone.
func Check(ctx context.Context, c Cloud, otherwise Sources) ([]gate.Finding, error) {
	s := &site{
		cloud: c, name: c.Site().Name, sources: newAddress(sourcesOf(c, otherwise)),
		o: Options{Retry: time.Second}, log: slog.New(slog.DiscardHandler),
	}
	return s.check(ctx)
}
