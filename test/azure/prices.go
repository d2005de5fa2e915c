package azuretest

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rates of the currencies that are known, per USD.
var rates = map[string]float64{"USD": 1, "EUR": 0.92, "GBP": 0.79, "CHF": 0.88}

// price is an item of the price list.
// https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices
type price struct {
	CurrencyCode         string  `json:"currencyCode"`
	TierMinimumUnits     float64 `json:"tierMinimumUnits"`
	RetailPrice          float64 `json:"retailPrice"`
	UnitPrice            float64 `json:"unitPrice"`
	ArmRegionName        string  `json:"armRegionName"`
	Location             string  `json:"location"`
	EffectiveStartDate   string  `json:"effectiveStartDate"`
	MeterID              string  `json:"meterId"`
	MeterName            string  `json:"meterName"`
	ProductID            string  `json:"productId"`
	SkuID                string  `json:"skuId"`
	ProductName          string  `json:"productName"`
	SkuName              string  `json:"skuName"`
	ServiceName          string  `json:"serviceName"`
	ServiceID            string  `json:"serviceId"`
	ServiceFamily        string  `json:"serviceFamily"`
	UnitOfMeasure        string  `json:"unitOfMeasure"`
	Type                 string  `json:"type"`
	IsPrimaryMeterRegion bool    `json:"isPrimaryMeterRegion"`
	ArmSkuName           string  `json:"armSkuName"`
	ReservationTerm      string  `json:"reservationTerm,omitempty"`
}

// prices is the retail price list, which needs no login.
func (e *Emulator) prices(req *request) (*response, error) {
	currency := strings.Trim(req.query.Get("currencyCode"), "'")
	if currency == "" {
		currency = "USD"
	}
	rate, ok := rates[currency]
	if !ok {
		return badPrices("Invalid currency code")
	}
	type test struct{ field, value string }
	var tests []test
	for _, part := range regexp.MustCompile(`(?i)\s+and\s+`).Split(req.query.Get("$filter"), -1) {
		if strings.TrimSpace(part) == "" {
			continue
		}
		m := term.FindStringSubmatch(part)
		if m == nil || !strings.EqualFold(m[2], "eq") {
			return badPrices("Invalid OData parameters supplied")
		}
		tests = append(tests, test{m[1], m[3]}) // the values mind their case
	}
	var all []price
	for _, p := range e.priceList(currency, rate) {
		is := map[string]string{
			"armRegionName": p.ArmRegionName, "serviceName": p.ServiceName, "priceType": p.Type, "armSkuName": p.ArmSkuName, "serviceFamily": p.ServiceFamily,
			"productName": p.ProductName, "skuName": p.SkuName, "meterName": p.MeterName, "location": p.Location, "currencyCode": p.CurrencyCode,
		}
		if !slices.ContainsFunc(tests, func(t test) bool { return is[t.field] != t.value }) {
			all = append(all, p)
		}
	}
	const page = 100
	skip, _ := strconv.Atoi(req.query.Get("$skip"))
	skip = min(max(skip, 0), len(all))
	items := append([]price{}, all[skip:min(len(all), skip+page)]...)
	var next any
	if skip+page < len(all) {
		q := url.Values{}
		for k, v := range req.query {
			q[k] = v
		}
		q.Set("$skip", strconv.Itoa(skip+page))
		next = e.URL() + "/api/retail/prices?" + q.Encode()
	}
	return answer(http.StatusOK, map[string]any{
		"BillingCurrency": currency, "CustomerEntityId": "Default", "CustomerEntityType": "Retail", "Items": items, "NextPageLink": next, "Count": len(items),
	})
}

func badPrices(why string) (*response, error) {
	return answer(http.StatusBadRequest, map[string]any{"Error": map[string]string{"Code": "BadRequest", "Message": why}})
}

func (e *Emulator) priceList(currency string, rate float64) (all []price) {
	round := func(f float64) float64 { return math.Round(f*1e6) / 1e6 }
	for _, region := range regions {
		for _, s := range e.sizes {
			short := strings.ReplaceAll(strings.TrimPrefix(s.name, "Standard_"), "_", " ")
			add := func(product, suffix, kind, unit string, usd float64) {
				p := price{
					CurrencyCode: currency, RetailPrice: round(usd * rate), UnitPrice: round(usd * rate), ArmRegionName: region, Location: regionNames[region],
					EffectiveStartDate: "2025-10-01T00:00:00Z", MeterName: short + suffix, SkuName: short + suffix, ProductName: product,
					ServiceName: "Virtual Machines", ServiceID: "DZH313Z7MMC8", ServiceFamily: "Compute", UnitOfMeasure: unit, Type: kind, IsPrimaryMeterRegion: true, ArmSkuName: s.name,
				}
				p.MeterID = guidText(fmt.Sprint(region, s.name, product, suffix, kind))
				if kind == "Reservation" {
					p.ReservationTerm = "1 Year"
				}
				all = append(all, p)
			}
			product := "Virtual Machines " + s.series
			add(product, "", "Consumption", "1 Hour", s.price)
			add(product+" Windows", "", "Consumption", "1 Hour", s.price*1.8)
			if s.spot {
				add(product, " Spot", "Consumption", "1 Hour", s.price*0.18)
				add(product+" Windows", " Spot", "Consumption", "1 Hour", s.price*0.4)
				add(product, " Low Priority", "Consumption", "1 Hour", s.price*0.2)
			}
			add(product, "", "Reservation", "1 Hour", s.price*8760*0.6)
			add(product, "", "DevTestConsumption", "1 Hour", s.price)
		}
	}
	return all
}

func guidText(text string) string {
	h := fmt.Sprintf("%x", sumOf(text))
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
}
