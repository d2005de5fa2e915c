package spool

import (
	"cmp"
	"math"
	"regexp"

	"github.com/openworkload/skyport"
)

// BudgetConfig is what an account may spend.
type BudgetConfig struct {
	Amount   *float64 `koanf:"amount"`   // none: no budget
	Currency string   `koanf:"currency"` // such as USD
	Period   string   `koanf:"period"`   // month (default) or total
	EndJobs  bool     `koanf:"end_jobs"` // running jobs are ended when it is used up
}

// Budget is the budget in the words that all share, nil when there is none.
func (b *BudgetConfig) Budget() *skyport.Budget {
	if b.Amount == nil {
		return nil
	}
	return &skyport.Budget{
		Amount: *b.Amount, Currency: b.Currency, EndJobs: b.EndJobs,
		Period: skyport.BudgetPeriod(cmp.Or(b.Period, string(skyport.BudgetMonth))),
	}
}

var currencyCode = regexp.MustCompile(`^[A-Z]{3}$`)

// mostBudget is far above what anybody spends, and far below where amounts end.
const mostBudget = 1e12

func (b *BudgetConfig) check(key string, refuse func(string, string, ...any)) {
	if b.Amount == nil {
		if *b != (BudgetConfig{}) {
			refuse(key, "the budget has no amount")
		}
		return
	}
	switch amount := *b.Amount; {
	case math.IsNaN(amount) || amount <= 0:
		refuse(key+".amount", "%v is too little: want more than 0; who shall spend nothing has no place in users", amount)
	case amount > mostBudget:
		refuse(key+".amount", "%v is too much: want %v or less; without a budget an account may spend what it likes", amount, mostBudget)
	}
	if b.Currency != "" && !currencyCode.MatchString(b.Currency) {
		refuse(key+".currency", "%q is not a currency's three letters, such as USD or EUR", skyport.Abbreviate(b.Currency, 20))
	}
	if b.Period != "" {
		oneOf(refuse, key+".period", b.Period, string(skyport.BudgetMonth), string(skyport.BudgetTotal))
	}
}
