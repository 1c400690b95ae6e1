"""The web page of a run in a real browser, and its figures for Prometheus, read by Prometheus' own parser."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

PARSE = """
import json, sys
from prometheus_client.parser import text_string_to_metric_families
print(json.dumps([[f.name, f.type, [[s.name, s.labels, s.value] for s in f.samples]]
                  for f in text_string_to_metric_families(sys.stdin.read())]))
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def fetch(url, method="GET", **headers):
    """Status, headers, text."""
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.headers, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


class Page:
    """A run with both ports, and the page's address."""

    def __init__(self, launcher):
        self.launcher, self.prometheus = launcher, free_port()
        self.port = free_port()
        text = harness.small_job(data=2, nodes=2, steps=100_000, more=f"[metrics]\nweb_port = {self.port}\n"
                                 f"prometheus_port = {self.prometheus}\n[checkpoint]\ninterval = 10\n")
        text = text.replace("steps = 100000", "steps = 100000\neval_interval = 5")
        text = text.replace('name = "small"', 'name = "on-the-web"')
        self.process = launcher.start(launcher.job(text, "web.toml"), "--kill-rank", "1@30")
        self.latest = self.process.output_dir / "latest"
        events = self.latest / "events.jsonl"
        harness.wait_for(lambda: events.exists() and events.read_text().count('"event":"checkpoint"') >= 5, 90,
                         "a restart and checkpoints after it")
        self.url = (self.latest / "web.url").read_text().strip()

    def stop(self):
        self.launcher.finish(self.launcher.start("stop", "--now", "--output-dir", self.process.output_dir), 30)
        return self.launcher.finish(self.process, 60).expect(143)


def only_for_who_knows_the_token(page):
    harness.check(re.fullmatch(rf"http://127\.0\.0\.1:{page.port}/[0-9a-f]{{32}}/", page.url), page.url)
    harness.check(os.stat(page.latest / "web.url").st_mode & 0o777 == 0o600, "web.url is not its owner's alone")
    log = (page.process.output_dir / "stdout").read_text()
    harness.check("web.url" in log and page.url not in log, f"the token is in the output: {log}")
    base, token = page.url[:-33], page.url[-33:-1]
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    for path in ("", "data", token[:-1], wrong + "/", wrong + "/data", "../" + token, "?token=" + token, "%00"):
        status, _, text = fetch(base + path)
        harness.check(status == 403 and token not in text, f"/{path}: {status} {text}")
    for path in ("x", "../../etc/passwd", "placement.svg/..", "events.jsonl", "data?x"):
        harness.check(fetch(page.url + path)[0] == 404, path)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, headers, _ = fetch(page.url, method)
        harness.check(status == 405 and headers["Allow"] == "GET, HEAD", f"{method}: {status}")
    status, headers, text = fetch(page.url)
    harness.check(status == 200 and headers["Referrer-Policy"] == "no-referrer" and
                  "default-src 'none'" in headers["Content-Security-Policy"], str(headers))
    others = set(re.findall(r"(?:https?:)?//[\w.]+", text)) - {"http://www.w3.org"}  # a name, which nobody fetches
    harness.check(not others, f"the page refers to {others}")
    status = harness.wait_for(lambda: page.launcher.finish(page.launcher.start(
        "status", "--output-dir", page.process.output_dir), 30).output, 10, "status")
    harness.check(page.url in status, status)


def loopback_only(page):
    for port in (page.port, page.prometheus):
        rows = [row.split() for row in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        places = {row[1] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
        harness.check(places == {f"0100007F:{port:04X}"}, f"listens on {places}")


def rude_peers(page):
    """Endless headers, half a request, and a crowd cost the run nothing."""
    with socket.create_connection(("127.0.0.1", page.port)) as one:
        one.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            harness.check(b"200 OK" not in one.recv(4096), "endless headers were answered")
    crowd = []
    for _ in range(60):
        crowd.append(socket.create_connection(("127.0.0.1", page.port)))
        crowd[-1].sendall(b"GET ")
    for one in crowd:
        one.close()
    harness.wait_for(lambda: fetch(page.url)[0] == 200, 20, "an answer after the crowd")


def in_a_browser(page):
    """Headless Chromium runs the page's own script: what stands there afterwards is what a user sees."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        harness.check(os.environ.get("CI") != "true", "chromium is missing (.ci/setup test)")
        return print("  skipped: chromium is missing")
    with tempfile.TemporaryDirectory(prefix="mds-chromium-") as profile:
        picture = pathlib.Path(profile) / "page.png"
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 f"--user-data-dir={profile}", "--window-size=1280,1150", "--virtual-time-budget=3000"]
        done = subprocess.run([*words, "--dump-dom", page.url], text=True, capture_output=True, timeout=120)
        text = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", done.stdout, flags=re.DOTALL)
        subprocess.run([*words, f"--screenshot={picture}", page.url], capture_output=True, timeout=120)
        harness.check(picture.exists() and picture.stat().st_size > 20_000, "no picture")
    for wanted in ("<h1 id=\"job\">on-the-web</h1>", 'class="pill good">running<', "node 0 · ", "node 1 · ",
                   'title="rank 1: running', "was killed by signal 9 (SIGKILL)", "attempt 2 starts", "checkpoint step-",
                   "validation loss", "tokens/s", "stroke-dasharray"):
        harness.check(wanted in text, f"{wanted!r} is not on the page: {done.stderr[-2000:]}\n{text}")
    loss, speed = (re.search(rf'id="{name}".*?</svg>', text, re.DOTALL).group(0) for name in ("loss", "speed"))
    harness.check(loss.count("<path") == 2 and loss.count("L") > 20, "the loss curves are not drawn")
    harness.check(speed.count("<path") == 1 and speed.count("L") > 20, "the throughput curve is not drawn")
    harness.check('id="lost" style="display: none' in text or 'id="lost">' not in text, "the page lost the run")


def figures(page):
    status, headers, text = fetch(f"http://127.0.0.1:{page.prometheus}/metrics")
    harness.check(status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"), str(headers))
    harness.check(fetch(f"http://127.0.0.1:{page.prometheus}/")[0] == 404, "only /metrics is there")
    parsed = subprocess.run(["/usr/bin/python3", "-c", PARSE], input=text, text=True, capture_output=True)
    if "No module named" in parsed.stderr:
        harness.check(os.environ.get("CI") != "true", "python3-prometheus-client is missing (.ci/setup test)")
        return print("  skipped: prometheus_client is missing")
    harness.check(parsed.returncode == 0, parsed.stderr)
    families = {name: (kind, samples) for name, kind, samples in json.loads(parsed.stdout)}
    value = lambda name, sample=None: next(s[2] for s in families[name][1] if s[0] == (sample or name))  # noqa: E731
    harness.check(families["mds_steps"][0] == "counter", str(families["mds_steps"]))
    steps = value("mds_steps", "mds_steps_total")
    harness.check(steps >= 40 and value("mds_tokens", "mds_tokens_total") == steps * 8 * 32, "tokens")
    harness.check(value("mds_restarts", "mds_restarts_total") == 1 and value("mds_failures", "mds_failures_total") == 1,
                  "restarts")
    kind, samples = families["mds_step_duration_seconds"]
    counts = [s[2] for s in samples if s[0].endswith("_bucket")]
    harness.check(kind == "histogram" and counts == sorted(counts) and counts[-1] == steps, str(samples))
    states = {s[1]["state"]: s[2] for s in families["mds_run_state"][1]}
    harness.check(states["running"] == 1 and sum(states.values()) == 1, str(states))
    harness.check(families["mds_ranks"][1] == [["mds_ranks", {"state": "running"}, 2.0]], str(families["mds_ranks"]))
    harness.check(value("process_resident_memory_bytes") > 1e6, "memory")
    for name, (kind, samples) in families.items():
        harness.check(re.match(r"(mds|process)_[a-z_]+$", name), name)
        harness.check(not name.endswith(("_ms", "_mb", "_minutes", "_percent")), f"{name}: not a base unit")


def resumed(page):
    """The curves of a run that goes on begin where the run began."""
    data = lambda: json.loads(fetch((page.latest / "web.url").read_text().strip() + "data")[2])  # noqa: E731
    before = data()["curves"]["loss"][-1][0]
    page.stop()
    harness.check(not (page.latest / "web.url").exists(), "the address outlives the run")
    page.process = page.launcher.start("run", "--resume", page.latest.resolve(), with_output_dir=False)
    page.process.output_dir = page.latest.parent
    harness.wait_for((page.latest / "web.url").exists, 60, "the page of the resumed run")
    loss = harness.wait_for(lambda: (points := data()["curves"]["loss"])[-1][0] > before and points, 60, "a step more")
    harness.check(loss[0][0] == 1 and [p[0] for p in loss] == sorted({p[0] for p in loss}), str(loss))


def port_taken(launcher):
    """Another program has the port: the run goes on without a page and says so."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        job = launcher.job('[job]\nname = "t"\ndevices = "cpu"\nranks_per_node = 1\n[payload]\ncommand = ["true"]\n'
                           f"[metrics]\nweb_port = {port}\nprometheus_port = {port}\n", "taken.toml")
        run = launcher.run(job).expect(0)
    for key in ("metrics.web_port", "metrics.prometheus_port"):
        harness.check(key in run.errors and str(port) in run.errors, run.everything())
    harness.check(not (run.folder / "web.url").exists(), "an address of nothing")


def test(launcher, arguments):
    print("port_taken", flush=True)
    port_taken(launcher)
    page = Page(launcher)
    for case in (figures, only_for_who_knows_the_token, loopback_only, rude_peers, in_a_browser, resumed):
        print(case.__name__, flush=True)
        case(page)
    page.stop()
    harness.check(not (page.latest / "web.url").exists(), "the address outlives the run")


if __name__ == "__main__":
    harness.main(test, __doc__)
