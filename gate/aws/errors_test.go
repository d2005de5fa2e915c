package aws

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// What the documented codes mean to core and to people:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
func TestErrors(t *testing.T) {
	t.Parallel()
	c := &Cloud{o: Options{Name: "aws", Region: "eu-west-1"}}
	for _, test := range []struct {
		code, message string
		status        int
		fault         smithy.ErrorFault
		want          skyport.Code
		permanent     bool
		hint          string
	}{
		{"InsufficientInstanceCapacity", "There is not enough capacity", 500, smithy.FaultServer, skyport.CodeNoCapacity, true, "another flavor"},
		{"InsufficientHostCapacity", "", 500, smithy.FaultServer, skyport.CodeNoCapacity, true, ""},
		{"InsufficientFreeAddressesInSubnet", "", 400, smithy.FaultClient, skyport.CodeNoCapacity, true, ""},
		{"Unsupported", "not supported in your requested Availability Zone", 400, smithy.FaultClient, skyport.CodeNoCapacity, true, ""},
		{"UnfulfillableCapacity", "", 500, smithy.FaultServer, skyport.CodeNoCapacity, true, ""},
		{"SpotMaxPriceTooLow", "", 400, smithy.FaultClient, skyport.CodeNoCapacity, true, ""},
		{"VcpuLimitExceeded", "more vCPU capacity than your current vCPU limit of 5", 400, smithy.FaultClient, skyport.CodeQuota, true, "service-quotas"},
		{"InstanceLimitExceeded", "", 400, smithy.FaultClient, skyport.CodeQuota, true, "service-quotas"},
		{"MaxSpotInstanceCountExceeded", "", 400, smithy.FaultClient, skyport.CodeQuota, true, "service-quotas"},
		{"VpcLimitExceeded", "", 400, smithy.FaultClient, skyport.CodeQuota, true, quotaVPCs},
		{"InternetGatewayLimitExceeded", "", 400, smithy.FaultClient, skyport.CodeQuota, true, quotaGateways},
		{"VolumeLimitExceeded", "", 400, smithy.FaultClient, skyport.CodeQuota, true, ""},
		{"InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", 400, smithy.FaultClient, skyport.CodeUnknownImage, true, "skyport images"},
		{"InvalidAMIID.Malformed", "", 400, smithy.FaultClient, skyport.CodeUnknownImage, true, ""},
		{"InvalidAMIID.Unavailable", "", 400, smithy.FaultClient, skyport.CodeUnknownImage, true, ""},
		{"ParameterNotFound", "", 400, smithy.FaultClient, skyport.CodeUnknownImage, true, ""},
		{
			"UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/gate is not authorized to perform: " +
				"ec2:RunInstances on resource: arn:aws:ec2:eu-west-1::image/ami-1 because no policy allows it. Encoded authorization failure message: sEcReT-bLoB",
			403, smithy.FaultClient, skyport.CodeCredentials, true, "allow ec2:RunInstances: aws iam put-user-policy --user-name gate",
		},
		{
			"AccessDenied", "User: arn:aws:sts::123456789012:assumed-role/sky/i-1 is not authorized to perform: sts:GetCallerIdentity",
			403, smithy.FaultClient, skyport.CodeCredentials, true, "aws iam put-role-policy --role-name sky",
		},
		{"AuthFailure", "AWS was not able to validate the provided access credentials", 401, smithy.FaultClient, skyport.CodeCredentials, true, "log in again"},
		{"ExpiredToken", "", 400, smithy.FaultClient, skyport.CodeCredentials, true, "aws sso login"},
		{"RequestExpired", "", 400, smithy.FaultClient, skyport.CodeCredentials, true, "clock"},
		{"InvalidClientTokenId", "", 403, smithy.FaultClient, skyport.CodeCredentials, true, ""},
		{"OptInRequired", "", 401, smithy.FaultClient, skyport.CodeCredentials, true, "enable-region"},
		{"PendingVerification", "", 400, smithy.FaultClient, skyport.CodeCredentials, true, "Support"},
		{"RequestLimitExceeded", "Request limit exceeded.", 503, smithy.FaultServer, skyport.CodeThrottled, false, ""},
		{"ThrottlingException", "Rate exceeded", 400, smithy.FaultClient, skyport.CodeThrottled, false, ""},
		{"Anything", "", 429, smithy.FaultClient, skyport.CodeThrottled, false, ""},
		{"DependencyViolation", "has a dependent object", 400, smithy.FaultClient, skyport.CodeUnavailable, false, ""},
		{"InvalidGroup.NotFound", "", 400, smithy.FaultClient, skyport.CodeUnavailable, false, ""},
		{"IncorrectInstanceState", "", 400, smithy.FaultClient, skyport.CodeUnavailable, false, ""},
		{"InternalError", "An internal error has occurred", 500, smithy.FaultServer, skyport.CodeUnavailable, false, ""},
		{"Unavailable", "", 503, smithy.FaultServer, skyport.CodeUnavailable, false, ""},
		{"ServiceUnavailable", "", 503, smithy.FaultUnknown, skyport.CodeUnavailable, false, ""},
		{"InvalidParameterValue", "Invalid value", 400, smithy.FaultClient, skyport.CodeInternal, true, ""},
		{"InvalidParameterCombination", "", 400, smithy.FaultUnknown, skyport.CodeInternal, true, ""},
	} {
		t.Run(test.code, func(t *testing.T) {
			t.Parallel()
			answer := &http.Response{StatusCode: test.status, Header: http.Header{"Retry-After": {"7"}}}
			err := c.explain(&smithy.OperationError{ServiceID: "EC2", OperationName: "RunInstances", Err: &smithyhttp.ResponseError{
				Response: &smithyhttp.Response{Response: answer}, Err: &smithy.GenericAPIError{Code: test.code, Message: test.message, Fault: test.fault},
			}}, "make node %s", "n1")
			if got := skyport.CodeOf(err); got != test.want {
				t.Errorf("code %q, want %q: %v", got, test.want, err)
			}
			if got := errors.Is(err, gate.ErrPermanent); got != test.permanent {
				t.Errorf("permanent: %v, want %v: %v", got, test.permanent, err)
			}
			var throttled *cloud.Throttled
			if errors.As(err, &throttled) && throttled.After != 7*time.Second {
				t.Errorf("to be left alone for %s", throttled.After)
			}
			text := err.Error()
			if !strings.Contains(text, "site aws") || !strings.Contains(text, "make node n1") || !strings.Contains(text, test.code) || strings.Contains(text, "bLoB") {
				t.Errorf("text: %s", text)
			}
			if !strings.Contains(skyport.HintOf(err), test.hint) {
				t.Errorf("hint %q, want %q in it", skyport.HintOf(err), test.hint)
			}
		})
	}
	if err := c.explain(errors.New("connection refused"), "list"); errors.Is(err, gate.ErrPermanent) {
		t.Errorf("a broken connection is for good: %v", err)
	}
}

// The quota that a flavor counts against is named in the command that asks for more.
func TestQuotas(t *testing.T) {
	t.Parallel()
	c := &Cloud{o: Options{Name: "aws", Region: "eu-west-1"}}
	for _, test := range []struct {
		name, flavor string
		spot         bool
		want         string
	}{
		{"VcpuLimitExceeded", "m7i.large", false, "--quota-code L-1216C47A"},
		{"MaxSpotInstanceCountExceeded", "m7i.large", true, "--quota-code L-34B43A08"},
		{"VcpuLimitExceeded", "g5.xlarge", false, "--quota-code L-DB2E81BA"},
		{"VcpuLimitExceeded", "p4d.24xlarge", false, "--quota-code L-417A185B"},
		{"VcpuLimitExceeded", "hpc7a.96xlarge", false, "--quota-code L-F7808C92"},
		{"VcpuLimitExceeded", "x2idn.16xlarge", true, "--quota-code L-E3A00192"},
		{"VcpuLimitExceeded", "", false, "list-service-quotas"},
		{"SomethingLimitExceeded", "m7i.large", false, "list-service-quotas"},
	} {
		if got := c.moreOf(test.name, test.flavor, test.spot); !strings.Contains(got, test.want) {
			t.Errorf("%s of %q, spot %v: %q, want %q in it", test.name, test.flavor, test.spot, got, test.want)
		}
	}
}

// Why a node ended decides what core does:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
func TestStateReasons(t *testing.T) {
	t.Parallel()
	spot, plain := types.InstanceLifecycleTypeSpot, types.InstanceLifecycleType("")
	for _, test := range []struct {
		state     types.InstanceStateName
		reason    string
		lifecycle types.InstanceLifecycleType
		want      skyport.Code
	}{
		{types.InstanceStateNamePending, "pending", plain, ""},
		{types.InstanceStateNameRunning, "", spot, ""},
		{types.InstanceStateNameTerminated, "Server.InsufficientInstanceCapacity", plain, skyport.CodeNoCapacity},
		{types.InstanceStateNameTerminated, "Server.InsufficientInstanceCapacity", spot, skyport.CodeNoCapacity},
		{types.InstanceStateNameTerminated, "Server.SpotInstanceTermination", spot, skyport.CodeInterrupted},
		{types.InstanceStateNameShuttingDown, "Server.SpotInstanceTermination", spot, skyport.CodeInterrupted},
		{types.InstanceStateNameShuttingDown, "", spot, skyport.CodeInterrupted},
		{types.InstanceStateNameTerminated, "Client.UserInitiatedShutdown", spot, skyport.CodeUnavailable},
		{types.InstanceStateNameTerminated, "Client.UserInitiatedShutdown", plain, skyport.CodeUnavailable},
		{types.InstanceStateNameTerminated, "Client.InstanceInitiatedShutdown", plain, skyport.CodeUnavailable},
		{types.InstanceStateNameTerminated, "Server.InternalError", plain, skyport.CodeUnavailable},
		{types.InstanceStateNameTerminated, "Client.InternalError", plain, skyport.CodeUnavailable},
		{types.InstanceStateNameTerminated, "Client.VolumeLimitExceeded", plain, skyport.CodeQuota},
		{types.InstanceStateNameTerminated, "Client.InvalidSnapshot.NotFound", plain, skyport.CodeUnknownImage},
		{types.InstanceStateNameStopped, "Server.ScheduledStop", plain, skyport.CodeUnavailable},
	} {
		err := failure(thing{kind: types.ResourceTypeInstance, tags: map[string]string{tagName: "n1"}, instance: &types.Instance{
			State: &types.InstanceState{Name: test.state}, StateReason: &types.StateReason{Code: &test.reason, Message: sdk.String("so it is")}, InstanceLifecycle: test.lifecycle,
		}})
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s %s: %v", test.state, test.reason, err)
		case test.want != "" && (skyport.CodeOf(err) != test.want || !errors.Is(err, gate.ErrPermanent) || !strings.Contains(err.Error(), "n1")):
			t.Errorf("%s %s, %q: %v, want %s", test.state, test.reason, test.lifecycle, err, test.want)
		}
	}
}
