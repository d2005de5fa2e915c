package lifecycle

import (
	"context"
	"fmt"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
)

// How long an offer is left alone that its site did not give.
const (
	restCapacity = 10 * time.Minute // machines come free slowly
	restQuota    = 2 * time.Minute  // ours come free when partitions end
	restOther    = time.Minute
	// mostRefusals is how many offers of a site may be refused before the site as
	// a whole is left alone: a limit that holds for all its flavors is not found
	// out by asking for each.
	mostRefusals = 5
)

// refused fails a partition that its site will not make, and remembers it of
// the offer: the jobs go elsewhere meanwhile, if they may.
func (p *partition) refused(ctx context.Context, row *skyport.Partition, code skyport.Code, reason string) error {
	p.e.mu.Lock()
	p.e.refuse(schedule.Offer{Site: row.Site, Flavor: row.Flavor.Name, Spot: row.Spot}, len(row.Nodes), code, reason, time.Now())
	p.e.mu.Unlock()
	return p.failBy(ctx, code, reason)
}

// gone fails a partition that its site has lost or taken back. Of what was taken
// back there is none to be had for a moment.
func (p *partition) gone(ctx context.Context, row *skyport.Partition, why departure) error {
	if elsewhere(why.code) {
		return p.refused(ctx, row, why.code, why.text)
	}
	return p.failBy(ctx, why.code, why.text)
}

// refuse is called with e.mu held.
func (e *Engine) refuse(o schedule.Offer, nodes int, code skyport.Code, reason string, now time.Time) {
	if !elsewhere(code) {
		nodes = 0 // fewer would fare no better
	}
	if known, ok := e.refused[o]; ok && known.Until.After(now) {
		nodes = min(nodes, known.Nodes)
	}
	rest := restOther
	switch code {
	case skyport.CodeNoCapacity:
		rest = restCapacity
	case skyport.CodeQuota:
		rest = restQuota
	}
	kind := "flavor"
	if o.Spot {
		kind = "spot flavor"
	}
	refusal := schedule.Refusal{Until: now.Add(rest), Nodes: nodes, Reason: fmt.Sprintf("site %s gave no %s %s lately: %s", o.Site, kind, o.Flavor, reason)}
	e.refused[o] = refusal
	if !elsewhere(code) {
		return
	}
	refusals, from := 0, nodes
	for other, r := range e.refused {
		if other.Site == o.Site && other.Flavor != "" && r.Until.After(now) {
			refusals++
			from = max(from, r.Nodes)
		}
	}
	if refusals >= mostRefusals {
		e.refused[schedule.Offer{Site: o.Site}] = schedule.Refusal{
			Until:  now.Add(restQuota),
			Nodes:  from,
			Reason: fmt.Sprintf("site %s gave none of %d flavors lately, the last one: %s", o.Site, refusals, reason),
		}
	}
}

// elsewhere says of a code that another flavor, another site or a later moment
// may well do: what it stopped does not count against the job.
func elsewhere(code skyport.Code) bool {
	switch code {
	case skyport.CodeNoCapacity, skyport.CodeQuota, skyport.CodeInterrupted, skyport.CodeThrottled:
		return true
	}
	return false
}

// hopeless says of a code that the same job would meet it again wherever and
// whenever the same is asked for.
func hopeless(code skyport.Code) bool {
	switch code {
	case skyport.CodeCredentials, skyport.CodeForbidden, skyport.CodeInvalid, skyport.CodeUnsupported,
		skyport.CodeUnknownImage, skyport.CodeUnknownFlavor, skyport.CodeUnknownSite, skyport.CodeTooLarge:
		return true
	}
	return false
}

// withHint is an error with what to do about it.
func withHint(err error) string {
	hint := skyport.HintOf(err)
	if hint == "" {
		return err.Error()
	}
	return err.Error() + " (" + hint + ")"
}
