package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/openworkload/skyport/internal/spool"
)

// docker looks whether the engine of the Docker site answers and has the node
// image.
func (d *doctor) docker(ctx context.Context, s *spool.Spool) {
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	p, err := newDocker(s.Config.Docker, slog.New(slog.DiscardHandler))
	if err != nil {
		d.fail("docker site", err)
		return
	}
	has, err := p.Check(ctx)
	if err = errors.Join(err, p.Close()); err != nil {
		d.fail("docker site", err)
		return
	}
	d.ok("docker site", "%s", has)
}
