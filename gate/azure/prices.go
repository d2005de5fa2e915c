package azure

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/openworkload/skyport"
)

// price is what a size costs for an hour.
type price struct{ onDemand, spot float64 }

// Of the answer of the retail prices. See
// https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices
type priceList struct {
	Items []priceItem `json:"Items"`
	Next  string      `json:"NextPageLink"`
}

type priceItem struct {
	Price    float64 `json:"retailPrice"`
	MinUnits float64 `json:"tierMinimumUnits"`
	Size     string  `json:"armSkuName"`
	SKU      string  `json:"skuName"`
	Meter    string  `json:"meterName"`
	Product  string  `json:"productName"`
	Unit     string  `json:"unitOfMeasure"`
	Type     string  `json:"type"`
	Primary  *bool   `json:"isPrimaryMeterRegion"` // false: another meter counts
}

const (
	pricesVersion = "2023-01-01-preview"
	mostPages     = 500 // of 100 prices or more each; a region has some thousand
)

// prices asks for the retail prices of Linux machines in the region, by size in
// small letters. When they cannot be had it returns the last ones, and why.
func (s *site) prices(ctx context.Context) (map[string]price, error) {
	fresh, err := s.askPrices(ctx)
	s.priceMu.Lock()
	defer s.priceMu.Unlock()
	if err == nil {
		s.lastPrices = fresh
	}
	return s.lastPrices, err
}

func (s *site) askPrices(ctx context.Context) (map[string]price, error) {
	query := url.Values{
		"api-version": {pricesVersion}, "currencyCode": {"'" + s.o.Currency + "'"},
		"$filter": {"serviceName eq 'Virtual Machines' and armRegionName eq '" + s.o.Region + "' and priceType eq 'Consumption'"},
	}
	first, err := url.Parse(s.o.PricesURL + "/api/retail/prices")
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "azure site %q: the address of the prices: %w", s.o.Name, err)
	}
	// The service wants blanks as %20.
	first.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	all := map[string]price{}
	primary := map[string]bool{}
	for at, page := first, 0; at != nil; page++ {
		if page == mostPages {
			return nil, skyport.Errorf(skyport.CodeUnavailable, "the list of prices has no end")
		}
		list, err := s.pricePage(ctx, at)
		if err != nil {
			return nil, err
		}
		for _, item := range list.Items {
			item.add(all, primary)
		}
		if at, err = nextPage(first, list.Next); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// nextPage is where the list goes on; nil: nowhere. It stays at its host.
func nextPage(first *url.URL, next string) (*url.URL, error) {
	if next == "" {
		return nil, nil
	}
	u, err := url.Parse(next)
	if err != nil || u.Scheme != first.Scheme || u.Hostname() != first.Hostname() {
		return nil, skyport.Errorf(skyport.CodeUnavailable, "the list of prices goes on at %q, which is another place", skyport.Abbreviate(next, 200))
	}
	return u, nil
}

func (s *site) pricePage(ctx context.Context, at *url.URL) (*priceList, error) {
	request, err := runtime.NewRequest(ctx, http.MethodGet, at.String())
	if err != nil {
		return nil, s.explain(err, "ask for prices")
	}
	answer, err := s.public.Do(request) //nolint:bodyclose // the SDK reads and closes it here and below
	if err != nil {
		return nil, s.explain(err, "ask for prices")
	}
	if !runtime.HasStatusCode(answer, http.StatusOK) {
		return nil, s.explain(runtime.NewResponseError(answer), "ask for prices")
	}
	var list priceList
	if err := runtime.UnmarshalAsJSON(answer, &list); err != nil {
		return nil, s.explain(err, "read prices")
	}
	return &list, nil
}

// add takes an item that is the hourly price of a Linux machine.
func (i *priceItem) add(all map[string]price, primary map[string]bool) {
	spot := strings.HasSuffix(i.SKU, " Spot") || strings.HasSuffix(i.Meter, " Spot")
	other := strings.HasSuffix(i.SKU, " Low Priority") || strings.HasSuffix(i.Meter, " Low Priority") ||
		strings.Contains(i.Product, "Windows") || strings.Contains(i.Product, "Cloud Services") || strings.Contains(i.Product, "CloudServices")
	if i.Size == "" || other || i.Unit != "1 Hour" || i.Type != "Consumption" || i.MinUnits > 0 || i.Price <= 0 {
		return
	}
	size := strings.ToLower(i.Size)
	kind := size
	if spot {
		kind += " spot"
	}
	// Where there are several, the primary meter counts.
	first := i.Primary == nil || *i.Primary
	if primary[kind] && !first {
		return
	}
	primary[kind] = first
	p := all[size]
	if spot {
		p.spot = i.Price
	} else {
		p.onDemand = i.Price
	}
	all[size] = p
}
