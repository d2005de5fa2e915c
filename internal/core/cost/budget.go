package cost

import (
	"fmt"
	"math"
	"time"

	"github.com/openworkload/skyport"
)

// Level is how much of a budget is used.
type Level int

const (
	Fine   Level = 0
	Warned Level = 80  // percent: people are told
	UsedUp Level = 100 // percent: nothing new is started
)

// Purse is how the budget of an account stands at a moment.
type Purse struct {
	Account string
	Budget  skyport.Budget
	Spent   Micros
	PerHour Micros // by how much it grows
	Level   Level
	Since   time.Time // beginning of the period; zero: all time
}

// PeriodOf is when the budget's period that contains a moment began, zero for
// all time.
func PeriodOf(b *skyport.Budget, now time.Time) time.Time {
	if b.Period == skyport.BudgetTotal {
		return time.Time{}
	}
	return FirstOfMonth(now)
}

// Weigh counts what an account has spent of its budget: sums by account since
// the beginning of the period, and meters that run.
func Weigh(account string, b skyport.Budget, settled []Sum, live []Meter, now time.Time) Purse {
	p := Purse{Account: account, Budget: b, Since: PeriodOf(&b, now)}
	for _, s := range settled {
		if s.Key == account && b.Covers(s.Currency) {
			p.Spent = p.Spent.plus(s.Amount)
		}
	}
	for i := range live {
		m := &live[i]
		if m.Account == account && b.Covers(m.Currency) {
			p.Spent = p.Spent.plus(m.Between(p.Since, now))
			p.PerHour = p.PerHour.plus(m.PerHour())
		}
	}
	switch all := MicrosOf(b.Amount); {
	case p.Spent >= all:
		p.Level = UsedUp
	case p.Spent >= p.mark(Warned):
		p.Level = Warned
	}
	return p
}

// mark is the amount at which a level begins.
func (p *Purse) mark(l Level) Micros { return MicrosOf(p.Budget.Amount / 100 * float64(l)) }

// Next is the moment at which the level changes when nothing else does: the
// next level, or the next period. Zero: never.
func (p *Purse) Next(now time.Time) (next time.Time) {
	if !p.Since.IsZero() {
		next = NextMonth(now)
	}
	if p.Level == UsedUp || p.PerHour <= 0 {
		return next
	}
	level := Warned
	if p.Level == Warned {
		level = UsedUp
	}
	hours := float64(p.mark(level)-p.Spent) / float64(p.PerHour)
	if hours > 24*365 { // and durations end somewhere
		return next
	}
	// Rounded up: a look that is early would find nothing changed.
	crossing := now.Add(time.Duration(math.Ceil(hours*float64(time.Hour/time.Millisecond))) * time.Millisecond)
	if next.IsZero() || crossing.Before(next) {
		return crossing
	}
	return next
}

// String says how the budget stands, such as "81.20 of 100 EUR this month (81 %)".
func (p *Purse) String() string {
	period := "this month"
	if p.Since.IsZero() {
		period = "in all"
	}
	return fmt.Sprintf("%s of %s %s (%.0f %%)", skyport.Money(p.Spent.Float(), ""), skyport.Money(p.Budget.Amount, p.Budget.Currency), period,
		math.Floor(100*p.Spent.Float()/p.Budget.Amount))
}

// Warning is what people are told from 80 % on, "" below.
func (p *Purse) Warning() string {
	switch p.Level {
	case Warned:
		return fmt.Sprintf("account %s has spent %s of its budget; at 100 %% new jobs are refused%s", p.Account, p, p.ending())
	case UsedUp:
		return p.Reason()
	case Fine:
	}
	return ""
}

func (p *Purse) ending() string {
	if p.Budget.EndJobs {
		return " and running ones are ended"
	}
	return ""
}

// Reason says why the account may start nothing, "" when it may.
func (p *Purse) Reason() string {
	if p.Level != UsedUp {
		return ""
	}
	return fmt.Sprintf("the budget of account %s is used up: it has spent %s", p.Account, p)
}

// Outcome is why jobs of the account are ended.
func (p *Purse) Outcome() string {
	return fmt.Sprintf("the budget of account %s is used up", p.Account)
}

// Refusal is the error for what the account can no longer pay, nil when it can.
func (p *Purse) Refusal() error {
	if p.Level != UsedUp {
		return nil
	}
	then := ""
	if !p.Since.IsZero() {
		then = ", or submit after the end of the month"
	}
	return skyport.Errorf(skyport.CodeBudget, "%s", p.Reason()).
		WithHint("name another account with #SWM account, ask the operator of core to raise accounts[].budget of %s in skyport.yaml%s", p.Account, then)
}

// Status is what terminals are told.
func (p *Purse) Status() skyport.BudgetStatus {
	return skyport.BudgetStatus{Account: p.Account, Budget: p.Budget, Spent: p.Spent.Float(), Since: p.Since, UsedUp: p.Level == UsedUp}
}
