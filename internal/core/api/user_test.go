package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/api/apitest"
)

var update = flag.Bool("update", false, "write the golden files")

// TestUserContract compares every answer of /user with a golden file: existing
// terminals read these bytes.
func TestUserContract(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{Now: func() time.Time { return time.Date(2026, 3, 1, 10, 20, 30, 456789, time.UTC) }}
	const siteID, flavorID = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"
	flavor := skyport.Flavor{ID: flavorID, Name: "local.1", Site: "local", CPUs: 1, Memory: 1 << 30, Storage: 10 << 30, Price: 0.25}
	b.Catalog.Sites = []skyport.Site{
		{ID: siteID, Name: "local", Kind: "local", Server: "localhost", Port: 8444, Local: true, DefaultFlavor: "local.1", DefaultImage: "host"},
		{ID: "aaaaaaaa-0000-4000-8000-000000000009", Name: "away", Kind: "azure"},
	}
	b.Catalog.Flavors = []skyport.Flavor{flavor}
	b.Catalog.Images = []skyport.Image{
		{ID: "aaaaaaaa-0000-4000-8000-000000000003", Name: "host", Site: "local", Kind: skyport.ImageCloud, Comment: "This machine"},
		{ID: "aaaaaaaa-0000-4000-8000-000000000004", Name: "debian:13", Site: "away", Kind: skyport.ImageContainer},
	}
	b.Catalog.Accounts = []skyport.Account{
		{ID: "aaaaaaaa-0000-4000-8000-000000000005", Name: "others", Users: []string{"bob"}, Sites: []string{"*"}},
		{ID: "aaaaaaaa-0000-4000-8000-000000000006", Name: "default", Users: []string{"*"}, Sites: []string{"local"}},
	}
	const partition = skyport.PartitionID("bbbbbbbb-0000-4000-8000-000000000001")
	b.Catalog.Partitions = []skyport.Partition{{
		ID: partition, State: skyport.PartitionBusy, Site: "local", Flavor: flavor,
		Nodes: []skyport.Node{
			{Name: "swm-bbbbbbbb-main", Role: skyport.RoleMain, Address: "127.0.0.1", Endpoint: "unix:///run/w"},
			{Name: "swm-bbbbbbbb-compute1", Role: skyport.RoleCompute, Address: "10.0.0.2", Endpoint: "ssh://swm@10.0.0.2:2222"},
		},
	}}
	h := newAPI(b)
	fresh := submit(t, h, "ann")
	running := submit(t, h, "ann")
	b.Move(running, skyport.JobRunning)
	b.Change(running, func(j *skyport.Job) {
		j.Name, j.Details = "count <words>", "Running on one node"
		j.Partition, j.Site, j.Flavor = partition, "local", "local.1"
		j.NodeNames, j.Address = []string{"swm-bbbbbbbb-main", "swm-bbbbbbbb-compute1"}, "127.1.2.3"
		j.StartTime = time.Date(2026, 3, 1, 11, 0, 0, 0, time.FixedZone("", 3600))
		j.EndTime = time.Date(2026, 3, 1, 10, 1, 30, 0, time.UTC)
		j.Request = skyport.Request{
			Nodes: 2, CPUs: 1, GPUs: 1, Memory: 1 << 29, Flavor: "local.1", Comment: "second run",
			CloudImage: "host", ContainerImage: "debian:13", Storage: "home", Site: "local",
			Ports:             []skyport.Port{{Number: 8888, Direction: skyport.In}, {Number: 8081, Direction: skyport.Out}},
			SubmissionAddress: "192.0.2.1", Checkpoint: true, CheckpointDir: "ckpt", CheckpointInterval: 60,
		}
	})
	b.SetMetrics(running, skyport.Metrics{CPUPercent: &skyport.AvgMax{Avg: 12.5, Max: 99}, MemBytes: &skyport.AvgMax{Avg: 1048576, Max: 2097152}})
	b.Write(running, 1, skyport.Stdout, "hello\n")

	same := strings.NewReplacer(string(fresh), "FRESH", string(running), "RUNNING")
	for name, target := range map[string]string{
		"version":       "/user",
		"remote":        "/user/remote",
		"flavor":        "/user/flavor",
		"image":         "/user/image",
		"node":          "/user/node",
		"jobs":          "/user/job",
		"jobs-limited":  "/user/job?limit=1",
		"jobs-none":     "/user/job?limit=0",
		"job":           "/user/job/" + string(running),
		"job-fresh":     "/user/job/" + string(fresh),
		"metrics":       "/user/job/" + string(running) + "/metrics",
		"metrics-fresh": "/user/job/" + string(fresh) + "/metrics",
		"image-limited": "/user/image?limit=1",
	} {
		t.Run(name, func(t *testing.T) {
			r := call(t, h, "ann", http.MethodGet, target, "")
			if r.status != http.StatusOK || r.header.Get("Content-Type") != "application/json; charset=utf-8" {
				t.Errorf("status %d, %v", r.status, r.header)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, []byte(same.Replace(r.body)), "", "  "); err != nil {
				t.Fatalf("%v: %s", err, r.body)
			}
			golden(t, name+".json", strings.TrimSpace(got.String())+"\n")
		})
	}
	if r := call(t, h, "ann", http.MethodGet, "/user/job/"+string(running)+"/stdout", ""); r.body != "hello\n" {
		t.Errorf("stdout: %+v", r)
	}
	if r := call(t, h, "ann", http.MethodGet, "/user/job/"+string(running)+"/stderr", ""); r.status != http.StatusNotFound {
		t.Errorf("stderr before there is any: %+v", r)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "user", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-golden +got):\n%s", name, diff)
	}
}

// form makes a multipart body as httpx and browsers do.
func form(t testing.TB, boundary string, parts ...string) (body, contentType string) {
	t.Helper()
	var text bytes.Buffer
	w := multipart.NewWriter(&text)
	if err := w.SetBoundary(boundary); err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(parts); i += 2 {
		part, err := w.CreateFormField(parts[i])
		if strings.HasPrefix(parts[i], "file:") {
			part, err = w.CreateFormFile(strings.TrimPrefix(parts[i], "file:"), "job.sh")
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte(parts[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return text.String(), w.FormDataContentType()
}

func TestUserSubmission(t *testing.T) {
	t.Parallel()
	const script = "#!/bin/sh\n#SWM name x\r\necho '--x--'\n"
	multi := func(boundary string, parts ...string) [2]string {
		body, contentType := form(t, boundary, parts...)
		return [2]string{body, contentType}
	}
	for name, test := range map[string]struct {
		target string
		body   [2]string // and its content type
		status int
		says   string
	}{
		"raw":                    {"/user/job", [2]string{script, "text/plain"}, 200, ""},
		"raw without a type":     {"/user/job", [2]string{script, ""}, 200, ""},
		"raw as curl sends it":   {"/user/job", [2]string{script, "application/x-www-form-urlencoded"}, 200, ""},
		"form value":             {"/user/job", multi("0123456789abcdef0123456789abcdef", "script_content", script), 200, ""},
		"form value, long mark":  {"/user/job", multi(strings.Repeat("b", 70), "script_content", script), 200, ""},
		"form value, short mark": {"/user/job", multi("b", "script_content", script), 200, ""},
		"form file":              {"/user/job", multi("xyz", "file:script_content", script), 200, ""},
		"form, other part first": {"/user/job", multi("xyz", "note", "hello", "script_content", script), 200, ""},
		"form without the part":  {"/user/job", multi("xyz", "script", script), 400, "script_content"},
		"form cut off":           {"/user/job", [2]string{"--xyz\r\nContent-Disposition: form-data; name=\"script_content\"\r\n\r\nabc", "multipart/form-data; boundary=xyz"}, 400, ""},
		"form without boundary":  {"/user/job", [2]string{script, "multipart/form-data"}, 400, "boundary"},
		"empty":                  {"/user/job", [2]string{"", ""}, 400, "empty"},
		"blank":                  {"/user/job", [2]string{" \n\t", ""}, 400, "empty"},
		"path":                   {"/user/job?path=/etc/passwd", [2]string{script, ""}, 400, "path"},
		"empty path":             {"/user/job?path", [2]string{script, ""}, 400, "path"},
		"16 MiB":                 {"/user/job", [2]string{strings.Repeat("x", 16<<20), ""}, 200, ""},
		"16 MiB and one":         {"/user/job", [2]string{strings.Repeat("x", 16<<20+1), ""}, 413, "16.0 MiB"},
		"16 MiB and one, form":   {"/user/job", multi("xyz", "script_content", strings.Repeat("x", 16<<20+1)), 413, "16.0 MiB"},
		"far too large":          {"/user/job", [2]string{strings.Repeat("x", 20<<20), ""}, 413, "16.0 MiB"},
		"wrong directive":        {"/user/job", [2]string{"WRONG", ""}, 422, `"code":"invalid_script","line":3,"column":6,"hint":"did you mean flavor?"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &apitest.Backend{}
			r := call(t, newAPI(b), "ann", http.MethodPost, test.target, test.body[0], "Content-Type", test.body[1])
			if r.status != test.status || !strings.Contains(r.body, test.says) {
				t.Fatalf("%d %.300s", r.status, r.body)
			}
			if test.status != http.StatusOK {
				return
			}
			id, err := skyport.ParseJobID(r.body)
			if err != nil {
				t.Fatalf("not a bare id: %q", r.body)
			}
			sub := b.Submission(id)
			want := test.body[0]
			if strings.HasPrefix(test.body[1], "multipart") {
				want = script
			}
			if string(sub.Script) != want || !sub.ReadPaths || sub.Address != "192.0.2.1" {
				t.Errorf("submission: %.200q, read paths %v, from %q", sub.Script, sub.ReadPaths, sub.Address)
			}
		})
	}
}

func TestUserTexts(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	h := newAPI(b)
	id := string(submit(t, h, "ann"))
	for _, step := range []struct {
		method, header string
		status         int
		body           string
	}{
		{"DELETE", "", 200, "Canceled: " + id + "\nNot found: "},
		{"DELETE", "", 200, "Canceled: " + id + "\nNot found: "}, // spawners stop what has stopped
		{"PATCH", "requeue", 200, "Requeued: " + id + "\nNot found: "},
	} {
		r := call(t, h, "ann", step.method, "/user/job/"+id, "", "modification", step.header)
		if r.status != step.status || r.body != step.body {
			t.Errorf("%s: %+v", step.method, r)
		}
	}
	for _, header := range []string{"", "explode"} {
		if r := call(t, h, "ann", http.MethodPatch, "/user/job/"+id, "", "modification", header); r.status != 400 || !strings.HasPrefix(r.body, `{"error":`) {
			t.Errorf("modification %q: %+v", header, r)
		}
	}
	if job, err := b.Job(t.Context(), skyport.JobID(id)); err != nil || job.State != skyport.JobQueued || job.Attempt != 1 {
		t.Errorf("%+v, %v", job, err)
	}
	if r := call(t, h, "", http.MethodGet, "/user/job", ""); r.status != 401 || r.body != `{"error":"unauthorized"}` {
		t.Errorf("without a certificate: %+v", r)
	}
	if r := call(t, h, "ann", http.MethodGet, "/user/job?limit=x", ""); r.status != 400 {
		t.Errorf("wrong limit: %+v", r)
	}
}

// TestUserListIsWhole checks a list of many pages, and one that breaks half-way.
func TestUserListIsWhole(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	h := newAPI(b)
	for range 1234 {
		submit(t, h, "ann")
	}
	var jobs []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(call(t, h, "ann", http.MethodGet, "/user/job", "").body), &jobs); err != nil || len(jobs) != 1234 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	pages := 0
	b.Fail = func(method string) error {
		if method == "Jobs" {
			if pages++; pages == 2 {
				return skyport.Errorf(skyport.CodeUnavailable, "away")
			}
		}
		return nil
	}
	defer func() {
		if recover() == nil {
			t.Error("half a list looks like a whole one")
		}
	}()
	call(t, h, "ann", http.MethodGet, "/user/job", "")
}

// FuzzUserSubmission throws bodies of any bytes at the form parser.
func FuzzUserSubmission(f *testing.F) {
	body, contentType := form(f, "xyz", "script_content", "#!/bin/sh\n")
	f.Add([]byte(body), contentType)
	f.Add([]byte("#!/bin/sh\n"), "")
	f.Add([]byte("--b\r\n\r\n--b--"), "multipart/form-data; boundary=b")
	h := newAPI(&apitest.Backend{}, func(o *api.Options) { o.MaxScript = 1 << 10 })
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		r := call(t, h, "ann", http.MethodPost, "/user/job", string(body), "Content-Type", contentType)
		if r.status >= 500 {
			t.Errorf("%d %s", r.status, r.body)
		}
		if r.status == http.StatusOK {
			if _, err := skyport.ParseJobID(r.body); err != nil {
				t.Error(err)
			}
		}
	})
}

// BenchmarkSubmit is what the API adds to a submission.
func BenchmarkSubmit(b *testing.B) {
	script := "#!/bin/sh\n#SWM name bench\n" + strings.Repeat("echo hello\n", 50)
	body, err := json.Marshal(map[string]string{"script": script})
	if err != nil {
		b.Fatal(err)
	}
	for name, test := range map[string][2]string{"user": {"/user/job", script}, "v1": {"/v1/jobs", string(body)}} {
		b.Run(name, func(b *testing.B) {
			h := newAPI(&apitest.Backend{})
			b.ReportAllocs()
			for b.Loop() {
				if r := call(b, h, "ann", http.MethodPost, test[0], test[1]); r.status/100 != 2 {
					b.Fatalf("%+v", r)
				}
			}
		})
	}
}
