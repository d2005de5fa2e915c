package skyport

import "time"

// SecretRegistry is the kind of secrets that are logins of container
// registries. Their names are the hosts of the registries.
const SecretRegistry = "registry"

// Secret tells of a secret that a user left with core, never its value.
type Secret struct {
	Kind     string    `json:"kind" enum:"registry" doc:"What it is for"`
	Name     string    `json:"name" doc:"Of a registry its host, with a port if it has one"`
	Username string    `json:"username,omitempty" doc:"Whose login it is"`
	CA       bool      `json:"ca" doc:"It has certificates that the server's must chain to"`
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated" doc:"When its value was set last"`
	Problem  string    `json:"problem,omitempty" doc:"Why it cannot be used any more"`
}
