"""Nodes that are cut off: the first cause names the node, its agent ends its ranks before a head would give it up, and
when the network is back the job goes on; a cut that is short enough costs nothing. And the networks themselves
(--netns): what runs in them, who may have them, and that nothing of them is left.

Nobody is told of a cut: packets are lost, as when a cable is pulled.
"""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

SHORT_CUT = 3  # seconds; agents look for another way after 5
GIVEN_UP = 15  # seconds of silence, after which the head starts ranks elsewhere

JOB = """
[job]
name = "partition"
devices = "cpu"
nodes = 2
ranks_per_node = 1
netns = true
[payload]
command = ["sh", "-c", {script}]
[restart]
max_restarts = 1
"""


class CutRun:
    """A run of two nodes whose ranks say that they live, every 0.1 s, until they may go."""

    def __init__(self, launcher, name):
        self.launcher, self.folder = launcher, launcher.work / name
        self.folder.mkdir()
        script = (f"while [ ! -e {self.folder}/go ]; do echo $TORCHELASTIC_RESTART_COUNT $(date +%s.%N) >> "
                  f"{self.folder}/alive-$RANK; sleep 0.1; done")
        job = launcher.job(JOB.format(script=json.dumps(script)), f"{name}.toml")
        self.process = launcher.start(job)
        harness.wait_for(lambda: all(self.signs(rank, 0) for rank in (0, 1)), 60, "both ranks")

    def signs(self, rank, attempt):
        """Times at which the rank said that it lives."""
        path = self.folder / f"alive-{rank}"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [float(time) for number, time in map(str.split, lines) if int(number) == attempt]

    def set_link(self, state):
        """By the command that mdslaunch itself has told."""
        told = (self.process.output_dir / "stdout").read_text()
        words = re.search(r"nsenter --net --target \d+ ip link set nodeN down", told)
        harness.check(words, f"mdslaunch does not say how to cut a node off:\n{told}")
        subprocess.run(words.group().replace("nodeN", "node1").replace("down", state).split(), check=True)

    def finish(self):
        (self.folder / "go").touch()
        return self.launcher.finish(self.process, timeout=60).expect(0)


def cut_off(launcher):
    long, short = CutRun(launcher, "long"), CutRun(launcher, "short")  # with the same names and addresses
    cut = time.time()
    long.set_link("down")
    short.set_link("down")
    time.sleep(SHORT_CUT)
    short.set_link("up")

    def given_up():
        log = long.process.output_dir / "latest/events.jsonl"
        return [line for line in log.read_text().splitlines() if "agent_silent" in line or "agent_lost" in line]
    told = harness.wait_for(given_up, 60, "the head's giving node 1 up")
    harness.check(all('"node":1' in line for line in told), f"not only node 1 was given up: {told}")
    last = long.signs(1, 0)[-1] - cut
    log = (long.process.output_dir / "latest/logs/node-00001.log").read_text()
    harness.check("head lost: " in log, f"the agent that was cut off did not end by itself:\n{log}")
    harness.check(last < GIVEN_UP - 1, f"the rank that was cut off lived for {last:.1f} s")
    print(f"  the rank that was cut off ended after {last:.1f} s; nodes elsewhere are given up after {GIVEN_UP} s")
    long.set_link("up")
    harness.wait_for(lambda: all(long.signs(rank, 1) for rank in (0, 1)), 60, "the next attempt of both ranks")
    harness.check(max(long.signs(rank, 0)[-1] for rank in (0, 1)) < min(long.signs(rank, 1)[0] for rank in (0, 1)),
                  "ranks of two attempts lived at the same time")
    run = long.finish()
    harness.check("agent of node 1 " in run.errors and "says nothing any more" in run.errors,
                  f"the first cause does not name the node and the silence: {run.everything()}")
    run = short.finish()
    harness.check(run.report()["restarts"] == 0, f"{SHORT_CUT} s without a network cost a restart: {run.everything()}")


def links():
    return subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout


def namespaces_of(pids):
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended since
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found


def nothing_left(launcher):
    """Every process of a run is killed at once: with them its networks go, which were never the host's."""
    before = links()
    run = CutRun(launcher, "killed")
    harness.check(links() == before, f"the host has links of the run:\n{links()}")
    head = run.process.pid
    namespaces = namespaces_of(pid for pid, _ in launcher.survivors())
    harness.check(len(namespaces) == 3 and os.readlink("/proc/self/ns/net") not in namespaces,
                  f"head and nodes are in {namespaces}")
    launcher.kill_survivors()
    launcher.wait_until_gone(20)
    run.process.wait(10)
    in_use = namespaces_of(path.name for path in pathlib.Path("/proc").glob("[0-9]*"))
    harness.check(not namespaces & in_use, f"processes are left in networks of run {head}: {namespaces & in_use}")


def addresses(launcher):
    """Ranks are told their node's address, and no other interface than loopback is there beside its own."""
    script = "echo $MDS_HOST_ADDRESS; ip -brief -4 address"
    run = launcher.run(launcher.job(JOB.format(script=json.dumps(script)))).expect(0)
    for rank in (0, 1):
        lines = run.log(rank).splitlines()
        harness.check(lines[0] == f"10.88.0.{2 + rank}" and f"10.88.0.{2 + rank}/16" in lines[2] and
                      [line.split("@")[0].split()[0] for line in lines[1:3]] == ["lo", "eth0"], f"{lines}")


def rights(launcher):
    """root may have networks, users may under unshare, and who may not is told so."""
    job = launcher.job(JOB.format(script='"true"'))
    refused = launcher.command("run", job, within=("unshare", "--user")).expect(4)
    harness.check("unshare --user --map-root-user" in refused.errors, refused.everything())
    launcher.command("run", job, within=("unshare", "--user", "--map-root-user")).expect(0)


def same_bits(launcher):
    """The trainer's own connections between ranks, over the switch."""
    job = launcher.job(harness.small_job(data=2, nodes=2), "small.toml")
    there = launcher.run("run", "--netns", job).expect(0)
    harness.check(there.losses() == launcher.run(job).expect(0).losses(), "losses differ from those without --netns")


def test(launcher, arguments):
    for case in (addresses, rights, same_bits, nothing_left, cut_off):
        print(case.__name__, flush=True)
        case(launcher)


if __name__ == "__main__":
    if "--help" not in sys.argv and os.environ.get("CI") != "true":
        if subprocess.run(["unshare", "--net", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
            sys.exit(harness.skip("no network namespace is to be had: only root may make one"))
    harness.main(test, __doc__)
