package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// fault is an error as Azure tells it, with the ones below it. See
// https://github.com/microsoft/api-guidelines/blob/vNext/azure/Guidelines.md#handling-errors
type fault struct {
	Code    string       `json:"code"`
	Message string       `json:"message"`
	Target  string       `json:"target"`
	Details []fault      `json:"details"`
	More    []faultExtra `json:"additionalInfo"`
}

type faultExtra struct {
	Type string          `json:"type"`
	Info json.RawMessage `json:"info"`
}

// parseFault reads the body of an error. Older services leave the outer
// "error" away, and some put a whole body into a message.
func parseFault(body []byte) fault {
	var outer struct {
		Error *fault `json:"error"`
		fault
	}
	if err := json.Unmarshal(body, &outer); err != nil {
		return fault{Message: skyport.Abbreviate(string(body), 200)}
	}
	if outer.Error != nil {
		return *outer.Error
	}
	return outer.fault
}

// depth bounds how far into the errors below an error we look.
const depth = 8

// flat lists the innermost errors first: they say what happened, the outer ones
// only where.
func (f fault) flat(left int) []fault {
	var all []fault
	if left == 0 {
		return nil
	}
	for _, inner := range f.Details {
		all = append(all, inner.flat(left-1)...)
	}
	if text := strings.TrimSpace(f.Message); strings.HasPrefix(text, "{") {
		if inner := parseFault([]byte(text)); inner.Code != "" {
			all = append(all, inner.flat(left-1)...)
		}
	}
	return append(all, f)
}

// explain says what an error of the SDK means. what says what was tried, and on what.
func (s *site) explain(err error, what string, args ...any) error {
	if err == nil {
		return nil
	}
	what = fmt.Sprintf(what, args...)
	var response *azcore.ResponseError
	var login *azidentity.AuthenticationFailedError
	var final interface{ NonRetriable() }
	var known *skyport.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", what, err)
	case errors.As(err, &known):
		return fmt.Errorf("%s: %w", what, err)
	case errors.As(err, &response):
		return s.explainResponse(response, what)
	case errors.As(err, &login):
		return explainLogin(login, what)
	case errors.As(err, &final):
		return refused("%s: no credentials: %s", what, skyport.Abbreviate(oneLine(err.Error()), 400))
	}
	return skyport.Errorf(skyport.CodeUnavailable, "%s: Azure cannot be reached: %w", what, err)
}

func (s *site) explainResponse(r *azcore.ResponseError, what string) error {
	top := fault{Code: r.ErrorCode}
	if r.RawResponse != nil && r.RawResponse.Body != nil {
		if body, err := runtime.Payload(r.RawResponse); err == nil && len(body) > 0 {
			top = parseFault(body)
			if top.Code == "" {
				top.Code = r.ErrorCode
			}
		}
	}
	return s.judge(top, r.StatusCode, retryAfter(r.RawResponse), what)
}

// judge classifies an error by the codes in it, and by the HTTP status where
// none of them is known. The codes are those of
// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
// and https://learn.microsoft.com/azure/virtual-machines/error-codes-spot
func (s *site) judge(top fault, status int, after time.Duration, what string) error {
	all := top.flat(depth)
	if status == http.StatusTooManyRequests {
		return &cloud.Throttled{After: after, Err: errors.New(what + ": " + all[0].text())}
	}
	for _, f := range all {
		if err := s.judgeCode(f, status, after, what); err != nil {
			return err
		}
	}
	text := all[0].text()
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return refused("%s: Azure refuses it: %s", what, text)
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return cloud.Permanent(skyport.CodeInvalid, "%s: Azure does not take it: %s", what, text)
	case http.StatusNotFound:
		return skyport.Errorf(skyport.CodeNotFound, "%s: %s", what, text)
	}
	return skyport.Errorf(skyport.CodeUnavailable, "%s: %s", what, text)
}

// judgeCode returns nil for a code that says nothing by itself.
func (s *site) judgeCode(f fault, status int, after time.Duration, what string) error {
	text := f.text()
	switch code := f.Code; {
	case code == "":
		return nil
	case code == "TooManyRequests", strings.HasSuffix(code, "RequestsThrottled"), code == "OperationThrottled":
		return &cloud.Throttled{After: after, Err: errors.New(what + ": " + text)}
	case noCapacity[code]:
		return cloud.Permanent(skyport.CodeNoCapacity, "%s: Azure has no such machines left in %s now: %s", what, s.o.Region, text).
			WithHint("Try another flavor or region, or later.")
	case strings.HasSuffix(code, "QuotaExceeded"), strings.HasSuffix(code, "CountLimitReached"),
		code == "ResourceQuotaExceeded", code == "OperationNotAllowed" && strings.Contains(strings.ToLower(f.Message), "quota"):
		return s.quota(f, what)
	case code == "InvalidParameter" && f.Target == "vmSize":
		return cloud.Permanent(skyport.CodeNoCapacity, "%s: the size is not to be had in %s: %s", what, s.o.Region, text).
			WithHint("Try another flavor or region.")
	case strings.Contains(code, "Image") && strings.HasSuffix(code, "NotFound"), missingImage[code], code == "InvalidParameter" && f.Target == "imageReference":
		return cloud.Permanent(skyport.CodeUnknownImage, "%s: the image cannot be had: %s", what, text).
			WithHint("az vm image show --location %s --urn publisher:offer:sku:version tells whether it exists; "+
				"az vm image terms accept --urn … accepts the terms of one that is sold.", s.o.Region)
	case unregistered[code]:
		return refused("%s: the subscription does not use a service that is needed: %s", what, text).
			WithHint("az provider register --subscription %s -n Microsoft.Compute (also Microsoft.Network, Microsoft.DevTestLab)", s.o.Subscription)
	case denied[code], strings.HasPrefix(code, "AADSTS"):
		return refused("%s: Azure refuses it: %s", what, text)
	case code == "RequestDisallowedByPolicy":
		return cloud.Permanent(skyport.CodeForbidden, "%s: the policy %q of the subscription forbids it", what, f.policy()).
			WithHint("Ask who keeps the subscription for an exemption: az policy exemption create. Azure said: %s", text)
	case code == "ScopeLocked":
		return skyport.Errorf(skyport.CodeConflict, "%s: a lock forbids it: %s", what, text).
			WithHint("Find the lock by az lock list --subscription %s -o table, remove it by az lock delete.", s.o.Subscription)
	case passing[code]:
		return skyport.Errorf(skyport.CodeUnavailable, "%s: %s", what, text)
	case final[code], strings.HasPrefix(code, "Invalid") && (status == 0 || status == http.StatusBadRequest) && len(f.Details) == 0:
		return cloud.Permanent(skyport.CodeInvalid, "%s: Azure does not take it: %s", what, text)
	}
	return nil
}

func set(codes ...string) map[string]bool {
	all := make(map[string]bool, len(codes))
	for _, code := range codes {
		all[code] = true
	}
	return all
}

var (
	noCapacity = set("SkuNotAvailable", "AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest",
		"OverconstrainedZonalAllocationRequest", "NotAvailableForSubscription", "SpotVMNotAvailable")
	missingImage = set("MarketplacePurchaseEligibilityFailed", "VMMarketplaceInvalidInput", "ResourcePurchaseValidationFailed", "ResourcePurchaseCanceled")
	unregistered = set("MissingSubscriptionRegistration", "SubscriptionNotRegistered", "NoRegisteredProviderFound")
	denied       = set("AuthorizationFailed", "LinkedAuthorizationFailed", "InvalidAuthenticationToken", "InvalidAuthenticationTokenTenant",
		"ExpiredAuthenticationToken", "AuthenticationFailed", "InvalidSubscriptionId", "SubscriptionNotFound", "ReadOnlyDisabledSubscription",
		"DisallowedOperation", "AuthorizationPermissionMismatch")
	passing = set("InternalServerError", "InternalExecutionError", "InternalOperationError", "NetworkingInternalOperationError", "ServiceUnavailable",
		"RetryableError", "RetryableErrorDueToAnotherOperation", "AnotherOperationInProgress", "OperationPreempted", "ServerTimeout", "GatewayTimeout",
		"ResourceGroupBeingDeleted", "ResourceGroupDeletionBlocked", "DeploymentActive", "DeploymentBeingDeleted", "StorageFailure",
		// What was made a moment ago is not yet seen everywhere.
		"InvalidResourceReference")
	final = set("PropertyChangeNotAllowed", "OSProvisioningTimedOut", "OSProvisioningClientError", "OSProvisioningInternalError", "ReservedResourceName",
		"BadRequest", "InvalidTemplate", "LocationNotAvailableForResourceType", "LocationNotAvailableForResourceGroup")
)

// refused is an error about who we are, or what we may do.
func refused(format string, args ...any) *skyport.Error {
	err := cloud.Permanent(skyport.CodeCredentials, format, args...)
	return err.WithHint("skyport gate check says what is missing and the command that grants it.")
}

// explainLogin tells what the token service said. Its own text is long, and ends
// with numbers for its support.
func explainLogin(failed *azidentity.AuthenticationFailedError, what string) error {
	status, text := 0, failed.Error()
	if failed.RawResponse != nil {
		status = failed.RawResponse.StatusCode
		var body struct {
			Description string `json:"error_description"`
		}
		if data, err := runtime.Payload(failed.RawResponse); err == nil && json.Unmarshal(data, &body) == nil && body.Description != "" {
			text = body.Description
		}
	}
	if cut := strings.Index(text, "Trace ID"); cut > 0 {
		text = text[:cut]
	}
	text = skyport.Abbreviate(oneLine(text), 400)
	switch {
	case status == http.StatusTooManyRequests:
		return &cloud.Throttled{After: retryAfter(failed.RawResponse), Err: errors.New(what + ": log in: " + text)}
	case status >= http.StatusInternalServerError, status == 0 && !strings.Contains(text, "AADSTS"):
		return skyport.Errorf(skyport.CodeUnavailable, "%s: log in: %s", what, text)
	}
	return refused("%s: the login is refused: %s", what, text)
}

// Texts of quotas, as in https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-resource-quota
var (
	quotaName  = regexp.MustCompile(`(?:exceeding approved (.+?) quota|quota limits? of ([A-Za-z]+))`)
	quotaLimit = regexp.MustCompile(`(?:Current Limit|Maximum allowed): (\d+)`)
	quotaUsed  = regexp.MustCompile(`(?:Current Usage|Current in use): (\d+)`)
	quotaMore  = regexp.MustCompile(`Additional [Rr]e(?:quired|quested): (\d+)`)
)

// quota says which quota it is and how to have more of it.
func (s *site) quota(f fault, what string) error {
	first := func(m []string) string { return strings.TrimSpace(strings.Join(m[min(1, len(m)):], "")) }
	name := first(quotaName.FindStringSubmatch(f.Message))
	limit, used, more := first(quotaLimit.FindStringSubmatch(f.Message)), first(quotaUsed.FindStringSubmatch(f.Message)), first(quotaMore.FindStringSubmatch(f.Message))
	text := f.text()
	if name != "" && limit != "" && used != "" {
		text = fmt.Sprintf("%s of %s %s are used", used, limit, name)
		if more != "" {
			text += ", " + more + " more are needed"
		}
	}
	return cloud.Permanent(skyport.CodeQuota, "%s: the subscription's quota in %s does not suffice: %s", what, s.o.Region, text).
		WithHint("See az vm list-usage --location %s -o table; ask for more at https://portal.azure.com/#view/Microsoft_Azure_Capacity/QuotaMenuBlade/~/myQuotas "+
			"or by az quota update.", s.o.Region)
}

// policy is the name of the policy that forbade something. See
// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-policy-requestdisallowedbypolicy
func (f fault) policy() string {
	for _, more := range f.More {
		var info struct {
			Assignment  string `json:"policyAssignmentDisplayName"`
			Definition  string `json:"policyDefinitionDisplayName"`
			Assignment2 string `json:"policyAssignmentName"`
		}
		if more.Type == "PolicyViolation" && json.Unmarshal(more.Info, &info) == nil {
			for _, name := range []string{info.Assignment, info.Definition, info.Assignment2} {
				if name != "" {
					return name
				}
			}
		}
	}
	if m := policyName.FindStringSubmatch(f.Message); m != nil {
		return m[1]
	}
	return "unknown"
}

var policyName = regexp.MustCompile(`"policyAssignment":\{"name":"([^"]+)"`)

// text is the code and the message in one line.
func (f fault) text() string {
	message := skyport.Abbreviate(oneLine(f.Message), 300)
	switch {
	case message == "":
		return f.Code
	case f.Code == "":
		return message
	}
	return f.Code + ": " + message
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// retryAfter is how long an answer asks to be left alone: in milliseconds in
// headers of Azure's own, in seconds or as a date in everybody's.
func retryAfter(r *http.Response) time.Duration {
	if r == nil {
		return 0
	}
	for _, name := range []string{"retry-after-ms", "x-ms-retry-after-ms"} {
		if ms, err := strconv.Atoi(r.Header.Get(name)); err == nil && ms >= 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	text := r.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second
	}
	if when, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(when))
	}
	return 0
}

// absent says whether an answer means that there is no such thing.
func absent(err error) bool {
	var response *azcore.ResponseError
	return errors.As(err, &response) && response.StatusCode == http.StatusNotFound
}

// conflict says whether an answer means that something else is going on.
func conflict(err error) bool {
	var response *azcore.ResponseError
	return errors.As(err, &response) && response.StatusCode == http.StatusConflict
}

// permanent says whether an error was classified as one that stays.
func permanent(err error) bool { return errors.Is(err, gate.ErrPermanent) }
