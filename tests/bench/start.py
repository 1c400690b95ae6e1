"""Start-up times side by side: mdslaunch, OpenMPI's mpirun, torchrun, a bare loop of posix_spawn. A report, not a test.

    start.py [--build FOLDER] [--runs N] [--write docs/performance.md]

All of one table's commands take turns in one run, so that the machine's mood hits all of them alike; figures are
medians of wall-clock times from command to exit and of the processor time of all its processes. A command that does not
end in time is killed and counted; after three of these it is left out of the turns. With --write the tables replace
those between the page's markers.
"""
import dataclasses
import functools
import os
import pathlib
import platform
import select
import shutil
import signal
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

MPIRUN = ["mpirun", "--oversubscribe", "--allow-run-as-root", "-np"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
# From 32 local ranks on, OpenMPI 4.1 starts them by several threads, and then it sometimes waits for ever for a program
# that ended while another was being started. One thread is slower and always ends: both are measured.
MPIRUN_ONE_THREAD = [*MPIRUN[:-1], "--mca", "odls_base_num_threads", "0", "-np"]
LIMIT_SECONDS = 15
HANGS_MAX = 3
BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"


def payload_job(launcher, nodes, ranks_per_node, script=("true",), restarts=0):
    words = ", ".join(f'"{word}"' for word in script)
    return launcher.job(f'[job]\nname = "start"\ndevices = "cpu"\nnodes = {nodes}\nranks_per_node = {ranks_per_node}\n'
                        f'[payload]\ncommand = [{words}]\n[restart]\nmax_restarts = {restarts}\n',
                        f"start-{nodes}x{ranks_per_node}-{script[0]}.toml")


@dataclasses.dataclass
class Times:
    wall_ms: float
    cpu_ms: float       # user and system, of every process that was waited for


def measure(command, environment):
    """posix_spawn and wait4: no interpreter between the clock and the command. None if it does not end in time."""
    with open(os.devnull) as null_in, open(os.devnull, "w") as null_out:
        actions = [(os.POSIX_SPAWN_DUP2, null_in.fileno(), 0), (os.POSIX_SPAWN_DUP2, null_out.fileno(), 1)]
        begin = time.perf_counter()
        pid = os.posix_spawnp(command[0], command, environment, file_actions=actions, setpgroup=0)
        pidfd = os.pidfd_open(pid)
        ended = select.select([pidfd], [], [], LIMIT_SECONDS)[0]
        seconds = time.perf_counter() - begin
        os.close(pidfd)
    if not ended:
        os.killpg(pid, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    if not ended:
        return None
    harness.check(os.waitstatus_to_exitcode(status) == 0, f"{' '.join(command)} failed with status {status}")
    return Times(seconds * 1e3, (used.ru_utime + used.ru_stime) * 1e3)


def bare_loop(ranks):
    """The floor: as many `true` as ranks, started one after the other and waited for."""
    begin = time.perf_counter()
    pids = [os.posix_spawnp("true", ["true"], os.environ) for _ in range(ranks)]
    used = [os.wait4(pid, 0)[2] for pid in pids]
    return Times((time.perf_counter() - begin) * 1e3, sum(u.ru_utime + u.ru_stime for u in used) * 1e3)


def side_by_side(contenders, runs):
    """contenders: name -> function that returns Times, or None when it hung. One warm-up each, then taking turns.
    Returns name -> [Times or None]."""
    times = {name: [] for name in contenders}
    for turn in range(runs + 1):
        for name, measured in contenders.items():
            if times[name].count(None) < HANGS_MAX:
                result = measured()
                if turn > 0 or result is None:
                    times[name].append(result)
    return times


def start_table(launcher, runs):
    names = ("mdslaunch", "mpirun", "mpirun, one thread", "torchrun", "bare posix_spawn loop")
    rows = [f"| `true` on | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for nodes, ranks_per_node, with_torchrun in ((2, 2, True), (4, 16, False)):
        ranks = nodes * ranks_per_node
        ours = [str(launcher.program), str(payload_job(launcher, nodes, ranks_per_node)), "--output-dir",
                str(launcher.work / "runs")]
        commands = {"mdslaunch": ours, "mpirun": [*MPIRUN, str(ranks), "true"]}
        if ranks >= 32:
            commands["mpirun, one thread"] = [*MPIRUN_ONE_THREAD, str(ranks), "true"]
        if with_torchrun:
            commands["torchrun"] = [*TORCHRUN, str(ranks), "--no-python", "true"]
        contenders = {name: functools.partial(measure, command, launcher.environment())
                      for name, command in commands.items() if shutil.which(command[0])}
        contenders["bare posix_spawn loop"] = functools.partial(bare_loop, ranks)
        times = side_by_side(contenders, runs)
        rows.append(f"| {ranks} ranks, {nodes} nodes | {' | '.join(cell(times.get(name)) for name in names)} |")
        print(rows[-1], flush=True)
    return rows


def median_and_range(milliseconds):
    return f"{statistics.median(milliseconds):.1f} ms ({min(milliseconds):.1f}-{max(milliseconds):.1f})"


def cell(times):
    """Median (fastest-slowest), the processor time, and how many runs never ended."""
    if not times:
        return ""
    ended = [one for one in times if one]
    parts = [median_and_range([one.wall_ms for one in ended]),
             f"processor {statistics.median(one.cpu_ms for one in ended):.0f} ms"] if ended else []
    if len(ended) < len(times):
        parts.append(f"{len(times) - len(ended)} of {len(times)} hung")
    return ", ".join(parts)


def recovery_table(launcher, runs):
    """A payload rank kills itself and writes down when (CLOCK_MONOTONIC, by which agents stamp what they detect).

    The event log says where on that clock its own times begin.
    """
    script = ["sh", "-c", "[ $TORCHELASTIC_RESTART_COUNT = 0 ] || exit 0; "
              "if [ $RANK = 2 ]; then exec python3 -c 'import os,time; print(time.monotonic_ns(), flush=True); "
              "os.kill(os.getpid(), 9)'; fi; exec sleep 100"]
    known, running = [], []
    for _ in range(runs):
        run = launcher.run(payload_job(launcher, 2, 2, script, restarts=1)).expect(0)
        first, *events = run.events()
        killed_us = int(run.log(2).split()[0]) / 1e3 - first["begin_us"]
        known_us = next(e["t_us"] for e in events if e["event"] == "rank_exited" and e["rank"] == 2)
        running_us = max(e["t_us"] for e in events if e["event"] == "rank_started" and e["attempt"] == 2)
        known.append((known_us - killed_us) / 1e3)
        running.append((running_us - killed_us) / 1e3)
    return ["| from SIGKILL of a rank (4 ranks, 2 nodes) | time |", "|---|---|",
            f"| known to the supervisor | {median_and_range(known)} |",
            f"| all ranks of the next attempt running | {median_and_range(running)} |"]


def write(path, tables, begin=BEGIN, end=END):
    page = pathlib.Path(path)
    text = page.read_text()
    harness.check(begin in text and end in text, f"{path} has no markers {begin} ... {end}")
    head, rest = text.split(begin)
    page.write_text(head + begin + "\n" + tables + end + rest.split(end)[1])
    print(f"written into {path}")


def test(launcher, arguments):
    kernel = platform.release().partition("-")[0]
    machine = f"{os.cpu_count()} cores, {platform.system()} {kernel}, {time.strftime('%Y-%m-%d')}"
    lines = [f"{machine}; medians of {arguments.runs} runs taking turns, fastest and slowest in brackets.", ""]
    lines += start_table(launcher, arguments.runs) + [""] + recovery_table(launcher, max(3, arguments.runs // 2))
    tables = "\n".join(lines) + "\n"
    print(tables)
    if arguments.write:
        write(harness.ROOT / arguments.write, tables)


def add_arguments(parser):
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--write", metavar="PAGE", help="replace the tables of this page, relative to the checkout")


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
