package skyport_test

import (
	"testing"

	"github.com/openworkload/skyport"
)

func TestMoney(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"0.00": skyport.Money(0, ""), "0.0123 USD": skyport.Money(0.0123, "USD"), "12.35 EUR": skyport.Money(12.345001, "EUR"),
		"0.00 EUR": skyport.Money(0, "EUR"), "-0.5000": skyport.Money(-0.5, ""),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestBudgetsCoverCurrencies(t *testing.T) {
	t.Parallel()
	euros, none := &skyport.Budget{Currency: "EUR"}, &skyport.Budget{}
	for _, c := range []struct {
		budget   *skyport.Budget
		currency string
		want     bool
	}{
		{nil, "USD", true}, {euros, "EUR", true}, {euros, "", true}, {euros, "USD", false}, {none, "", true}, {none, "USD", false},
	} {
		if got := c.budget.Covers(c.currency); got != c.want {
			t.Errorf("%+v covers %q: %v", c.budget, c.currency, got)
		}
	}
}
