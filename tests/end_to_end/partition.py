"""A node that is cut off: the first cause names it, its agent ends its ranks before the head gives it up, and when the
network is back the job goes on.

The nodes are network namespaces, each with an sshd and a link to the head's of its own; mdslaunch reaches them by ssh.
Nobody is told of the cut: packets are lost, as when a cable is pulled.
"""
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402
from ssh import SshServer  # noqa: E402

INSIDE = "MDS_PARTITION_TEST_INSIDE"


def ip(words, pid=None):
    within = ["nsenter", "--net", "--target", str(pid)] if pid else []
    subprocess.run([*within, "ip", *words.split()], check=True)


class Nodes:
    """node1 and node2 behind the links to1 and to2 of this namespace, whose address on both is 10.88.NODE.1."""

    def __init__(self, launcher):
        self.launcher, self.servers = launcher, []

    def __enter__(self):
        for number in (1, 2):
            server = SshServer(self.launcher.work / f"ssh{number}", self.launcher.mark, f"10.88.{number}.2",
                               within=("unshare", "--net")).__enter__()
            self.servers.append(server)
            ip(f"link add to{number} type veth peer name out netns {server.sshd.pid}")
            ip(f"address add 10.88.{number}.1/24 dev to{number}")
            ip(f"link set to{number} up")
            for words in ("link set lo up", f"address add 10.88.{number}.2/24 dev out", "link set out up",
                          f"route add default via 10.88.{number}.1"):
                ip(words, server.sshd.pid)
        self.config = self.launcher.work / "ssh_config"
        texts = [server.config.read_text().replace("node*", f"node{number}")
                 for number, server in enumerate(self.servers, 1)]
        self.config.write_text("".join(text.split("Host stranger")[0] for text in texts))
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.__exit__()


def last_line(path):
    """(attempt, time) of the rank's last sign of life."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return tuple(map(float, lines[-1].split())) if lines else None


def signs(path, attempt):
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [float(time) for number, time in map(str.split, lines) if int(number) == attempt]


def cut_off(launcher, nodes):
    work = launcher.work
    alive = [work / "alive-0", work / "alive-1"]
    script = (f"while [ ! -e {work}/go ]; do echo $TORCHELASTIC_RESTART_COUNT $(date +%s.%N) >> {work}/alive-$RANK; "
              "sleep 0.1; done")
    job = launcher.job(f"""
[job]
name = "partition"
devices = "cpu"
nodes = 2
ranks_per_node = 1
backend = "ssh"
hosts = ["node1", "node2"]
interface = "to1"
ssh_config = "{nodes.config}"
[payload]
command = ["sh", "-c", {json.dumps(script)}]
[restart]
max_restarts = 1
""")
    process = launcher.start(job)
    harness.wait_for(lambda: all(map(last_line, alive)), 30, "both ranks")
    ip("link set to2 down")

    def given_up():
        log = process.output_dir / "latest/events.jsonl"
        return [line for line in log.read_text().splitlines() if "agent_silent" in line or "agent_lost" in line]
    try:
        told = harness.wait_for(given_up, 60, "the head's giving node2 up")
        at = float(subprocess.run(["date", "+%s.%N"], capture_output=True, check=True).stdout)
        harness.check(all('"node":1' in line for line in told), f"not only node2 was given up: {told}")
        last = signs(alive[1], 0)[-1]
        harness.check(last < at - 0.5, f"the rank that was cut off was alive when its node was given up: {last}, {at}")
        print(f"  the rank that was cut off ended {at - last:.1f} s before its node was given up")
    finally:
        ip("link set to2 up")
        ip("route replace default via 10.88.2.1", nodes.servers[1].sshd.pid)  # routes go with their link
    harness.wait_for(lambda: all(signs(path, 1) for path in alive), 90, "the next attempt of both ranks")
    harness.check(max(signs(path, 0)[-1] for path in alive) < min(signs(path, 1)[0] for path in alive),
                  "ranks of two attempts lived at the same time")
    (work / "go").touch()
    run = launcher.finish(process, timeout=60).expect(0)
    harness.check("agent of node 1 " in run.errors, f"the first cause does not name the node: {run.everything()}")
    harness.wait_for(lambda: all("sshd" in command for _, command in launcher.survivors()), 20, "the end of all")


def test(launcher, arguments):
    ip("link set lo up")
    with Nodes(launcher) as nodes:
        cut_off(launcher, nodes)


if __name__ == "__main__":
    if INSIDE not in os.environ and "--help" not in sys.argv:
        command = ["unshare", "--net"]
        if subprocess.run([*command, "true"], check=False).returncode != 0 and os.environ.get("CI") != "true":
            sys.exit(harness.skip("no network namespace of its own is to be had: only root may run an sshd in one"))
        os.execvpe(command[0], [*command, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    harness.main(test, __doc__)
