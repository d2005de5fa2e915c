package aws

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/openworkload/skyport"
)

// wire stands between the SDK and moto: it keeps what was asked, answers with
// errors on demand, and answers itself what moto does not know:
//
//   - placement groups, which moto lacks;
//   - the price list, which moto lacks;
//   - CreateVpc with DryRun, which moto carries out;
//   - a ClientToken that was used before, which moto takes for a new one where
//     EC2 answers with the instance that is there.
type wire struct {
	next http.RoundTripper

	mu     sync.Mutex
	asked  []call
	faults map[string][]fault
	groups map[string]map[string]string // placement groups by name: their tags
	tokens map[string][]byte            // what RunInstances answered

	trouble *rand.Rand        // nil: none
	stale   map[string][]byte // the lists before
	refused skyport.Code      // RunInstances of node 1 is, with this code
	victim  string            // partition that this is about
	taken   bool              // nodes that were ended count as taken back
}

// call is one request.
type call struct {
	action string
	form   url.Values
}

// fault is an answer in place of moto's.
type fault struct {
	status  int
	code    string
	message string
	after   bool // moto does it, and the answer is lost
	when    func(url.Values) bool
}

func newWire(t *testing.T) *wire {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &wire{next: transport, faults: map[string][]fault{}, groups: map[string]map[string]string{}, tokens: map[string][]byte{}, stale: map[string][]byte{}}
}

// fail lets the next calls of an action fail, one each.
func (w *wire) fail(action string, all ...fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[action] = append(w.faults[action], all...)
}

// of tells the calls of an action, all of them when it is empty.
func (w *wire) of(action string) []call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.asked), func(c call) bool { return action != "" && c.action != action })
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	body := []byte{}
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		if err := r.Body.Close(); err != nil {
			return nil, err
		}
	}
	c := call{action: r.Header.Get("X-Amz-Target")}
	if c.action == "" {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, err
		}
		c.action, c.form = form.Get("Action"), form
	}
	w.mu.Lock()
	w.asked = append(w.asked, c)
	var f *fault
	if all := w.faults[c.action]; len(all) > 0 && (all[0].when == nil || all[0].when(c.form)) {
		f, w.faults[c.action] = &all[0], all[1:]
	}
	if f == nil {
		f = w.refuses(c)
	}
	if f == nil && w.trouble != nil && c.form != nil {
		switch chance := w.trouble.Float64(); {
		case chance < 0.05:
			f = &fault{status: http.StatusServiceUnavailable, code: "Unavailable"}
		case chance < 0.1:
			f = &fault{status: http.StatusInternalServerError, code: "InternalError", after: true}
		case chance < 0.2 && w.stale[c.form.Encode()] != nil:
			defer w.mu.Unlock()
			return response(r, http.StatusOK, w.stale[c.form.Encode()]), nil
		}
	}
	answer := w.own(c)
	w.mu.Unlock()
	if f != nil && !f.after {
		return f.response(r), nil
	}
	if answer != nil {
		return response(r, http.StatusOK, answer), nil
	}
	if c.form.Get("DryRun") == "true" && (c.action == "CreateVpc" || c.action == "CreatePlacementGroup") {
		return (&fault{status: http.StatusPreconditionFailed, code: "DryRunOperation"}).response(r), nil
	}
	if c.action == "CreateTags" {
		body = []byte(w.tag(c.form))
	}
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	out, err := w.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if c.action == "RunInstances" && out.StatusCode == http.StatusOK {
		text, err := io.ReadAll(out.Body)
		if err != nil {
			return nil, err
		}
		if err := out.Body.Close(); err != nil {
			return nil, err
		}
		w.mu.Lock()
		w.tokens[c.form.Get("ClientToken")] = text
		w.mu.Unlock()
		out = response(r, http.StatusOK, text)
	}
	if f != nil {
		if err := out.Body.Close(); err != nil {
			return nil, err
		}
		return f.response(r), nil
	}
	if strings.HasPrefix(c.action, "Describe") && out.StatusCode == http.StatusOK {
		text, err := io.ReadAll(out.Body)
		if err != nil {
			return nil, err
		}
		if err := out.Body.Close(); err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.taken {
			text = bytes.ReplaceAll(text, []byte("Client.UserInitiatedShutdown"), []byte("Server.SpotInstanceTermination"))
		}
		if w.trouble != nil {
			w.stale[c.form.Encode()] = text
		}
		out = response(r, http.StatusOK, text)
	}
	return out, nil
}

// refuses answers RunInstances of the second node of the partition that is to
// be refused: the first that asks. The mutex is held.
func (w *wire) refuses(c call) *fault {
	if w.refused == "" || c.action != "RunInstances" {
		return nil
	}
	tags := tagsOf(c.form, "TagSpecification.1.Tag")
	if w.victim == "" {
		w.victim = tags["skyport-partition"]
	}
	if tags["skyport-partition"] != w.victim || tags["skyport-node"] != "1" {
		return nil
	}
	if w.refused == skyport.CodeQuota {
		return &fault{code: "VcpuLimitExceeded", message: "You have requested more vCPU capacity than your current vCPU limit of 4 allows."}
	}
	return &fault{status: http.StatusInternalServerError, code: "InsufficientInstanceCapacity", message: "There is not enough capacity."}
}

// own answers what moto cannot. The mutex is held.
func (w *wire) own(c call) []byte {
	wrap := func(inside string) []byte {
		return []byte("<" + c.action + `Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>` + inside + "</" + c.action + "Response>")
	}
	item := func(name string) string {
		tags := ""
		for key, value := range w.groups[name] {
			tags += "<item><key>" + key + "</key><value>" + value + "</value></item>"
		}
		return "<groupName>" + name + "</groupName><groupId>pg-" + name + "</groupId><strategy>cluster</strategy><state>available</state><tagSet>" + tags + "</tagSet>"
	}
	name := c.form.Get("GroupName")
	switch {
	case c.action == "RunInstances" && w.tokens[c.form.Get("ClientToken")] != nil && c.form.Get("DryRun") == "":
		return w.tokens[c.form.Get("ClientToken")]
	case c.action == "CreatePlacementGroup" && c.form.Get("DryRun") == "":
		w.groups[name] = tagsOf(c.form, "TagSpecification.1.Tag")
		return wrap("<placementGroup>" + item(name) + "</placementGroup>")
	case c.action == "DeletePlacementGroup":
		delete(w.groups, name)
		return wrap("<return>true</return>")
	case c.action == "DescribePlacementGroups":
		all := ""
		for _, name := range slices.Sorted(maps.Keys(w.groups)) {
			if wanted := c.form.Get("Filter.1.Value.1"); wanted == "skyport-partition" || w.groups[name]["skyport-partition"] == wanted {
				all += "<item>" + item(name) + "</item>"
			}
		}
		return wrap("<placementGroupSet>" + all + "</placementGroupSet>")
	case c.action == "AWSPriceListService.GetProducts":
		return fmt.Appendf(nil, `{"FormatVersion":"aws_v1","PriceList":[%q,%q]}`, entry("c5.large", "0.0850000000"), entry("t3.micro", "0.0104000000"))
	}
	return nil
}

// tag tags placement groups and leaves the rest of the form to moto.
func (w *wire) tag(form url.Values) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest, n := url.Values{}, 0
	for key, values := range form {
		if !strings.HasPrefix(key, "ResourceId.") {
			rest[key] = values
		} else if name, ours := strings.CutPrefix(values[0], "pg-"); ours {
			maps.Copy(w.groups[name], tagsOf(form, "Tag"))
		} else {
			n++
			rest.Set("ResourceId."+strconv.Itoa(n), values[0])
		}
	}
	return rest.Encode()
}

// tagsOf reads tags out of a request.
func tagsOf(form url.Values, prefix string) map[string]string {
	all := map[string]string{}
	for i := 1; form.Has(fmt.Sprintf("%s.%d.Key", prefix, i)); i++ {
		all[form.Get(fmt.Sprintf("%s.%d.Key", prefix, i))] = form.Get(fmt.Sprintf("%s.%d.Value", prefix, i))
	}
	return all
}

// entry is one of the price list, cut to what matters, in the form of
// https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
func entry(kind, price string) string {
	return `{"product":{"productFamily":"Compute Instance","attributes":{"instanceType":"` + kind + `","tenancy":"Shared"}},"serviceCode":"AmazonEC2",
		"terms":{"OnDemand":{"A.B":{"priceDimensions":{"A.B.C":{"unit":"Hrs","pricePerUnit":{"USD":"` + price + `"}}}}}}}`
}

func (f *fault) response(r *http.Request) *http.Response {
	status := f.status
	if status == 0 {
		status = http.StatusBadRequest
	}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		return response(r, status, []byte(`{"__type":"`+f.code+`","message":"`+f.message+`"}`))
	}
	if f.status == http.StatusForbidden && f.code == "ExpiredToken" { // as STS spells errors
		return response(r, status, []byte(`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>`+f.code+
			`</Code><Message>`+f.message+`</Message></Error><RequestId>r</RequestId></ErrorResponse>`))
	}
	return response(r, status, []byte(`<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>`+f.code+`</Code><Message>`+f.message+
		`</Message></Error></Errors><RequestID>r</RequestID></Response>`))
}

func response(r *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}
}
