package azure

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// testSite is a site that asks nobody.
func testSite(t *testing.T, change func(*Options)) *site {
	t.Helper()
	o := Options{Name: "az", Region: "westeurope", Subscription: "sub", Tenant: "tenant", ClientID: "client", ClientSecret: "hidden~secret"}
	if change != nil {
		change(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := c.(*site)
	if !ok {
		t.Fatalf("it is a %T", c)
	}
	return s
}

func answer(status int, body string, header ...string) *http.Response {
	r := &http.Response{
		StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)),
		Request: &http.Request{Method: http.MethodPut, URL: &url.URL{Scheme: "https", Host: "azure.test"}},
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// Bodies as Azure sends them. Where a case has no reference of its own, it follows
// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status    int
		body      string
		code      skyport.Code
		permanent bool
		says      string // in message or hint
	}{
		// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-sku-not-available
		"no such size now": {
			400, `{"error":{"code":"InvalidTemplateDeployment","message":"The template deployment 'x' is not valid according to the validation procedure.","details":[` +
				`{"code":"SkuNotAvailable","message":"The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: Standard_D4s_v5' ` +
				`is currently not available in location 'westeurope'. Please try another size or deploy to a different location or different zone."}]}}`,
			skyport.CodeNoCapacity, true, "another flavor",
		},
		// https://learn.microsoft.com/troubleshoot/azure/virtual-machines/windows/allocation-failure
		"allocation": {
			409, `{"error":{"code":"AllocationFailed","message":"Allocation failed. We do not have sufficient capacity for the requested VM size in this region."}}`,
			skyport.CodeNoCapacity, true, "westeurope",
		},
		"allocation in a zone": {409, `{"error":{"code":"ZonalAllocationFailed","message":"Allocation failed."}}`, skyport.CodeNoCapacity, true, ""},
		"too many wishes":      {409, `{"error":{"code":"OverconstrainedAllocationRequest","message":"Allocation failed. VM(s) with the following constraints cannot be allocated"}}`, skyport.CodeNoCapacity, true, ""},
		"too many wishes zone": {409, `{"error":{"code":"OverconstrainedZonalAllocationRequest","message":"x"}}`, skyport.CodeNoCapacity, true, ""},
		"size unknown there": {
			400, `{"error":{"code":"DeploymentFailed","details":[{"code":"BadRequest","message":"{\r\n \"error\": {\r\n \"code\": \"InvalidParameter\",\r\n \"target\": \"vmSize\",\r\n ` +
				`\"message\": \"The requested VM size Standard_D3 is not available in the current region.\"}}"}]}}`,
			skyport.CodeNoCapacity, true, "Standard_D3",
		},
		// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-resource-quota
		"quota of cores": {
			409, `{"error":{"code":"OperationNotAllowed","message":"Operation could not be completed as it results in exceeding approved Total Regional Cores quota. ` +
				`Additional details - Deployment Model: Resource Manager, Location: centralus, Current Limit: 10, Current Usage: 8, Additional Required: 4, (Minimum) New Limit Required: 12."}}`,
			skyport.CodeQuota, true, "8 of 10 Total Regional Cores are used, 4 more are needed",
		},
		"older quota of cores": {
			400, `{"code":"InvalidTemplateDeployment","message":"See inner errors.","details":[{"code":"QuotaExceeded","message":` +
				`"Operation results in exceeding quota limits of Core. Maximum allowed: 10, Current in use: 0, Additional requested: 12."}]}`,
			skyport.CodeQuota, true, "az vm list-usage --location westeurope",
		},
		"quota of addresses": {400, `{"error":{"code":"PublicIPCountLimitReached","message":"Cannot create more than 10 public IP addresses for this subscription in this region."}}`, skyport.CodeQuota, true, "10 public IP"},
		"another operation":  {409, `{"error":{"code":"OperationNotAllowed","message":"The server is busy with something."}}`, skyport.CodeUnavailable, false, "busy"},
		"image": {
			404, `{"status":"Failed","error":{"code":"ResourceDeploymentFailure","message":"x","details":[{"code":"DeploymentFailed","message":"y","details":[{"code":"NotFound","message":` +
				`"{\r\n  \"error\": {\r\n    \"code\": \"PlatformImageNotFound\",\r\n    \"message\": \"The platform image 'a:b:c:latest' is not available.\",\r\n    \"target\": \"imageReference\"\r\n  }\r\n}"}]}]}}`,
			skyport.CodeUnknownImage, true, "a:b:c:latest",
		},
		"image in a check before": {
			400, `{"error":{"code":"InvalidTemplateDeployment","details":[{"code":"InvalidParameter","target":"imageReference","message":"The following list of images referenced from the deployment template are not found"}]}}`,
			skyport.CodeUnknownImage, true, "",
		},
		"image of a gallery": {404, `{"error":{"code":"GalleryImageNotFound","message":"The gallery image x is not available in westeurope region."}}`, skyport.CodeUnknownImage, true, ""},
		"terms of an image":  {400, `{"error":{"code":"MarketplacePurchaseEligibilityFailed","message":"Marketplace purchase eligibility check returned errors."}}`, skyport.CodeUnknownImage, true, "terms"},
		// https://learn.microsoft.com/azure/role-based-access-control/troubleshooting
		"no right": {
			403, `{"error":{"code":"AuthorizationFailed","message":"The client 'c' with object id 'o' does not have authorization to perform action 'Microsoft.Resources/subscriptions/resourcegroups/write'"}}`,
			skyport.CodeCredentials, true, "resourcegroups/write",
		},
		"no right below":   {403, `{"error":{"code":"LinkedAuthorizationFailed","message":"x"}}`, skyport.CodeCredentials, true, "gate check"},
		"bad token":        {401, `{"error":{"code":"InvalidAuthenticationToken","message":"The access token is invalid."}}`, skyport.CodeCredentials, true, ""},
		"no subscription":  {404, `{"error":{"code":"SubscriptionNotFound","message":"The subscription 'sub' could not be found."}}`, skyport.CodeCredentials, true, ""},
		"not registered":   {409, `{"error":{"code":"MissingSubscriptionRegistration","message":"The subscription is not registered to use namespace 'Microsoft.Compute'."}}`, skyport.CodeCredentials, true, "az provider register"},
		"bare refusal":     {403, ``, skyport.CodeCredentials, true, ""},
		"unknown mistake":  {400, `{"error":{"code":"SomethingNew","message":"no"}}`, skyport.CodeInvalid, true, "SomethingNew"},
		"mistake":          {400, `{"error":{"code":"InvalidParameter","message":"bad","target":"osDisk"}}`, skyport.CodeInvalid, true, ""},
		"changed data":     {409, `{"error":{"code":"PropertyChangeNotAllowed","message":"Changing property 'osProfile.customData' is not allowed.","target":"osProfile.customData"}}`, skyport.CodeInvalid, true, ""},
		"policy":           {403, policyBody, skyport.CodeForbidden, true, "Only small machines"},
		"policy in a text": {403, `{"error":{"code":"RequestDisallowedByPolicy","message":"Resource 'x' was disallowed by policy. Policy identifiers: '[{\"policyAssignment\":{\"name\":\"No public IPs\",\"id\":\"/…\"}}]'."}}`, skyport.CodeForbidden, true, "No public IPs"},
		"locked":           {409, `{"error":{"code":"ScopeLocked","message":"The scope 'g' cannot perform delete operation because following scope(s) are locked: 'g'. Please remove the lock and try again."}}`, skyport.CodeConflict, false, "az lock delete"},
		"being deleted":    {409, `{"error":{"code":"ResourceGroupBeingDeleted","message":"The resource group 'g' is in deprovisioning state and cannot perform this operation."}}`, skyport.CodeUnavailable, false, ""},
		"active":           {409, `{"error":{"code":"DeploymentActive","message":"The deployment with resource id 'x' cannot be saved, because this would overwrite an existing deployment which is still active."}}`, skyport.CodeUnavailable, false, ""},
		"server":           {500, `{"error":{"code":"InternalServerError","message":"Encountered internal server error."}}`, skyport.CodeUnavailable, false, ""},
		"proxy":            {502, `<html>Bad Gateway</html>`, skyport.CodeUnavailable, false, "Bad Gateway"},
		"throttled":        {429, `{"error":{"code":"TooManyRequests","message":"Number of requests exceeded."}}`, skyport.CodeThrottled, false, ""},
		"throttled inside": {409, `{"error":{"code":"Conflict","details":[{"code":"TooManyRequests","message":"The request is being throttled."}]}}`, skyport.CodeThrottled, false, ""},
		"deep": {
			409, strings.Repeat(`{"error":{"code":"X","details":[`, 40) + strings.Repeat(`]}}`, 40),
			skyport.CodeUnavailable, false, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testSite(t, nil)
			err := s.explain(runtime.NewResponseError(answer(c.status, c.body)), "make the machine %s", "m1")
			if got := skyport.CodeOf(err); got != c.code || permanent(err) != c.permanent {
				t.Errorf("it is %q, permanent %v: %v", got, permanent(err), err)
			}
			if !strings.Contains(err.Error(), "make the machine m1") {
				t.Errorf("it does not say what was tried: %v", err)
			}
			if all := err.Error() + skyport.HintOf(err); !strings.Contains(all, c.says) {
				t.Errorf("%q does not say %q", all, c.says)
			}
		})
	}
}

// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-policy-requestdisallowedbypolicy
const policyBody = `{"error":{"code":"InvalidTemplateDeployment","message":"The template deployment failed because of policy violation.","details":[{
 "code":"RequestDisallowedByPolicy","target":"swm-main","message":"Resource 'swm-main' was disallowed by policy.",
 "additionalInfo":[{"type":"PolicyViolation","info":{"policyDefinitionDisplayName":"Allowed sizes","policyAssignmentName":"a1b2",
 "policyAssignmentDisplayName":"Only small machines"}}]}]}}`

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	s := testSite(t, nil)
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "17", 17 * time.Second}, {"x-ms-retry-after-ms", "250", 250 * time.Millisecond}, {"Retry-After", "soon", 0},
	} {
		var throttled *cloud.Throttled
		err := s.explain(runtime.NewResponseError(answer(429, "", c.name, c.value)), "list")
		if !errors.As(err, &throttled) || throttled.After != c.want {
			t.Errorf("%s: %s: %v", c.name, c.value, err)
		}
	}
}

func TestOtherErrors(t *testing.T) {
	t.Parallel()
	s := testSite(t, nil)
	if s.explain(nil, "x") != nil {
		t.Error("nothing is explained as an error")
	}
	if err := s.explain(context.Canceled, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context is %v", err)
	}
	if err := s.explain(io.ErrUnexpectedEOF, "x"); permanent(err) || skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Errorf("a broken connection is %v", err)
	}
	if err := lost("n1", true); skyport.CodeOf(err) != skyport.CodeInterrupted || errors.Is(err, gate.ErrPermanent) {
		t.Errorf("an interruption is %v", err)
	}
}
