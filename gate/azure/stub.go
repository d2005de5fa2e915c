package azure

import (
	"context"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

func (s *site) Flavors(context.Context) ([]skyport.Flavor, error) { return nil, nil }
func (s *site) Check(context.Context) ([]gate.Finding, error)     { return nil, nil }
