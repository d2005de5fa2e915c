"""What existing terminals rely on, told once for every HTTP library.

A terminal here is an object with one method,

    call(method, path, body=None, headers={}) -> (status, headers, bytes)

over HTTPS with a client certificate, and `form(script)`, which posts a script
as httpx does: multipart/form-data, the part without a filename. Everything else
follows the contract of docs/api.md alone. The checks are strict: a missing or
further field, another type, or a null list is an error.
"""

import json
import os
import re
import sys
import time
import uuid

PATIENCE = 60
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


class Wrong(Exception):
    pass


def check(condition, *said):
    if not condition:
        raise Wrong(" ".join(str(s) for s in said))


# --- shapes -------------------------------------------------------------------

def text(v):
    return isinstance(v, str)


def integer(v):
    return isinstance(v, int) and not isinstance(v, bool)


def number(v):
    return isinstance(v, (int, float)) and not isinstance(v, bool)


def an_id(v):
    return text(v) and UUID.fullmatch(v) is not None


def moment(v):
    return v == "" or text(v) and TIME.fullmatch(v) is not None


def one_of(*values):
    return lambda v: v in values


def a_list(of):
    return lambda v: isinstance(v, list) and all(of(x) for x in v)


def resource(v):
    return (isinstance(v, dict) and set(v) <= {"name", "count", "value", "properties"} and text(v.get("name"))
            and integer(v.get("count")) and ("value" not in v or text(v["value"])))


def any_of(*kinds):
    return lambda v: any(k(v) for k in kinds)


def boolean(v):
    return isinstance(v, bool)


REMOTE = {"id": an_id, "name": text, "account_id": text, "server": text, "port": integer, "kind": text,
          "default_image_id": text, "default_flavor_id": text}
FLAVOR = {"id": an_id, "name": text, "remote_id": an_id, "resources": a_list(resource), "price": number}
IMAGE = {"id": an_id, "name": text, "remote_id": an_id, "kind": one_of("cloud", "container"), "comment": text}
ROLE = {"id": integer, "name": text, "comment": text}
NODE = {"id": an_id, "name": text, "host": text, "api_port": integer, "state_power": one_of("up", "down"),
        "state_alloc": one_of("idle", "busy", "offline", "stopped", "maint"), "resources": a_list(resource),
        "roles": lambda v: isinstance(v, list) and all(shape(x, ROLE) for x in v)}
JOB = {"id": an_id, "name": text, "state": one_of(*"RQWFETC"), "state_details": text, "submit_time": moment,
       "start_time": moment, "end_time": moment, "duration": integer, "exitcode": integer, "signal": integer,
       "node_names": a_list(text), "node_ips": a_list(text), "main_ip": text, "remote_id": text, "flavor_id": text,
       "request": a_list(resource), "resources": a_list(resource), "comment": text, "checkpoint": any_of(boolean, text),
       "checkpoint_dir": text, "checkpoint_interval": integer, "last_checkpoint_time": moment, "checkpoint_display": text}
AVG_MAX = {"avg": number, "max": number}


def shape(value, fields, where="answer"):
    check(isinstance(value, dict), where, "is no object:", value)
    for name, kind in fields.items():
        check(name in value, where, "has no", name, ":", value)
        check(kind(value[name]), where, "has a wrong", name, ":", repr(value[name]))
    return True


def job_shape(job, whole):
    extra = set(job) - set(JOB) - {"script_content"}
    check(not extra, "a job has fields beyond the contract:", extra)
    shape(job, JOB, "job")
    if whole:
        check(text(job.get("script_content")), "a job that is asked for has no script_content")
    # Where a job has no ports, or the site has not told addresses yet, there are none.
    check(len(job["node_ips"]) <= len(job["node_names"]), "more addresses than nodes:", job)
    check(job["main_ip"] == (job["node_ips"] or [""])[0], "main_ip:", job)


# --- the terminal's day -------------------------------------------------------

class Day:
    def __init__(self, terminal, scratch):
        self.terminal, self.scratch = terminal, scratch

    def call(self, method, path, body=None, headers=None, want=200):
        started = time.monotonic()
        status, got, content = self.terminal.call(method, path, body, headers or {})
        took = time.monotonic() - started
        check(took < 5, method, path, "took", took, "seconds")
        check(status == want, method, path, "answers", status, "not", want, ":", content[:300])
        return got, content

    def json(self, path, want=200):
        headers, content = self.call("GET", path, want=want)
        kind = {k.lower(): v for k, v in headers.items()}.get("content-type", "")
        check(kind.startswith("application/json"), path, "has the type", kind)
        return json.loads(content)

    def job(self, job):
        answer = self.json("/user/job/" + job)
        job_shape(answer, whole=True)
        return answer

    def submit(self, script):
        _, content = self.call("POST", "/user/job", script.encode())
        job = content.decode()
        check(UUID.fullmatch(job), "not a bare id:", repr(job))
        return job

    def until(self, what, condition):
        end = time.monotonic() + PATIENCE
        while True:
            value = condition()
            if value:
                return value
            check(time.monotonic() < end, "waited in vain until", what)
            time.sleep(0.02)  # between two looks, as a terminal does

    def ended(self, job, state="F"):
        answer = self.until("job %s is %s" % (job, state), lambda: self.terminal_state(job))
        check(answer["state"] == state, "the job ended as", answer["state"], answer["state_details"])
        return answer

    def terminal_state(self, job):
        answer = self.job(job)
        return answer if answer["state"] in "FEC" else None

    def catalogue(self):
        check(self.json("/user") == {"api_version": 1}, "GET /user")
        remotes = self.json("/user/remote")
        flavors = self.json("/user/flavor")
        images = self.json("/user/image")
        check(remotes and flavors and images, "the catalogue is empty")
        for remote in remotes:
            shape(remote, REMOTE, "remote")
            check(set(remote) == set(REMOTE), "fields of a remote:", set(remote))
        sites = {r["id"] for r in remotes}
        for flavor in flavors:
            shape(flavor, FLAVOR, "flavor")
            check(flavor["remote_id"] in sites, "a flavor of no remote:", flavor)
        for image in images:
            shape(image, IMAGE, "image")
            check(image["remote_id"] in sites, "an image of no remote:", image)
        for remote in remotes:
            check(remote["default_flavor_id"] in {f["id"] for f in flavors} | {""}, "default flavor:", remote)
            check(remote["default_image_id"] in {i["id"] for i in images} | {""}, "default image:", remote)
        check(len(self.json("/user/flavor?limit=1")) == 1, "limit is not understood")
        check(self.json("/user/node") == [], "there are nodes before there is a job")
        check(self.json("/user/job") == [], "there are jobs before there is one")

    def life(self):
        go = os.path.join(self.scratch, "go")
        script = """#!/bin/sh
#SWM name    notebook
#SWM comment of a terminal
#SWM ports   8888/tcp/in
echo out; echo err >&2
while [ ! -e %s ]; do sleep 0.02; done
echo more
exit 3
""" % go
        job = self.submit(script)
        first = self.job(job)
        check(first["state"] in "QWTR", "the first state is", first["state"])
        check(first["script_content"] == script, "the script came back changed:", first["script_content"])
        check(first["name"] == "notebook" and first["comment"] == "of a terminal", first)
        check(TIME.fullmatch(first["submit_time"]) and first["end_time"] == "", "times:", first)
        running = self.until("it runs", lambda: (lambda j: j if j["state"] == "R" else None)(self.job(job)))
        check(running["node_ips"] and running["node_ips"][0].startswith("127."), "node_ips:", running["node_ips"])
        check(running["main_ip"], "main_ip:", running)
        check(re.fullmatch(r"swm-[0-9a-f]{8}-main", running["node_names"][0]), "node names:", running["node_names"])
        check(running["remote_id"] in {r["id"] for r in self.json("/user/remote")}, "remote_id:", running)
        check(running["flavor_id"] in {f["id"] for f in self.json("/user/flavor")}, "flavor_id:", running)
        check(any(r["name"] == "ports" and r.get("value") for r in running["request"]), "request:", running["request"])
        self.until("its output is seen while it runs", lambda: self.output(job, "stdout") == b"out\n")
        self.until("its errors are seen while it runs", lambda: self.output(job, "stderr") == b"err\n")
        for node in self.json("/user/node"):
            shape(node, NODE, "node")
        nodes = self.json("/user/node")
        check(len(nodes) == 1 and nodes[0]["state_power"] == "up" and nodes[0]["state_alloc"] == "busy", "nodes:", nodes)
        listed = self.json("/user/job")
        check([j["id"] for j in listed] == [job], "the list has", listed)
        job_shape(listed[0], whole=False)
        open(go, "w").close()
        end = self.ended(job)
        check(end["exitcode"] == 3 and end["signal"] == 0, "it ended with", end["exitcode"], end["signal"])
        check(TIME.fullmatch(end["start_time"]) and TIME.fullmatch(end["end_time"]), "times:", end)
        check(self.output(job, "stdout") == b"out\nmore\n", "stdout after the end")
        metrics = self.json("/user/job/%s/metrics" % job)
        check(set(metrics) == {"job_id", "cpu_percent", "mem_bytes", "gpu_util_percent", "gpu_mem_bytes"}, "metrics:", metrics)
        check(metrics["job_id"] == job and metrics["gpu_util_percent"] is None and metrics["gpu_mem_bytes"] is None, "metrics:", metrics)
        shape(metrics["cpu_percent"], AVG_MAX, "cpu_percent")
        shape(metrics["mem_bytes"], AVG_MAX, "mem_bytes")

        # Again: the second attempt finds the file and ends at once.
        self.call("PATCH", "/user/job/" + job, want=400)
        self.call("PATCH", "/user/job/" + job, headers={"modification": "nonsense"}, want=400)
        _, content = self.call("PATCH", "/user/job/" + job, headers={"modification": "requeue"})
        check(content.decode() == "Requeued: %s\nNot found: " % job, "requeue answers", content)
        self.until("it has ended again", lambda: self.job(job)["state"] == "F")

    def output(self, job, stream):
        status, _, content = self.terminal.call("GET", "/user/job/%s/%s" % (job, stream), None, {})
        check(status in (200, 404), stream, "answers", status, content[:200])
        return content if status == 200 else b""

    def forms(self):
        job = self.until_submitted("#!/bin/sh\necho of a form: $SWM_JOB_NAME\n#SWM name ünï\n")
        self.ended(job)
        check(self.output(job, "stdout") == "of a form: ünï\n".encode(), self.output(job, "stdout"))

    def until_submitted(self, script):
        status, content = self.terminal.form(script)
        check(status == 200 and UUID.fullmatch(content.decode()), "a form answers", status, content[:300])
        return content.decode()

    def cancel(self):
        job = self.submit("#!/bin/sh\nsleep 600\n")
        self.until("it runs", lambda: self.job(job)["state"] == "R")
        _, content = self.call("DELETE", "/user/job/" + job)
        check(content.decode() == "Canceled: %s\nNot found: " % job, "cancel answers", content)
        end = self.job(job)
        check(end["state"] == "C", "after a cancel it is", end["state"])

    def mistakes(self):
        nobody = str(uuid.uuid4())
        for method in ("GET", "DELETE"):
            _, content = self.call(method, "/user/job/" + nobody, want=404)
            check(json.loads(content) == {"error": "job not found"}, method, "of nobody's job:", content)
        self.call("PATCH", "/user/job/" + nobody, headers={"modification": "requeue"}, want=404)
        for stream in ("stdout", "stderr", "metrics"):
            self.call("GET", "/user/job/%s/%s" % (nobody, stream), want=404)
        self.call("POST", "/user/job?path=/etc/passwd", b"", want=400)
        for script in (b"", b"#!/bin/sh\n#SWM flavour x\n", b"#!/bin/sh\n#SWM flavor nobody-has-it\n", b"\x00\xff\x00"):
            status, _, content = self.terminal.call("POST", "/user/job", script, {})
            check(400 <= status < 500 and text(json.loads(content).get("error")), "a wrong script:", status, content[:300])

    def purge(self):
        self.submit("#!/bin/sh\nsleep 600\n")
        check(self.json("/user/job") != [], "there are jobs")
        self.call("DELETE", "/user/job")
        check(self.json("/user/job") == [], "a purge left jobs")
        self.until("the nodes are gone", lambda: self.json("/user/node") == [])


def spend(terminal):
    """Runs the whole day. The environment says where core is and who calls."""
    day = Day(terminal, os.environ["SCRATCH"])
    for part in (day.catalogue, day.life, day.forms, day.cancel, day.mistakes, day.purge):
        try:
            part()
        except Wrong as wrong:
            sys.exit("%s: %s: %s" % (os.path.basename(sys.argv[0]), part.__name__, wrong))
        print(part.__name__, "holds", flush=True)
