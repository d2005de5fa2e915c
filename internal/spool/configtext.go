package spool

import (
	_ "embed"
	"strings"
)

// defaultConfig is the configuration that setup writes: every setting with its
// default, explained. A test keeps it equal to [Defaults].
//
//go:embed skyport.yaml
var defaultConfig string

// configText is the configuration of a new spool.
func configText(coreListen, gateListen string) []byte {
	defaults := Defaults()
	return []byte(strings.NewReplacer(
		`listen: "`+defaults.Core.Listen+`"`, `listen: "`+coreListen+`"`,
		`listen: "`+defaults.Gate.Listen+`"`, `listen: "`+gateListen+`"`,
	).Replace(defaultConfig))
}
