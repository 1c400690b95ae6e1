"""Starts and stops with random kills of every process of ours: whatever dies, and when, nothing is left.

Each round starts a job whose ranks leave daemons behind (setsid, deaf to SIGTERM), kills some of mdslaunch, guards,
agents, ranks, daemons and the reader of stacks at random moments, and then stops what still runs. The test lives in
namespaces of its own: every process, socket, shared-memory segment and file under /tmp or /dev/shm that is there after
a round was left by it, marked as ours or not. Of mdslaunch, a guard and its agent, which look after each other, at most
two are killed in a round: with all three at once nobody would be left to clear up.
"""
import collections
import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

INSIDE = "MDS_LEFTOVERS_TEST_INSIDE"
SECONDS_TO_CLEAR = 8
PROGRAMS = ("mdslaunch", "mdsagent", "mdsstack")
KINDS = ("mdslaunch", "guard", "agent", "rank", "daemon")
WATCHERS = {"mdslaunch", "guard", "agent"}
SCRIPT = "setsid sh -c 'trap : TERM HUP INT; exec sleep 1001' & touch up-$RANK; exec sleep 1000"


def processes():
    """{pid: (kind, parent)} of all that live in this process namespace, but this one. Zombies are reaped or skipped."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if int(folder.name) != os.getpid() and state != "Z":
                found[int(folder.name)] = (words, int(parent))
    kinds = {}
    for pid, (words, parent) in found.items():
        name = os.path.basename(words[0]).decode()
        if name == "mdsagent":
            above = found.get(parent, ([b""], 0))[0][0]
            name = "agent" if above.endswith(b"mdsagent") else "guard"
        elif name not in PROGRAMS:
            name = "daemon" if b"1001" in words else "rank"
        kinds[pid] = (name, b" ".join(words).decode())
    return kinds


def reap_orphans():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass


def left(launcher):
    """What is there although nothing runs any more, as a list of texts."""
    reap_orphans()
    found = [f"process {pid} {command}" for pid, (_, command) in processes().items()]
    for name in ("tcp", "tcp6", "udp"):
        for line in pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            if line.split()[9] != "0":  # the inode: one that the kernel keeps for TIME-WAIT belongs to nobody
                found.append(f"{name} socket {line}")
    found += [f"unix socket {line}" for line in pathlib.Path("/proc/net/unix").read_text().splitlines()[1:]]
    for name in ("shm", "sem", "msg"):
        found += [f"{name} {line}" for line in pathlib.Path(f"/proc/sysvipc/{name}").read_text().splitlines()[1:]]
    found += [str(path) for path in pathlib.Path("/dev/shm").iterdir()]
    found += [str(path) for path in pathlib.Path("/tmp").iterdir() if path.name not in ("build", launcher.work.name)]
    return found


def kill_one(kind, dice, statistics):
    """False: there is none."""
    victims = [pid for pid, (name, _) in processes().items() if name == kind]
    if victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(victims), signal.SIGKILL)
            statistics[kind] += 1
    return bool(victims)


def kill_some(dice, statistics):
    """The kinds that were hit."""
    hit = set()
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3])):
        kind = dice.choice(KINDS)
        # An agent that has lost its guard looks like a guard: a second one would be that guard's own agent.
        if kind in hit & WATCHERS or WATCHERS <= hit | {kind}:
            continue
        if kill_one(kind, dice, statistics):
            hit.add(kind)
            time.sleep(dice.choice([0, dice.uniform(0, 0.02)]))
    return hit


def one_round(launcher, dice, statistics):
    nodes, ranks = dice.choice([1, 2, 3]), dice.choice([1, 2])
    for mark in launcher.work.glob("up-*"):
        mark.unlink()
    job = launcher.job(f"""
[job]
name = "leftovers"
devices = "cpu"
nodes = {nodes}
ranks_per_node = {ranks}
[payload]
command = ["sh", "-c", "{SCRIPT}"]
mpi = {dice.choice(["true", "false"])}
[restart]
max_restarts = {dice.choice([0, 1])}
""")
    process = launcher.start(job)
    reader = None
    if dice.random() < 0.4:
        time.sleep(dice.uniform(0, 0.05))  # a random moment of the start
    else:
        harness.wait_for(lambda: len(list(launcher.work.glob("up-*"))) == nodes * ranks, 20, "all ranks")
        if dice.random() < 0.4:
            reader = subprocess.Popen([launcher.program, "stacks", launcher.run_folder(process)],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if dice.random() < 0.5:
                harness.wait_for(lambda: reader.poll() is not None or kill_one("mdsstack", dice, statistics), 20,
                                 "a reader of stacks")
    hit = kill_some(dice, statistics)
    if process.poll() is None:
        time.sleep(dice.choice([0, dice.uniform(0, 0.05)]))
        ways = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        process.send_signal(dice.choice(ways + [signal.SIGKILL] * (hit & WATCHERS != {"guard", "agent"})))
    run = launcher.finish(process, timeout=30)
    harness.check(isinstance(run.exit_code, int), f"it did not end: {run.everything()}")
    begin = time.monotonic()
    if reader:
        reader.wait(SECONDS_TO_CLEAR)
    while found := left(launcher):
        harness.check(time.monotonic() - begin < SECONDS_TO_CLEAR, f"left behind: {found}\n{run.everything()}")
        time.sleep(0.005)
    shutil.rmtree(process.output_dir)
    return time.monotonic() - begin


def test(launcher, arguments):
    dice = random.Random(harness.fresh_seed())
    statistics, slowest, begin = collections.Counter(), 0, time.monotonic()
    for number in range(arguments.rounds):
        try:
            slowest = max(slowest, one_round(launcher, dice, statistics))
        except harness.Failure as failure:
            raise harness.Failure(f"round {number}: {failure}") from failure
    print(f"{arguments.rounds} rounds in {time.monotonic() - begin:.0f} s, killed {dict(statistics)}; "
          f"the last to go went after {slowest * 1e3:.0f} ms")


def enter(build):
    """Becomes the first process of a process namespace with a /tmp, a /dev/shm and a loopback of its own."""
    files = {f"bin/{name}": (pathlib.Path(build) / "bin" / name).read_bytes() for name in PROGRAMS}
    if (plugin := pathlib.Path(build) / "lib/libmds_pmix.so").exists():
        files["lib/libmds_pmix.so"] = plugin.read_bytes()
    for place in ("/tmp", "/dev/shm"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, content in files.items():
        copy = pathlib.Path("/tmp/build") / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
        copy.chmod(0o755)
    at = sys.argv.index("--build")
    sys.argv[at + 1] = "/tmp/build"


def add_arguments(parser):
    parser.add_argument("--rounds", type=int, default=50)


if __name__ == "__main__":
    if INSIDE not in os.environ and "--help" not in sys.argv:
        users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *users, "--net", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*command, "true"], check=False).returncode != 0 and os.environ.get("CI") != "true":
            sys.exit(harness.skip("no namespaces of its own are to be had"))
        os.execvpe(command[0], [*command, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    if "--help" not in sys.argv:
        enter(sys.argv[sys.argv.index("--build") + 1])
    harness.main(test, __doc__, add_arguments)
