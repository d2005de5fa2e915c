package azuretest

import (
	"fmt"
	"strings"
)

// GateFile is a gate.yaml whose only site is the emulator. Its poll is short, as
// the emulator's own times are. more are further lines of the site, such as
// "currency: EUR".
func (e *Emulator) GateFile(site string, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `sites:
  - kind: azure
    name: %s
    region: %s
    subscription: %s
    endpoint: %s
    authority: %s
    prices_url: %s
    ca_file: %s
    poll: 200ms
    credentials: {tenant: %s, client_id: %s, client_secret: "%s"}
`, site, e.Location(), e.Subscription(), e.URL(), e.Authority(), e.PricesURL(), e.CAFile(), e.Tenant(), e.ClientID(), e.ClientSecret())
	for _, line := range more {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	return b.String()
}
