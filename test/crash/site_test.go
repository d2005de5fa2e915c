package crash

import (
	"context"
	"math/rand/v2"

	"github.com/openworkload/skyport"
)

// A site is where the jobs of a matrix run.
type site interface {
	// settings of core and gate, as environment.
	settings() []string
	// script says what a work's script needs here: its shell, its directives, and
	// the body of mark, which writes to the ledger that it has come to "$1".
	script(w *work) (shell string, directives []string, mark string)

	// victims are what can be killed.
	victims() []victim
	// strike kills what a victim has on nodes. It is false when there is nothing.
	strike(ctx context.Context, who victim, random *rand.Rand) bool

	// judgeAttempts holds the attempts of an ended job to what was killed, and says
	// whether it had to be given up.
	judgeAttempts(ctx context.Context, w *work, job *skyport.Job) (givenUp bool, err error)
	// remains is what is left of nodes, by what it is.
	remains(ctx context.Context) map[string][]string
	// cleanUp leaves nothing behind, however the test ended.
	cleanUp()

	// lost is how many attempts are known to be lost; tell says, for people, what
	// was done to a work.
	lost() int
	tell(ctx context.Context, w *work) string
}
