package pki

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/openworkload/skyport"
)

// renewLook is the longest that Renew sleeps: a laptop may have slept, a clock
// may have jumped, a certificate may have been exchanged by hand.
const renewLook = time.Hour

// Renewal says how a daemon keeps its own certificate alive.
type Renewal struct {
	Issuer Pair          // the CA that signs leaves
	Life   time.Duration // of a new certificate; LeafLife when zero
}

// Renew keeps the certificate valid until ctx ends, and returns then: when two
// thirds of its life are over, it is signed anew and taken up without a restart.
// Where the CA's key is not on this machine, or signing fails, the log says so
// once a day while there is time left.
func (r *Reloader) Renew(ctx context.Context, renewal Renewal) {
	var warned time.Time
	for {
		r.fresh()
		if now := time.Now(); !now.Before(Due(r.Leaf())) {
			if err := r.renewNow(renewal); err != nil && now.Sub(warned).Abs() >= 24*time.Hour {
				warned = now
				r.warn(now, err)
			}
		}
		wait := time.Until(Due(r.Leaf()))
		if wait <= 0 || wait > renewLook {
			wait = renewLook
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (r *Reloader) renewNow(renewal Renewal) error {
	cert, err := Reissue(r.files.Pair, renewal.Issuer, renewal.Life, nil)
	if err != nil {
		return err
	}
	r.log.Info("certificate renewed", "file", r.files.Cert, "expires", cert.NotAfter)
	return r.Reload()
}

func (r *Reloader) warn(now time.Time, err error) {
	left := int(r.Expires().Sub(now).Hours() / 24)
	if skyport.CodeOf(err) == skyport.CodeNotFound || errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("certificate ends soon and the CA key to renew it is not on this machine: have it renewed where the setup ran",
			"file", r.files.Cert, "days_left", left, "expires", r.Expires())
		return
	}
	r.log.Error("certificate cannot be renewed", "file", r.files.Cert, "days_left", left, "expires", r.Expires(), "error", err)
}
