package openstack

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

// refusal is what a service has answered in place of doing it.
type refusal struct {
	status  int
	kind    string // Neutron's type, such as OverQuota
	message string
	after   time.Duration // Retry-After
}

// refused finds the service's answer in an error of gophercloud.
func refused(err error) (refusal, bool) {
	var answer gophercloud.ErrUnexpectedResponseCode
	if !errors.As(err, &answer) {
		return refusal{}, false
	}
	r := refusal{status: answer.Actual}
	r.kind, r.message, r.after = message(answer.Body)
	if r.message == "" {
		r.message = http.StatusText(answer.Actual)
	}
	if after := retryAfter(answer.ResponseHeader.Get("Retry-After"), time.Now()); after > 0 {
		r.after = after
	}
	return r, true
}

// message reads the body of a refusal. The services do it differently:
//
//	{"badRequest": {"code": 400, "message": "…"}}             compute, https://docs.openstack.org/api-guide/compute/faults.html
//	{"overLimit": {"code": 413, "message": "…", "retryAfter": "3"}}
//	{"NeutronError": {"type": "OverQuota", "message": "…"}}    network, https://docs.openstack.org/api-ref/network/v2/#general-api-overview
//	{"error": {"code": 401, "message": "…", "title": "…"}}     identity, https://docs.openstack.org/api-ref/identity/v3/
//
// Image and proxies before the services answer with HTML or plain text.
func message(body []byte) (kind, text string, after time.Duration) {
	var answer map[string]json.RawMessage
	if json.Unmarshal(body, &answer) == nil {
		for name, raw := range answer {
			var one struct {
				Type, Message string
				RetryAfter    any
			}
			if json.Unmarshal(raw, &one) == nil && one.Message != "" {
				switch seconds := one.RetryAfter.(type) {
				case string:
					after = retryAfter(seconds, time.Now())
				case float64:
					after = time.Duration(seconds) * time.Second
				}
				kind = one.Type
				if kind == "" {
					kind = name
				}
				return kind, tidy(one.Message), after
			}
			var plain string
			if name == "NeutronError" && json.Unmarshal(raw, &plain) == nil {
				return name, tidy(plain), 0
			}
		}
	}
	return "", tidy(tags.ReplaceAllString(string(body), " ")), 0
}

var tags = regexp.MustCompile(`(?s)<(style|script|title).*?</(style|script|title)>|<[^>]*>`)

// tidy makes one line of a text that the cloud has written.
func tidy(text string) string {
	return skyport.Abbreviate(strings.TrimSuffix(strings.Join(strings.Fields(text), " "), "."), 300)
}

// retryAfter reads the header: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 24*3600)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

func gone(err error) bool { return is(err, http.StatusNotFound) }

// busy says that something else must go first: 409, and Neutron's and Cinder's
// 400 for a thing that is in use.
func busy(err error) bool {
	r, ok := refused(err)
	return ok && (r.status == http.StatusConflict && r.kind != "OverQuota" ||
		r.status == http.StatusBadRequest && strings.Contains(strings.ToLower(r.message), "in use"))
}

func is(err error, status int) bool {
	r, ok := refused(err)
	return ok && r.status == status
}

// explain says what was tried and classifies the cloud's answer.
func (s *site) explain(err error, doing string) error {
	if err == nil {
		return nil
	}
	var known *skyport.Error
	var throttled *cloud.Throttled
	if errors.As(err, &known) || errors.As(err, &throttled) {
		return err
	}
	var renewal *gophercloud.ErrUnableToReauthenticate
	if errors.As(err, &renewal) && is(renewal.ErrReauth, http.StatusUnauthorized) {
		return cloud.Permanent(skyport.CodeCredentials, "%s: the cloud of site %s refuses the credentials: %w", doing, s.o.Name, renewal.ErrReauth).
			WithHint("openstack token issue; renew the application credential or password in the configuration")
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return cloud.Permanent(skyport.CodeCredentials,
			"%s: the certificate of site %s is of an authority that is not known here: %w", doing, s.o.Name, err).
			WithHint("put the authority's certificates into a file and name it as ca_file, or as cacert in clouds.yaml")
	}
	r, ok := refused(err)
	if !ok {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return skyport.Errorf(skyport.CodeUnavailable, "%s: %w", doing, err)
		}
		return skyport.Errorf(skyport.CodeUnavailable, "%s: no answer from site %s: %w", doing, s.o.Name, err)
	}
	return r.classify(doing, err)
}

// classify turns a service's answer into a code that core decides by.
func (r refusal) classify(doing string, cause error) error {
	text := strings.ToLower(r.message)
	permanent := func(code skyport.Code) *skyport.Error {
		e := cloud.Permanent(code, "%s: %s (HTTP %d)", doing, r.message, r.status)
		e.Cause = errors.Join(e.Cause, cause)
		return e
	}
	overQuota := r.kind == "OverQuota" || strings.Contains(text, "quota exceeded") || strings.Contains(text, "exceeded allowed") ||
		strings.Contains(text, "exceeds allowed") || strings.Contains(text, "over quota")
	switch {
	case overQuota:
		return permanent(skyport.CodeQuota).
			WithHint("delete what is not needed or ask the cloud's administrators for more: openstack quota show --usage")
	case r.status == http.StatusTooManyRequests, r.status == http.StatusRequestEntityTooLarge && r.after > 0,
		r.kind == "overLimit", r.status == http.StatusServiceUnavailable && r.after > 0:
		return &cloud.Throttled{After: r.after, Err: skyport.Errorf(skyport.CodeThrottled, "%s: %s (HTTP %d)", doing, r.message, r.status)}
	case r.status == http.StatusUnauthorized:
		return permanent(skyport.CodeCredentials).
			WithHint("openstack token issue; renew the application credential or password in the configuration")
	case r.status == http.StatusForbidden:
		return permanent(skyport.CodeCredentials).
			WithHint("the project's role does not allow it: openstack role add --user USER --project PROJECT member")
	case r.kind == "IpAddressGenerationFailure", r.kind == "ExternalIpAddressExhausted", strings.Contains(text, "no more ip addresses"):
		return permanent(skyport.CodeNoCapacity).WithHint("the network has no free addresses: openstack ip availability list")
	case r.status == http.StatusConflict && strings.Contains(text, "no valid host"):
		return permanent(skyport.CodeNoCapacity)
	case r.status == http.StatusBadRequest || r.status == http.StatusNotFound || r.status == http.StatusRequestEntityTooLarge:
		if e := r.mistake(text, permanent); e != nil {
			return e
		}
	}
	return r.passing(doing, cause)
}

// passing is a refusal that may be none the next time.
func (r refusal) passing(doing string, cause error) error {
	e := skyport.Errorf(skyport.CodeUnavailable, "%s: %s (HTTP %d)", doing, r.message, r.status)
	e.Cause = cause
	return e
}

// mistake classifies what was asked for wrongly.
// Texts: nova/exception.py and nova/api/openstack/compute/servers.py of https://opendev.org/openstack/nova
func (r refusal) mistake(text string, permanent func(skyport.Code) *skyport.Error) error {
	switch {
	case strings.Contains(text, "can not find requested image"), strings.Contains(text, "image") && strings.Contains(text, "could not be found"),
		strings.Contains(text, "image") && strings.Contains(text, "is not active"), strings.Contains(text, "is unacceptable"):
		return permanent(skyport.CodeUnknownImage).WithHint("openstack image list --status active")
	case strings.Contains(text, "flavor") && (strings.Contains(text, "could not be found") || strings.Contains(text, "invalid flavorref")):
		return permanent(skyport.CodeUnknownFlavor).WithHint("openstack flavor list")
	case strings.Contains(text, "too small for requested image"), strings.Contains(text, "minimum"):
		return permanent(skyport.CodeInvalid).WithHint("take a larger flavor or another image, or nodes that boot from a volume: boot_volume")
	case strings.Contains(text, "availability zone"):
		return permanent(skyport.CodeInvalid).WithHint("openstack availability zone list --compute")
	}
	if r.status == http.StatusNotFound {
		return nil // something went away meanwhile
	}
	return permanent(skyport.CodeInvalid)
}

// broken classifies the fault of a server that will never run.
// https://docs.openstack.org/api-guide/compute/faults.html#server-faults
func broken(node, fault string) error {
	text := strings.ToLower(fault)
	var code skyport.Code
	hint := "openstack server show " + node
	switch {
	case strings.Contains(text, "no valid host"), strings.Contains(text, "exhausted all hosts"),
		strings.Contains(text, "exceeded maximum number of retries"),
		strings.Contains(text, "insufficient compute resources"):
		code, hint = skyport.CodeNoCapacity, "take another flavor, zone or site, or try later"
	case strings.Contains(text, "quota"), strings.Contains(text, "exceeds allowed"):
		code, hint = skyport.CodeQuota, "openstack quota show --usage"
	case strings.Contains(text, "image") && (strings.Contains(text, "not be found") || strings.Contains(text, "unacceptable")):
		code, hint = skyport.CodeUnknownImage, "openstack image list --status active"
	case strings.Contains(text, "no more ip addresses"):
		code, hint = skyport.CodeNoCapacity, "the network has no free addresses: openstack ip availability list"
	default:
		code = skyport.CodeUnavailable
	}
	if fault == "" {
		fault = "the cloud does not say why"
	}
	return cloud.Permanent(code, "node %s did not start: %s", node, tidy(fault)).WithHint("%s", hint)
}

// loginError says why nobody let us in.
func (s *site) loginError(err error, a account) error {
	doing := "log in at " + a.Auth.AuthURL
	if r, ok := refused(err); ok && r.status == http.StatusNotFound {
		return cloud.Permanent(skyport.CodeCredentials, "%s: no Keystone v3 is there: %s (HTTP %d)", doing, r.message, r.status).
			WithHint("auth_url mostly ends in /v3: openstack catalog show identity")
	}
	return s.explain(err, doing)
}
