package aws

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/pricing"
	pricingtypes "github.com/aws/aws-sdk-go-v2/service/pricing/types"

	"github.com/openworkload/skyport"
)

// currency is that of the region's price list.
func (c *Cloud) currency() string {
	if strings.HasPrefix(c.o.Region, "cn-") {
		return "CNY"
	}
	return "USD"
}

// products asks for Linux on shared hardware, on demand:
// https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html
func (c *Cloud) products() *pricing.GetProductsInput {
	in := &pricing.GetProductsInput{ServiceCode: sdk.String("AmazonEC2"), FormatVersion: sdk.String("aws_v1")}
	for _, is := range [][2]string{
		{"regionCode", c.o.Region},
		{"operatingSystem", "Linux"},
		{"tenancy", "Shared"},
		{"preInstalledSw", "NA"},
		{"capacitystatus", "Used"},
		{"marketoption", "OnDemand"},
	} {
		in.Filters = append(in.Filters, pricingtypes.Filter{Type: pricingtypes.FilterTypeTermMatch, Field: &is[0], Value: &is[1]})
	}
	return in
}

// product is what we read of an entry of the price list.
type product struct {
	Product struct {
		Attributes struct {
			InstanceType string `json:"instanceType"`
		} `json:"attributes"`
	} `json:"product"`
	Terms struct {
		OnDemand map[string]struct {
			PriceDimensions map[string]struct {
				Unit         string            `json:"unit"`
				PricePerUnit map[string]string `json:"pricePerUnit"`
			} `json:"priceDimensions"`
		} `json:"OnDemand"`
	} `json:"terms"`
}

// onDemandPrices are the prices per hour by instance type; none when the gate
// may not ask for them: flavors have no price then.
func (c *Cloud) onDemandPrices(ctx context.Context) (map[string]float64, error) {
	prices := map[string]float64{}
	for pages := pricing.NewGetProductsPaginator(c.prices, c.products()); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			err = c.explain(err, "read the price list")
			if skyport.CodeOf(err) == skyport.CodeCredentials {
				c.log.WarnContext(ctx, "flavors have no price, for pricing:GetProducts is refused", "error", err)
				return nil, nil
			}
			return nil, err
		}
		for _, text := range page.PriceList {
			if name, price, ok := c.read(text); ok {
				prices[name] = price
			}
		}
	}
	return prices, nil
}

// read takes the price per hour out of an entry.
func (c *Cloud) read(text string) (name string, price float64, ok bool) {
	var p product
	if json.Unmarshal([]byte(text), &p) != nil {
		return "", 0, false
	}
	for _, term := range p.Terms.OnDemand {
		for _, d := range term.PriceDimensions {
			price, err := strconv.ParseFloat(d.PricePerUnit[c.currency()], 64)
			if err == nil && price > 0 && d.Unit == "Hrs" {
				return p.Product.Attributes.InstanceType, price, true
			}
		}
	}
	return "", 0, false
}

// spotPrices are the prices per hour now, by instance type and zone; of all types when none is named.
func (c *Cloud) spotPrices(ctx context.Context, kinds ...string) (map[string]map[string]float64, error) {
	in := &ec2.DescribeSpotPriceHistoryInput{StartTime: sdk.Time(time.Now()), ProductDescriptions: []string{"Linux/UNIX", "Linux/UNIX (Amazon VPC)"}}
	for _, kind := range kinds {
		in.InstanceTypes = append(in.InstanceTypes, types.InstanceType(kind))
	}
	latest, prices := map[string]time.Time{}, map[string]map[string]float64{}
	for pages := ec2.NewDescribeSpotPriceHistoryPaginator(c.ec2, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, c.explain(err, "list spot prices")
		}
		for _, p := range page.SpotPriceHistory {
			kind, zone, at := string(p.InstanceType), sdk.ToString(p.AvailabilityZone), sdk.ToTime(p.Timestamp)
			price, err := strconv.ParseFloat(sdk.ToString(p.SpotPrice), 64)
			if err != nil || price <= 0 || at.Before(latest[kind+" "+zone]) {
				continue
			}
			if prices[kind] == nil {
				prices[kind] = map[string]float64{}
			}
			latest[kind+" "+zone], prices[kind][zone] = at, price
		}
	}
	return prices, nil
}

// least is the price in the cheapest zone, which spot nodes try first.
func least(zones map[string]float64) float64 {
	all := make([]float64, 0, len(zones))
	for _, price := range zones {
		all = append(all, price)
	}
	if len(all) == 0 {
		return 0
	}
	return slices.Min(all)
}
