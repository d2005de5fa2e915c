package template_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/openworkload/skyport/test/azure/template"
)

const group = "/subscriptions/0-1/resourceGroups/rg"

func host() template.Host {
	return template.Host{
		Subscription: map[string]any{"subscriptionId": "0-1", "tenantId": "t"},
		Group:        map[string]any{"id": group, "name": "rg", "location": "westeurope"},
		Tenant:       "t", Deployment: "d",
		Reference: func(id, _ string, full bool) (any, error) {
			return map[string]any{"of": id, "full": full, "list": []any{map[string]any{"address": "10.0.0.4"}}}, nil
		},
	}
}

// load evaluates a template of JSON.
func load(t testing.TB, text, parameters string) (*template.Deployment, error) {
	t.Helper()
	v, err := template.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := template.Decode([]byte(parameters))
	if err != nil {
		t.Fatal(err)
	}
	return template.Load(v, p, host())
}

// whole makes a template of parts.
func whole(parts string) string {
	return `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", ` + parts + `}`
}

// output evaluates one expression.
func output(t testing.TB, expression string) (any, error) {
	t.Helper()
	quoted, err := json.Marshal(expression)
	if err != nil {
		t.Fatal(err)
	}
	d, err := load(t, whole(`"parameters": {"text": {"type": "string", "defaultValue": "Hello"}, "list": {"type": "array", "defaultValue": ["a", "b"]},
		"deep": {"type": "object", "defaultValue": {"One": {"two": [1, 2, 3]}}}},
		"variables": {"joined": "[concat(parameters('text'), ' you')]", "copy": [{"name": "squares", "count": 4, "input": "[mul(copyIndex('squares'), copyIndex('squares'))]"}]},
		"resources": [], "outputs": {"it": {"type": "any", "value": `+string(quoted)+`}}`), `{}`)
	if err != nil {
		return nil, err
	}
	all, err := d.Outputs()
	if err != nil {
		return nil, err
	}
	return all["it"].(map[string]any)["value"], nil
}

func TestExpressions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ expression, want string }{
		{"plain", `"plain"`},
		{"[[not one]", `"[not one]"`},
		{"[parameters('text')]", `"Hello"`},
		{"[PARAMETERS('TEXT')]", `"Hello"`},
		{"[variables('joined')]", `"Hello you"`},
		{"[variables('squares')]", `[0,1,4,9]`},
		{"[parameters('deep').one.two[1]]", `2`},
		{"[parameters('deep')['One'].two[add(1, 1)]]", `3`},
		{"['it''s']", `"it's"`},
		{"[ concat( 'a' , 'b', 1, true() ) ]", `"ab1True"`},
		{"[concat(parameters('list'), createArray('c'))]", `["a","b","c"]`},
		{"[format('{0}-{1:D3}-{{x}}', 'n', 7)]", `"n-007-{x}"`},
		{"[if(equals(1, 2), div(1, 0), 'no')]", `"no"`},
		{"[equals(createObject('a', 1), json('{\"a\": 1}'))]", `true`},
		{"[length(parameters('list'))]", `2`},
		{"[length('äöü')]", `3`},
		{"[union(createArray(1, 2), createArray(2, 3))]", `[1,2,3]`},
		{"[union(json('{\"a\":{\"x\":1}}'), json('{\"a\":{\"y\":2}}'))]", `{"a":{"x":1,"y":2}}`},
		{"[intersection(createArray(1, 2), createArray(2, 3))]", `[2]`},
		{"[string(createObject('a', createArray(1)))]", `"{\"a\":[1]}"`},
		{"[int('42')]", `42`},
		{"[base64('hi')]", `"aGk="`},
		{"[base64ToString('aGk=')]", `"hi"`},
		{"[resourceGroup().location]", `"westeurope"`},
		{"[subscription().tenantId]", `"t"`},
		{"[resourceId('Microsoft.Network/virtualNetworks/subnets', 'v', 's')]", `"` + group + `/providers/Microsoft.Network/virtualNetworks/v/subnets/s"`},
		{"[resourceId('other', 'Microsoft.Compute/disks', 'd')]", `"/subscriptions/0-1/resourceGroups/other/providers/Microsoft.Compute/disks/d"`},
		{"[subscriptionResourceId('Microsoft.X/y', 'z')]", `"/subscriptions/0-1/providers/Microsoft.X/y/z"`},
		{"[length(uniqueString('a', 'b'))]", `13`},
		{"[length(guid('a'))]", `36`},
		{"[take(skip(range(0, 10), 3), 2)]", `[3,4]`},
		{"[padLeft(5, 3, '0')]", `"005"`},
		{"[split('a,b', ',')]", `["a","b"]`},
		{"[join(createArray('a', 'b'), '-')]", `"a-b"`},
		{"[substring('hello', 1, 3)]", `"ell"`},
		{"[and(true(), not(false()), or(false(), less(1, 2)))]", `true`},
		{"[max(1, 5, 3)]", `5`},
		{"[coalesce(null(), 'x')]", `"x"`},
		{"[contains(parameters('list'), 'b')]", `true`},
		{"[first(parameters('list'))]", `"a"`},
		{"[empty('')]", `true`},
		{"[replace('aba', 'a', 'x')]", `"xbx"`},
		{"[mod(-7, 3)]", `-1`},
		{"[reference('vm').list[0].address]", `"10.0.0.4"`},
		{"[reference('vm', '2020-01-01', 'Full').full]", `true`},
	} {
		got, err := output(t, test.expression)
		if err != nil {
			t.Errorf("%s: %v", test.expression, err)
			continue
		}
		if text, err := json.Marshal(got); err != nil || string(text) != test.want {
			t.Errorf("%s is %s, not %s (%v)", test.expression, text, test.want, err)
		}
	}
}

func TestWrongExpressions(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		"[concat('a'":                   "is not expected",
		"[nothing('a')]":                "The template function 'nothing' is not valid",
		"[]":                            "is not expected",
		"[1.5]":                         "is not expected",
		"[parameters('none')]":          "The template parameter 'none' is not found",
		"[variables('none')]":           "The template variable 'none' is not found",
		"[parameters('deep').three]":    "The language expression property 'three' doesn't exist",
		"[parameters('list')[2]]":       "out of bounds",
		"[copyIndex()]":                 "not expected at this location",
		"[newGuid()]":                   "only allowed in the default value",
		"[resourceId('a/b', 'c', 'd')]": "requires '1' resource name",
		"[div(1, 0)]":                   "the second not 0",
		"['open]":                       "is not expected",
		"[concat('a') 'b']":             "is not expected",
		"[length(1)]":                   "must be a string, an array or an object",
		"[tolower('a', 'b')]":           "function requires '1' argument(s) while '2' were provided",
	} {
		if expression == "[concat('a'" { // no expression without its end, as in Azure
			continue
		}
		got, err := output(t, expression)
		var e *template.Error
		if !errors.As(err, &e) || e.Code != "InvalidTemplate" || !strings.Contains(e.Message, want) {
			t.Errorf("%s is %v, and %v, not %q", expression, got, err, want)
		}
	}
}

const cluster = `"parameters": {"n": {"type": "int"}, "near": {"type": "bool", "defaultValue": false}, "secret": {"type": "secureString"}},
"resources": [
 {"type": "M.C/vms", "apiVersion": "1", "name": "[concat('vm', copyIndex())]", "copy": {"name": "vms", "count": "[parameters('n')]"},
  "dependsOn": ["nics", "[resourceId('M.C/near', 'near')]"], "properties": {"secret": "[parameters('secret')]", "number": "[copyIndex(1)]", "none": "[null()]"}},
 {"type": "M.N/nics", "apiVersion": "1", "name": "[concat('nic', copyIndex())]", "copy": {"name": "nics", "count": "[parameters('n')]"},
  "properties": {"address": "[reference('ip').address]", "copy": [{"name": "rules", "count": 2, "input": {"name": "[concat('r', copyIndex('rules'))]"}}]}},
 {"type": "M.N/ips", "apiVersion": "1", "name": "ip", "properties": {}},
 {"type": "M.C/near", "apiVersion": "1", "name": "near", "condition": "[parameters('near')]", "properties": {}}
]`

// Loops, conditions, said and implied order, and secrets.
func TestResources(t *testing.T) {
	t.Parallel()
	for _, near := range []bool{false, true} {
		d, err := load(t, whole(cluster), fmt.Sprintf(`{"n": {"value": 2}, "near": {"value": %t}, "secret": {"value": "hidden"}}`, near))
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, r := range d.Resources {
			order = append(order, r.Name)
		}
		at := func(name string) int { return slices.Index(order, name) }
		if len(order) != 5+map[bool]int{true: 1}[near] || at("ip") > at("nic0") || at("nic1") > at("vm0") || at("nic0") > at("vm1") || near && at("near") > at("vm0") {
			t.Errorf("order %v", order)
		}
		body, err := d.Resources[at("nic1")].Draft()
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := json.Marshal(body); string(text) != `{"properties":{"rules":[{"name":"r0"},{"name":"r1"}]}}` {
			t.Errorf("draft %s", text)
		}
		body, err = d.Resources[at("vm1")].Body()
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := json.Marshal(body); string(text) != `{"properties":{"number":2,"secret":"hidden"}}` {
			t.Errorf("body %s", text)
		}
		if text, _ := json.Marshal(d.Parameters); strings.Contains(string(text), "hidden") || !strings.Contains(string(text), `"n":{"type":"Int","value":2}`) {
			t.Errorf("parameters %s", text)
		}
	}
}

func TestWrongTemplates(t *testing.T) {
	t.Parallel()
	resource := func(more string) string {
		return whole(`"resources": [{"type": "M.C/x", "apiVersion": "1", "name": "a"` + more + `}]`)
	}
	for _, test := range []struct{ template, parameters, want string }{
		{`{}`, `{}`, "$schema"},
		{whole(`"resources": [], "resource": []`), `{}`, "Could not find member 'resource'"},
		{whole(cluster), `{"n": {"value": 2}}`, "The value for the template parameter 'secret'"},
		{whole(cluster), `{"n": {"value": "2"}, "secret": {"value": ""}}`, "Expected 'Integer'. Actual 'String'"},
		{whole(cluster), `{"n": {"value": 2}, "secret": {"value": ""}, "more": {"value": 1}}`, "The template parameters 'more'"},
		{whole(cluster), `{"n": {"value": 2000}, "secret": {"value": ""}}`, "copy count is not valid"},
		{resource(`, "dependsOn": ["b"]`), `{}`, "The resource 'b' is not defined in the template"},
		{resource(`}, {"type": "M.C/x", "apiVersion": "1", "name": "A"`), `{}`, "is defined multiple times"},
		{resource(`, "dependsOn": ["b"]}, {"type": "M.C/x", "apiVersion": "1", "name": "b", "dependsOn": ["a"]`), `{}`, "Circular dependency"},
		{resource(`, "properties": {"x": "[no()]"}`), `{}`, "Unable to process template language expressions for resource"},
		{whole(`"resources": [{"type": "M.C/x/y", "apiVersion": "1", "name": "a"}]`), `{}`, "incorrect segment lengths"},
		{whole(`"resources": [{"type": "M.C/x", "name": "a"}]`), `{}`, "missing the required property 'apiVersion'"},
		{whole(`"variables": {"a": "[variables('b')]", "b": "[variables('a')]"}, "resources": []`), `{}`, "circular reference"},
		{whole(`"variables": {"a": "[reference('b')]"}, "resources": []`), `{}`, "'reference' is not expected at this location"},
	} {
		_, err := load(t, test.template, test.parameters)
		var e *template.Error
		if !errors.As(err, &e) || !strings.Contains(e.Message, test.want) {
			t.Errorf("%v, not %q: %s", err, test.want, test.template)
		}
	}
}

// FuzzExpression: whatever is in brackets is evaluated or refused, in bounded
// time and space.
func FuzzExpression(f *testing.F) {
	for _, seed := range []string{
		"concat('a', parameters('text'))", "parameters('deep').one.two[1]", "if(equals(1,2),3,4)", "format('{0:D3}', 7)", "variables('squares')[add(1,1)]",
		"resourceId('a/b/c','d','e')", "reference('x','1','Full').y", "((((", "'''", "union(createArray(1),range(0,100))", "json('{\"a\":[1,2]}').a[0]", "-1", "a.b('c')",
		"replace('aaaa','a','aaaaaaaa')", "padLeft('1', 100, '0')", "substring('a', 1, 9223372036854775807)", "range(-5, 3)", "take('ä', 1)", "split('a','')", "div(-9223372036854775808, -1)",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := output(t, "["+text+"]")
		var e *template.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%q: %v is no error of templates", text, err)
		}
		if _, bad := json.Marshal(v); err == nil && bad != nil {
			t.Fatalf("%q: %v is no JSON: %v", text, v, bad)
		}
	})
}
