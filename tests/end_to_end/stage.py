"""Nodes that share no file system with the launcher: a real sshd and real slurmd's in mount namespaces in which the
checkout, the build and the test's folder are hidden and /var/tmp is small and their own. What [stage] sends is all that
they get, and nothing of it is left in the end, whoever is killed.
"""
import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent), str(pathlib.Path(__file__).resolve().parent)]
import harness  # noqa: E402
import slurm_cluster  # noqa: E402
import ssh  # noqa: E402

STEPS = 24
NO_CHECKPOINTS = [word for value in ("checkpoint.interval=0", "checkpoint.at_end=false", f"training.steps={STEPS}",
                                     "training.eval_interval=0") for word in ("--set", value)]
# hide SIZE FOLDER... -- PROGRAM...: an empty, read-only folder in place of each, and a /var/tmp of its own.
HIDE = """
size=$1; shift
mount --make-rprivate / || exit 1
while [ "$1" != -- ]; do mount -t tmpfs -o ro,size=4k hidden "$1" || exit 1; shift; done
shift
mount -t tmpfs -o "size=$size,mode=1777" own /var/tmp || exit 1
exec "$@"
"""
TRAIN = """
import hashlib, os, pathlib, sys
sys.path.insert(0, "lib")
import model
data = pathlib.Path(sys.argv[1].split("=")[1])
print("rank", os.environ["RANK"], model.WORD, hashlib.sha256(data.read_bytes()).hexdigest(), flush=True)
here = "/" + os.environ["HERE"]  # without its slash, else it were a path that is rewritten
assert pathlib.Path.cwd() == pathlib.Path(os.environ["MDS_STAGED"] + here), pathlib.Path.cwd()
assert "MAY_SEE" in os.environ or not pathlib.Path(here, "train.py").exists(), "it sees the launcher's files"
(pathlib.Path(os.environ["MDS_RUN_FOLDER"]) / ("of-rank-" + os.environ["RANK"])).write_text("x")
if len(sys.argv) > 2 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    import time
    print("waits", flush=True)
    time.sleep(1000)
"""


def hidden(launcher, size="2g"):
    """The words before a daemon's that put it on such a node."""
    build = launcher.program.parent.parent
    folders = [launcher.work, *([] if build.is_relative_to(harness.ROOT) else [build]), harness.ROOT]
    return ["unshare", "--mount", "sh", "-c", HIDE, "hide", size, *map(str, folders), "--"]


def left_on(pid):
    """What is in /var/tmp on the node of process `pid`."""
    found = subprocess.run(["nsenter", "--mount", "--target", str(pid), "find", "/var/tmp", "-mindepth", "1"],
                           text=True, capture_output=True)
    # It fails where something goes while it looks.
    return found.stdout.splitlines() + (["what has just gone"] if found.returncode != 0 else [])


def wait_until_empty(pid, seconds=10):
    try:
        harness.wait_for(lambda: not left_on(pid), seconds, "nothing in /var/tmp")
    except harness.Failure as failure:
        raise harness.Failure(f"{failure}; there is {left_on(pid)}") from failure


class Hosts:
    """Two such nodes, each with a real sshd."""

    def __init__(self, launcher, size="2g"):
        self.launcher, self.size = launcher, size

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.folder = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="mds-sshd-")))
        self.servers = [self.stack.enter_context(
            ssh.SshServer(self.folder / name, self.launcher.mark, within=hidden(self.launcher, self.size),
                          names=name)) for name in ("node1", "node2")]
        self.config = self.folder / "config"
        self.config.write_text("".join(f"Include {server.config}\n" for server in self.servers))
        return self

    def __exit__(self, *_):
        self.stack.close()

    def words(self):
        return ssh.ssh_words(self, "node[1-2]") + ["--set", "stage.enabled=true"]

    def pids(self):
        return [server.sshd.pid for server in self.servers]

    def nothing_left(self):
        for pid in self.pids():
            wait_until_empty(pid)


def payload(launcher, *, nodes=2, waits=False, megabytes=3):
    """A job of a script, a module beside it and data that it finds by an absolute path; and the data's digest."""
    home = launcher.work
    (home / "lib").mkdir(exist_ok=True)  # the launcher's working folder
    (home / "train.py").write_text(TRAIN)
    (home / "lib/model.py").write_text('WORD = "staged"\n')
    content = os.urandom(megabytes << 20)
    (home / "data.bin").write_bytes(content)
    more = ', "waits"' if waits else ""
    job = launcher.job(f"""
[job]
name = "staged"
devices = "cpu"
nodes = {nodes}
ranks_per_node = 2
env = {{ HERE = "{str(home)[1:]}" }}
[payload]
command = ["/usr/bin/python3", "train.py", "--data={home}/data.bin"{more}]
[stage]
enabled = true
files = ["lib"]
[restart]
max_restarts = 0
""")
    return job, hashlib.sha256(content).hexdigest()


def check_logs(run, digest, ranks=4, shares=False):
    for rank in range(ranks):
        harness.check(f"rank {rank} staged {digest}" in run.log(rank), f"log of rank {rank}: {run.log(rank)!r}")
    found = len(list(run.folder.glob("of-rank-*")))
    harness.check(found == (ranks if shares else 0), f"{found} ranks write to the run folder")


def payload_runs(launcher, hosts):
    job, digest = payload(launcher)
    check_logs(launcher.run(job, *hosts.words()).expect(0), digest)
    hosts.nothing_left()


def quickstart_is_the_same(launcher, hosts):
    """mdstrain, LibTorch and the data reach both nodes; logs and losses are here."""
    local = launcher.run(harness.QUICKSTART, *NO_CHECKPOINTS).expect(0)
    run = launcher.run(harness.QUICKSTART, *NO_CHECKPOINTS, *hosts.words()).expect(0)
    harness.check(run.losses() == local.losses() and len(run.losses()) == STEPS, f"other losses: {run.everything()}")
    hosts.nothing_left()
    said = re.search(r"staging \d+ files, [^,]+B", run.output)
    harness.check(said, f"nothing is said of it: {run.everything()}")
    print(f"  {said[0]}: the losses of the local back end; {run.seconds:.1f} s, local {local.seconds:.1f} s")


def refused_in_time(launcher, hosts):
    """What cannot work is said in one sentence before a rank starts."""
    run = launcher.run(harness.QUICKSTART, "--set", "training.steps=24", *hosts.words()).expect(2)
    harness.check("does not see the run folder" in run.errors and "checkpoint.at_end = false" in run.errors,
                  run.everything())
    hosts.nothing_left()
    run = launcher.command("run", "--dry-run", harness.QUICKSTART, "--set", "stage.enabled=true").expect(0)
    for name in ("mdstrain", "libtorch_cpu.so", "mdsstack", "common-licenses"):
        harness.check(re.search(f"# Sent to every node: .*/{name}\n", run.output), f"no {name}: {run.everything()}")
    run = launcher.command("check", harness.QUICKSTART, "--set", "stage.enabled=true", "--set", 'job.backend="mpi"',
                           "--set", 'job.hosts=["a","b"]').expect(2)
    harness.check("not every mpirun" in run.errors + run.output, run.everything())


def kill_agents(launcher, process):
    """Once all ranks wait: the agent of the first node, and agent and guard of the second before either can act."""
    logs = [process.output_dir / f"latest/logs/rank-{rank:05d}.log" for rank in range(4)]
    harness.wait_for(lambda: all(log.exists() and "waits" in log.read_text() for log in logs), 60, "all ranks")
    victims = []
    for node in (1, 0):
        family = [pid for pid, words in launcher.survivors()
                  if ".agent-" in words.split(" ")[0] and words.strip().endswith(f"-{node}")]
        agent = [pid for pid in family if parent_of(pid) in family]
        harness.check(len(family) == 2 and len(agent) == 1, f"guard and agent of node {node}: {launcher.survivors()}")
        victims += agent if node == 0 else family
    for sign in (signal.SIGSTOP, signal.SIGKILL):
        for pid in victims:
            os.kill(pid, sign)


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def agents_killed(launcher, hosts):
    """They are sent again and start again. What an agent leaves its guard removes; what both leave, the next agent."""
    job, digest = payload(launcher, waits=True)
    process = launcher.start(job, *hosts.words(), "--set", "restart.max_restarts=2")
    kill_agents(launcher, process)
    run = launcher.finish(process, 60).expect(0)
    check_logs(run, digest)
    harness.check("is lost" not in run.errors, f"a node was given up: {run.everything()}")
    launcher.wait_until_gone(15)
    hosts.nothing_left()

    process = launcher.start(job, *hosts.words())
    kill_agents(launcher, process)
    launcher.finish(process, 60).expect(1)
    launcher.wait_until_gone(15)
    first, second = hosts.pids()
    wait_until_empty(first)
    harness.check(left_on(second), "guard and agent were killed, and yet nothing is left; was anything staged?")
    two_at_once(launcher, hosts)


def two_at_once(launcher, hosts):
    """Two jobs with the same files on the same nodes."""
    job, digest = payload(launcher, megabytes=30)
    for process in [launcher.start(job, *hosts.words()) for _ in range(2)]:
        check_logs(launcher.finish(process, 60).expect(0), digest)
    hosts.nothing_left()


def stopped_on_the_way(launcher, hosts):
    """Ctrl-C, or a killed launcher, while files travel."""
    job, _ = payload(launcher, waits=True, megabytes=150)  # should they arrive before the signal, ranks wait
    for sign, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        process = launcher.start(job, *hosts.words())
        first = hosts.pids()[0]
        harness.wait_for(lambda: any("/objects/" in path for path in left_on(first)), 30, "a file on its way")
        process.send_signal(sign)
        launcher.finish(process, 30).expect(code)
        launcher.wait_until_gone(15)
        hosts.nothing_left()


def over_the_tree(launcher):
    """More nodes than the head has connections: some get their files from other agents."""
    job, digest = payload(launcher, nodes=40)
    folder = launcher.work / "store"
    run = launcher.run(job, "--set", "stage.enabled=true", "--set", f'stage.folder="{folder}"', "--set",
                       "job.ranks_per_node=1", extra={"MAY_SEE": "1"}).expect(0)
    check_logs(run, digest, ranks=40, shares=True)
    notes = "".join((run.folder / f"logs/node-{node:05d}.log").read_text() for node in range(40))
    harness.check(notes.count("staged in") == 40, "not every node has staged")
    harness.check(not folder.exists(), f"{folder} is left")


def damaged_agent(launcher, hosts):
    """A program with another digest than the one that was sent is not used."""
    folder = launcher.work / "damaging"
    folder.mkdir()
    (folder / "scp").write_text(f"""#!/usr/bin/python3
import os, sys
place = sys.argv.index("--") + 1
content = bytearray(open(sys.argv[place], "rb").read())
content[-1] ^= 1  # of the table of sections, which nobody needs to run it
copy = "{folder}/mdsagent-%d" % os.getpid()
os.close(os.open(copy, os.O_CREAT, 0o755))
open(copy, "wb").write(content)
os.execv("{shutil.which("scp")}", ["scp", *sys.argv[1:place], copy, sys.argv[place + 1]])
""")
    (folder / "scp").chmod(0o755)
    job, _ = payload(launcher)
    run = launcher.run(job, *hosts.words(), extra={"PATH": f"{folder}:{os.environ['PATH']}"}).expect(4)
    sent = hashlib.sha256((launcher.program.parent / "mdsagent").read_bytes()).hexdigest()
    digests = set(re.findall(r"\b[0-9a-f]{64}\b", run.errors))
    harness.check(len(digests) == 2 and sent in digests, f"both digests are to be named: {run.everything()}")
    launcher.wait_until_gone(10)
    hosts.nothing_left()


def full_disk(launcher):
    with Hosts(launcher, size="24m") as hosts:
        job, _ = payload(launcher, megabytes=40)
        run = launcher.run(job, *hosts.words()).expect(1)
        # Files come side by side: which of them finds the disk full first is not said.
        cause = str(run.report()["first_cause"])
        told = r"/\S+: no room for \d+ bytes as /var/tmp/mds-stage-\S+: No space left on device"
        harness.check(re.search(told, cause),
                      f"no file, size and place in the first cause: {cause}")
        hosts.nothing_left()


def under_slurm(launcher):
    """salloc on a login node; srun itself sends the agent."""
    with slurm_cluster.Cluster(nodes=2, within=hidden(launcher)) as cluster:
        job, digest = payload(launcher)
        out = pathlib.Path(tempfile.mkdtemp(dir=launcher.work, prefix="runs-"))
        words = ["salloc", "--nodes=2", str(launcher.program), str(job), "--output-dir", str(out)]
        name, value = launcher.mark.split("=")
        done = subprocess.run(words, cwd=launcher.work, env={**cluster.environment, name: value}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
        run = harness.Run(done.returncode, done.stdout, done.stderr, (out / "latest").resolve(), 0).expect(0)
        check_logs(run, digest)
        launcher.wait_until_gone(10)
        for name, daemon in cluster.daemons.items():
            if name.startswith("n"):
                wait_until_empty(daemon.pid)


def test(launcher, arguments):
    missing = [name for name in ("ssh", "ssh-keygen", "scp", "sshd", "unshare", "nsenter")
               if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    missing += slurm_cluster.missing_programs()
    if missing or os.geteuid() != 0:
        harness.check(os.environ.get("CI") != "true", f"not installed: {missing} (.ci/setup test), or not root")
        return harness.skip(f"needs root, and {missing} (.ci/setup test)")
    cases = [payload_runs, agents_killed, stopped_on_the_way, damaged_agent, refused_in_time, quickstart_is_the_same]
    with Hosts(launcher) as hosts:
        for case in [case for case in cases if not arguments.only or case.__name__ in arguments.only]:
            timed(case, launcher, hosts)
    for case in [case for case in (over_the_tree, full_disk, under_slurm)
                 if not arguments.only or case.__name__ in arguments.only]:
        timed(case, launcher)


def timed(case, *arguments):
    begin = time.monotonic()
    case(*arguments)
    print(f"  {case.__name__}: {time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    harness.main(test, __doc__, lambda parser: parser.add_argument("--only", nargs="*", help="cases by name"))
