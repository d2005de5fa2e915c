package azuretest

import (
	"fmt"
	"net/http"
	"strings"
)

// Problem is an error as Resource Manager tells it.
// https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
type Problem struct {
	Status  int       `json:"-"`
	Code    string    `json:"code"`
	Message string    `json:"message"`
	Target  string    `json:"target,omitempty"`
	Details []Problem `json:"details,omitempty"`
}

// Error tells code and message.
func (p *Problem) Error() string { return p.Code + ": " + p.Message }

func problem(status int, code, format string, args ...any) *Problem {
	return &Problem{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func invalidParameter(target, format string, args ...any) *Problem {
	p := problem(http.StatusBadRequest, "InvalidParameter", format, args...)
	p.Target = target
	return p
}

func noGroup(name string) *Problem {
	return problem(http.StatusNotFound, "ResourceGroupNotFound", "Resource group '%s' could not be found.", name)
}

func noResource(id string) *Problem {
	p := parseID(id)
	return problem(http.StatusNotFound, "ResourceNotFound", "The Resource '%s/%s' under resource group '%s' was not found. "+
		"For more details please go to https://aka.ms/ARMResourceNotFoundFix", p.kind, strings.Join(p.names, "/"), p.group)
}

func groupBeingDeleted(name string) *Problem {
	return problem(http.StatusConflict, "ResourceGroupBeingDeleted", "The resource group '%s' is in deprovisioning state and cannot perform this operation.", name)
}

func methodNotAllowed(method string) *Problem {
	return problem(http.StatusMethodNotAllowed, "HttpMethodNotAllowed", "The requested resource does not support http method '%s'.", method)
}

func allocationFailed() *Problem {
	return problem(http.StatusConflict, "AllocationFailed", "Allocation failed. We do not have sufficient capacity for the requested VM size in this region. "+
		"Read more about improving likelihood of allocation success at https://aka.ms/allocation-guidance")
}

func skuNotAvailable(size, location string) *Problem {
	return problem(http.StatusConflict, "SkuNotAvailable", "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: %s' is currently not available "+
		"in location '%s'. Please try another size or deploy to a different location or different zone. See https://aka.ms/azureskunotavailable for details.", size, location)
}
