"""Start-up times side by side: mdslaunch, Open MPI's mpirun, srun of a real 64-slurmd Slurm, torchrun, and a bare loop
of posix_spawn, for 1, 8, 64 and 512 ranks. A report, not a test.

    start.py [--build FOLDER] [--runs N] [--write docs/performance.md]

All commands for one number of ranks take turns in one run, so that the machine's mood hits all of them alike; figures
are medians of wall-clock times from command to exit. A command that does not end in time is killed and counted; after
three of these it is left out of the turns. With --write the tables replace those between the page's markers.
"""
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import platform
import re
import select
import shutil
import signal
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import slurm_cluster  # noqa: E402

MPIRUN = ["mpirun", "--oversubscribe", "--allow-run-as-root", "-np"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
# From 32 local ranks on, OpenMPI 4.1 starts them by several threads, and then it sometimes waits for ever for a program
# that ended while another was being started. One thread is slower and always ends: both are measured.
MPIRUN_ONE_THREAD = [*MPIRUN[:-1], "--mca", "odls_base_num_threads", "0", "-np"]
LAYOUTS = ((1, 1), (1, 8), (8, 8), (8, 64), (64, 8))  # nodes, ranks on each
TORCHRUN_RUNS = 3  # it takes seconds
# The same options for the agents alone as mdslaunch gives srun for them.
SRUN = ["srun", "--overlap", "--mpi=none", "--cpu-bind=none", "--mem=0", "--export=PATH,HOME"]
LIMIT_SECONDS = 60
ON_SLURM = "mdslaunch, Slurm"
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
    ready_ms: float = 0.0  # all agents connected, their machines known and the plan made


def measure(command, environment, runs=None):
    """posix_spawn and wait4: no interpreter between the clock and the command. None if it does not end in time. `runs`:
    folder of mdslaunch's runs, of which the newest says when its agents were ready, on the same clock as ours."""
    with open(os.devnull) as null_in, open(os.devnull, "w") as null_out:
        actions = [(os.POSIX_SPAWN_DUP2, null_in.fileno(), 0), (os.POSIX_SPAWN_DUP2, null_out.fileno(), 1),
                   (os.POSIX_SPAWN_DUP2, null_out.fileno(), 2)]
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
    times = Times(seconds * 1e3, (used.ru_utime + used.ru_stime) * 1e3)
    if runs:
        newest = max(runs.glob("*/events.jsonl"), key=os.path.getmtime)
        times.ready_ms = json.loads(newest.open().readline())["begin_us"] / 1e3 - begin * 1e3
    return times


def side_by_side(contenders, runs):
    """contenders: name -> (function that returns Times, or None when it hung; runs at most). One warm-up each, then
    taking turns. Returns name -> [Times or None]."""
    times = {name: [] for name in contenders}
    for turn in range(runs + 1):
        for name, (measured, most) in contenders.items():
            if times[name].count(None) < HANGS_MAX and turn <= (most or runs):
                result = measured()
                if turn > 0 or result is None:
                    times[name].append(result)
    return times


class SlurmJob:
    """All nodes of a real Slurm, allocated once; `environment` is what a program in that job sees."""

    def __init__(self, cluster):
        words = ("salloc", "--no-shell", f"--nodes={cluster.nodes}", "--exclusive")
        job = re.search(r"job allocation (\d+)", cluster.run(*words).stderr)[1]
        self.environment = {**cluster.environment, "SLURM_JOB_ID": job, "SLURM_JOBID": job,
                            "SLURM_JOB_NODELIST": f"n[1-{cluster.nodes}]"}


def contenders_for(launcher, slurm_job, nodes, ranks_per_node):
    """name -> (function that returns Times, how often it is run at most)."""
    ranks = nodes * ranks_per_node
    here = launcher.environment()
    job = payload_job(launcher, nodes, ranks_per_node)
    runs_folder = launcher.work / "runs"
    # This Slurm's node names are in no name service, as a cluster's are; scontrol would be asked for their addresses.
    ours = [str(launcher.program), str(job), "--set", "job.interface=lo", "--output-dir", str(runs_folder)]
    loop = str(launcher.program.parent / "mds_spawn_loop")
    commands = {"mdslaunch, local": (ours, here, None),
                "mpirun": ([*(MPIRUN if ranks < 32 else MPIRUN_ONE_THREAD), str(ranks), "true"], here, None),
                "torchrun": ([*TORCHRUN, str(ranks), "--no-python", "true"], here, TORCHRUN_RUNS)}
    if slurm_job:
        there = {**slurm_job.environment, **dict([launcher.mark.split("=")])}
        wide = [*SRUN, f"--nodes={nodes}", f"--ntasks={ranks}", f"--ntasks-per-node={ranks_per_node}", "--overcommit"]
        alone = [*SRUN, f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
        agent = str(launcher.program.parent / "mdsagent")
        commands[ON_SLURM] = (ours, there, None)
        commands["srun, one agent a node"] = ([*alone, agent, "--version"], there, None)
        commands["srun, one loop a node"] = ([*alone, loop, str(ranks_per_node), "true"], there, None)
        commands["srun, all ranks"] = ([*wide, "true"], there, None)
    commands["posix_spawn loop"] = ([loop, str(ranks), "true"], here, None)
    return {name: (functools.partial(measure, command, environment, runs_folder if name == ON_SLURM else None), runs)
            for name, (command, environment, runs) in commands.items() if shutil.which(command[0])}


def start_table(launcher, slurm_job, runs):
    """One row a contender, one column a layout, and what a rank more costs at the end."""
    columns = []
    for nodes, ranks_per_node in LAYOUTS:
        contenders = contenders_for(launcher, slurm_job, nodes, ranks_per_node)
        columns.append(side_by_side(contenders, runs))
        print(f"{nodes} nodes x {ranks_per_node} ranks: " +
              ", ".join(f"{name} {cell(times)}" for name, times in columns[-1].items()), flush=True)
    rows = ["| `true` | " + " | ".join(f"{nodes} x {ranks}" for nodes, ranks in LAYOUTS)
            + " | a rank more, 8 x 8 to 8 x 64 |", "|---" * (len(LAYOUTS) + 2) + "|"]
    for name in columns[-1]:
        medians = [wall_median(column.get(name, [])) for column in columns]
        growth = ""
        if medians[2] and medians[3]:
            growth = f"{(medians[3] - medians[2]) / (8 * 64 - 8 * 8):.2f} ms"
        rows.append(f"| {name} | " + " | ".join(cell(column.get(name, [])) for column in columns) + f" | {growth} |")
        if name == ON_SLURM:
            ready = [statistics.median(one.ready_ms for one in column[name] if one) for column in columns]
            rows.append("| until all its agents are ready | " + " | ".join(f"{ms:.1f} ms" for ms in ready) + " | |")
    return rows


def wall_median(times):
    ended = [one.wall_ms for one in times if one]
    return statistics.median(ended) if ended else None


def median_and_range(milliseconds):
    return f"{statistics.median(milliseconds):.1f} ms ({min(milliseconds):.1f}-{max(milliseconds):.1f})"


def cell(times):
    """Median, and how many runs never ended."""
    ended = [one for one in times if one]
    parts = [f"{wall_median(times):.1f} ms"] if ended else []
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
    lines = [f"{machine}; medians of {arguments.runs} runs taking turns ({TORCHRUN_RUNS} of torchrun); "
             "columns: nodes x ranks on each.", ""]
    with contextlib.ExitStack() as stack:
        slurm_job = None
        if not slurm_cluster.missing_programs():
            slurm_job = SlurmJob(stack.enter_context(slurm_cluster.Cluster(nodes=LAYOUTS[-1][0], cpus=8)))
        lines += start_table(launcher, slurm_job, arguments.runs)
    lines += [""] + recovery_table(launcher, max(3, arguments.runs // 2))
    tables = "\n".join(lines) + "\n"
    print(tables)
    if arguments.write:
        write(harness.ROOT / arguments.write, tables)


def add_arguments(parser):
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--write", metavar="PAGE", help="replace the tables of this page, relative to the checkout")


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
