package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// Codes of EC2 and of the services beside it, by what they mean to us:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html,
// https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
var (
	capacityCodes = words(`InsufficientInstanceCapacity InsufficientHostCapacity InsufficientReservedInstanceCapacity
		InsufficientCapacityOnHost InsufficientCapacity InsufficientVolumeCapacity InsufficientAddressCapacity
		InsufficientFreeAddressesInSubnet UnfulfillableCapacity SpotMaxPriceTooLow Unsupported`)
	// All that end in LimitExceeded are quotas too, but RequestLimitExceeded.
	quotaCodes      = words(`MaxSpotInstanceCountExceeded MaxSpotFleetRequestCountExceeded MaxIOPSLimitExceeded ResourceCountExceeded`)
	credentialCodes = words(`AuthFailure UnauthorizedOperation AccessDenied AccessDeniedException ExpiredToken ExpiredTokenException
		RequestExpired InvalidClientTokenId SignatureDoesNotMatch InvalidSignatureException IncompleteSignature MissingAuthenticationToken
		MissingAuthenticationTokenException UnrecognizedClientException NotAuthorized OptInRequired Blocked PendingVerification`)
	throttleCodes = words(`RequestLimitExceeded Throttling ThrottlingException ThrottledException EC2ThrottledException
		TooManyRequestsException RequestThrottled RequestThrottledException SlowDown BandwidthLimitExceeded`)
	// Refused now, but not for ever: what was made a moment ago is not yet known
	// everywhere, or what is being removed is still in use.
	passingCodes = words(`DependencyViolation IncorrectState IncorrectInstanceState IncorrectSpotRequestState IncorrectModificationState
		IdempotentParameterMismatch IdempotentInstanceTerminated ConcurrentTagAccess InvalidGroup.InUse InvalidPlacementGroup.InUse
		VolumeInUse InvalidGroup.Duplicate InvalidPlacementGroup.Duplicate InvalidSubnet.Conflict Resource.AlreadyAssociated
		RequestTimeout RequestTimeoutException TryAgain`)
)

func words(text string) map[string]bool {
	all := map[string]bool{}
	for _, word := range strings.Fields(text) {
		all[word] = true
	}
	return all
}

// code is that of the service's answer; empty: it did not answer.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// notFound says whether the thing itself is not there.
func notFound(err error) bool {
	c := code(err)
	return strings.HasSuffix(c, ".NotFound") || strings.HasSuffix(c, "NotFoundException") || c == "InvalidPlacementGroup.Unknown" ||
		c == "ParameterNotFound"
}

// explain says what failed, and by the service's answer what kind of failure
// that is: passing ones come back as they are.
func (c *Cloud) explain(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := "site " + c.o.Name + ": " + fmt.Sprintf(format, args...)
	var (
		ours *skyport.Error
		api  smithy.APIError
	)
	switch {
	case errors.As(err, &ours):
		return err // explained already
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), !errors.As(err, &api):
		return fmt.Errorf("%s: %w", what, err)
	}
	said := &answer{api}
	switch name := api.ErrorCode(); {
	case throttleCodes[name] || status(err) == http.StatusTooManyRequests:
		return &cloud.Throttled{After: retryAfter(err), Err: fmt.Errorf("%s: %w", what, said)}
	case capacityCodes[name]:
		return cloud.Permanent(skyport.CodeNoCapacity, "%s: region %s has no room for it: %w", what, c.o.Region, said).
			WithHint("try another flavor or site, or wait: capacity comes and goes")
	case quotaCodes[name] || strings.HasSuffix(name, "LimitExceeded"):
		return cloud.Permanent(skyport.CodeQuota, "%s: the account's quota is used up: %w", what, said).
			WithHint("ask for more: %s", c.moreOf(name, "", false))
	case strings.HasPrefix(name, "InvalidAMIID") || name == "InvalidAMI" || name == "ParameterNotFound":
		return cloud.Permanent(skyport.CodeUnknownImage, "%s: %w", what, said).
			WithHint("see what there is with skyport images --site %s; AMI ids differ between regions", c.o.Name)
	case credentialCodes[name]:
		return cloud.Permanent(skyport.CodeCredentials, "%s: refused: %w", what, said).WithHint("%s", permit(name, api.ErrorMessage()))
	case passingCodes[name], notFound(err), api.ErrorFault() == smithy.FaultServer, status(err) >= 500:
		return skyport.Errorf(skyport.CodeUnavailable, "%s: %w", what, said)
	}
	return cloud.Permanent(skyport.CodeInternal, "%s: %w", what, said)
}

// answer is a service's error as people read it.
type answer struct{ api smithy.APIError }

// encoded is what EC2 appends for those who may decode it: long, and nothing for people.
var encoded = regexp.MustCompile(`\.?\s*Encoded authorization failure message: \S+`)

func (a *answer) Error() string {
	text := skyport.Abbreviate(encoded.ReplaceAllString(a.api.ErrorMessage(), ""), 500)
	return strings.TrimSuffix(strings.TrimSpace(text), ".") + " (" + a.api.ErrorCode() + ")"
}

func (a *answer) Unwrap() error { return a.api }

var (
	action    = regexp.MustCompile(`not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)`)
	principal = regexp.MustCompile(`arn:aws[a-z-]*:(?:iam|sts)::\d*:(user|assumed-role)/([\w+=,.@-]+)`)
)

// permit says what mends a refusal.
func permit(name, message string) string {
	switch name {
	case "UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "NotAuthorized":
		command := "aws iam put-user-policy --user-name NAME"
		if m := principal.FindStringSubmatch(message); m != nil && m[1] == "assumed-role" {
			command = "aws iam put-role-policy --role-name " + m[2]
		} else if m != nil {
			command = "aws iam put-user-policy --user-name " + m[2]
		}
		what := "what the gate does"
		if m := action.FindStringSubmatch(message); m != nil {
			what = m[1]
		}
		return "allow " + what + ": " + command + " --policy-name skyport --policy-document file://policy.json, with gate/aws/policy.json of Sky Port"
	case "RequestExpired", "SignatureDoesNotMatch", "InvalidSignatureException":
		return "look at the clock of the gate's machine first (timedatectl), then at the secret key"
	case "OptInRequired":
		return "switch the region on (aws account enable-region --region-name REGION), or accept the image's terms in the AWS Marketplace"
	case "Blocked", "PendingVerification":
		return "ask AWS Support about the account"
	}
	return "log in again (aws sso login), or renew the keys that gate.yaml names"
}

func status(err error) int {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// retryAfter reads the answer's header, which EC2 itself does not send but proxies do.
func retryAfter(err error) time.Duration {
	var response *smithyhttp.ResponseError
	if !errors.As(err, &response) || response.Response == nil {
		return 0
	}
	seconds, err := strconv.Atoi(response.Response.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
