"""Start-up times side by side: mdslaunch, OpenMPI's mpirun, torchrun, a bare loop of posix_spawn. A report, not a test.

    start.py [--build FOLDER] [--runs N] [--write docs/performance.md]

All of one table's commands take turns in one run, so that the machine's mood hits all of them alike; figures are
medians of wall-clock times from command to exit. With --write the tables replace those between the page's markers.
"""
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
HANG_SECONDS = 20
BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"


def payload_job(launcher, nodes, ranks_per_node, script=("true",), restarts=0):
    words = ", ".join(f'"{word}"' for word in script)
    return launcher.job(f'[job]\nname = "start"\ndevices = "cpu"\nnodes = {nodes}\nranks_per_node = {ranks_per_node}\n'
                        f'[payload]\ncommand = [{words}]\n[restart]\nmax_restarts = {restarts}\n',
                        f"start-{nodes}x{ranks_per_node}-{script[0]}.toml")


def wall_seconds(command, environment):
    """posix_spawn and waitpid: no interpreter between the clock and the command. None if it hangs, as mpirun sometimes
    does with programs that end at once."""
    with open(os.devnull) as null_in, open(os.devnull, "w") as null_out:
        actions = [(os.POSIX_SPAWN_DUP2, null_in.fileno(), 0), (os.POSIX_SPAWN_DUP2, null_out.fileno(), 1)]
        begin = time.perf_counter()
        pid = os.posix_spawnp(command[0], command, environment, file_actions=actions)
        pidfd = os.pidfd_open(pid)
        ended = select.select([pidfd], [], [], HANG_SECONDS)[0]
        seconds = time.perf_counter() - begin
        os.close(pidfd)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not ended:
        return None
    harness.check(os.waitstatus_to_exitcode(status) == 0, f"{' '.join(command)} failed with status {status}")
    return seconds


def bare_loop(ranks):
    """The floor: as many `true` as ranks, started one after the other and waited for."""
    begin = time.perf_counter()
    pids = [os.posix_spawnp("true", ["true"], os.environ) for _ in range(ranks)]
    for pid in pids:
        os.waitpid(pid, 0)
    return time.perf_counter() - begin


def side_by_side(contenders, runs):
    """contenders: name -> function that returns seconds. One warm-up each, then taking turns. Returns name -> [s]."""
    for measure in contenders.values():
        measure()
    times = {name: [] for name in contenders}
    for _ in range(runs):
        for name, measure in contenders.items():
            times[name].append(measure())
    return times


def start_table(launcher, runs):
    rows = ["| `true` on | mdslaunch | mpirun | torchrun | bare posix_spawn loop |", "|---|---|---|---|---|"]
    for nodes, ranks_per_node, with_torchrun in ((2, 2, True), (4, 16, False)):
        ranks = nodes * ranks_per_node
        ours = [str(launcher.program), str(payload_job(launcher, nodes, ranks_per_node)), "--output-dir",
                str(launcher.work / "runs")]
        commands = {"mdslaunch": ours, "mpirun": [*MPIRUN, str(ranks), "true"]}
        if with_torchrun:
            commands["torchrun"] = [*TORCHRUN, str(ranks), "--no-python", "true"]
        contenders = {name: functools.partial(wall_seconds, command, launcher.environment())
                      for name, command in commands.items() if shutil.which(command[0])}
        contenders["bare"] = lambda: bare_loop(ranks)
        times = side_by_side(contenders, runs)
        cells = [cell(times.get(name)) for name in ("mdslaunch", "mpirun", "torchrun", "bare")]
        rows.append(f"| {ranks} ranks, {nodes} nodes | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def cell(times):
    """Median (fastest-slowest), and how many runs never ended."""
    if not times:
        return ""
    ended = [seconds * 1e3 for seconds in times if seconds is not None]
    text = f"{statistics.median(ended):.1f} ms ({min(ended):.1f}-{max(ended):.1f})" if ended else "never ended"
    return text + (f", {len(times) - len(ended)} of {len(times)} hung" if len(ended) < len(times) else "")


def recovery_table(launcher, runs):
    """A payload rank kills itself and writes down when (CLOCK_MONOTONIC, by which agents stamp what they detect).

    The event log counts from the run's begin; where that lies on the monotonic clock follows from the exit that took
    the shortest way from its agent to the supervisor, so the figures leave out that shortest way.
    """
    script = ["sh", "-c", "[ $TORCHELASTIC_RESTART_COUNT = 0 ] || exit 0; "
              "if [ $RANK = 2 ]; then exec python3 -c 'import os,time; print(time.monotonic_ns(), flush=True); "
              "os.kill(os.getpid(), 9)'; fi; exec sleep 100"]
    known, running = [], []
    for _ in range(runs):
        run = launcher.run(payload_job(launcher, 2, 2, script, restarts=1)).expect(0)
        exits, starts = ([e for e in run.events() if e.get("event") == kind]
                         for kind in ("rank_exited", "rank_started"))
        begin_us = max(e["detected_us"] - e["t_us"] for e in exits)
        killed_us = int(run.log(2).split()[0]) / 1e3 - begin_us
        known_us = next(e["t_us"] for e in exits if e["rank"] == 2)
        running_us = max(e["t_us"] for e in starts if e["attempt"] == 2)
        known.append((known_us - killed_us) / 1e6)
        running.append((running_us - killed_us) / 1e6)
    return ["| from SIGKILL of a rank (4 ranks, 2 nodes) | time |", "|---|---|",
            f"| known to the supervisor | {cell(known)} |",
            f"| all ranks of the next attempt running | {cell(running)} |"]


def write(path, tables):
    page = pathlib.Path(path)
    text = page.read_text()
    harness.check(BEGIN in text and END in text, f"{path} has no markers {BEGIN} ... {END}")
    head, rest = text.split(BEGIN)
    page.write_text(head + BEGIN + "\n" + tables + END + rest.split(END)[1])
    print(f"written into {path}")


def test(launcher, arguments):
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {time.strftime('%Y-%m-%d')}"
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
