"""Real start programs of MPI: the quickstart job, shortened, runs through Open MPI's and MPICH's mpirun and has the
losses of the local back end, bit for bit; a killed agent starts again; an mpirun may itself start mdslaunch; and mpirun
and its daemons leave the cores to the ranks. (Which words each kind is given is
tests/launcher/backend/remote_test.cpp's.) Then programs that use MPI themselves are the payload on virtual nodes and
through mpirun: of Debian's Open MPI 4 and MPICH, and of Open MPI 5, MPICH 5 and Intel MPI from wheels, whose mpirun
starts the quickstart job, too.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import mpi_program  # noqa: E402

STEPS = 24
SETS = [word for value in (f"training.steps={STEPS}", "checkpoint.interval=5", "training.eval_interval=0")
        for word in ("--set", value)]
KINDS = {"Open MPI": ("mpirun.openmpi", "mpirun"), "MPICH": ("mpirun.mpich", "mpiexec.hydra")}


def mpi_words(mpirun):
    # Two nodes that are this machine: to mpirun they are one host with its slots.
    return ["--hosts", "localhost,localhost", "--set", 'job.backend="mpi"', "--set", f'job.mpirun="{mpirun}"']


def agent_killed(launcher, mpirun):
    process = launcher.start(harness.QUICKSTART, *SETS, "--set", "training.steps=60", *mpi_words(mpirun))

    def reached():
        path = process.output_dir / "latest/metrics.jsonl"
        return path.exists() and '"step":7,' in path.read_text()
    harness.wait_for(reached, 60, "step 7")
    agents = [pid for pid, words in launcher.survivors() if words.split()[0].endswith("/mdsagent")]
    os.kill(max(agents), signal.SIGKILL)
    run = launcher.finish(process).expect(0)
    harness.check(run.report()["restarts"] == 1, f"restarts {run.report()['restarts']}: {run.everything()}")
    harness.check(len(run.losses()) == 60, f"{len(run.losses())} losses")
    launcher.wait_until_gone(10)


def daemons_rest(launcher, kind, mpirun):
    """While ranks run, mpirun and its daemons wait: Hydra's proxies spin once they see a certain socket's end."""
    job = launcher.job("""[job]
devices = "cpu"
nodes = 2
ranks_per_node = 1
[payload]
command = ["sleep", "1000"]
""", "sleep.toml")
    process = launcher.start(job, *mpi_words(mpirun))

    def programs():
        return [(pid, os.path.basename(words.split()[0])) for pid, words in launcher.survivors() if words]

    def ticks(pid):
        after_name = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(after_name[11]) + int(after_name[12])
    harness.wait_for(lambda: sum(name == "sleep" for _, name in programs()) == 2, 60, "two ranks")
    daemons = [(pid, name) for pid, name in programs() if name not in ("sleep", "mdsagent", "mdslaunch")]
    harness.check(len(daemons) >= 2, f"{kind}: no daemons in {programs()}")
    before = [ticks(pid) for pid, _ in daemons]
    time.sleep(1)
    busy = [(name, ticks(pid) - then) for (pid, name), then in zip(daemons, before) if ticks(pid) - then > 5]
    harness.check(not busy, f"{kind}: hundredths of a second that daemons of ranks asleep have had of one: {busy}")
    process.send_signal(signal.SIGTERM)
    launcher.finish(process).expect(128 + signal.SIGTERM)
    launcher.wait_until_gone(10)


def started_inside(launcher, mpirun, kind):
    """mpirun starts two launchers, of which one makes the run; it starts agents through mpirun in turn."""
    output_dir = launcher.work / f"inside-{kind.replace(' ', '')}"
    count = ["--allow-run-as-root", "--oversubscribe", "-np", "2"] if kind == "Open MPI" else ["-n", "2"]
    done = subprocess.run([mpirun, *count, launcher.program, harness.QUICKSTART, *SETS, *mpi_words(mpirun),
                           "--output-dir", output_dir], cwd=launcher.work, env=launcher.environment(),
                          text=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    harness.check(done.returncode == 0, f"{kind}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    runs = [path for path in output_dir.iterdir() if not path.is_symlink()]
    harness.check(len(runs) == 1, f"{kind}: these runs were made: {runs}")
    launcher.wait_until_gone(10)


def mpi_payloads(launcher, mpiruns):
    """1 + 2 + 3 + 4 by MPI_Allreduce over two nodes, once more when a rank has died in the middle; and MPI_Abort in one
    rank ends all."""
    for kind, mpirun in mpiruns.items():
        job = mpi_program.job(launcher, kind)
        if not job:
            harness.check(os.environ.get("CI") != "true", f"no compiler of {kind} (.ci/setup test)")
            continue
        mpi_program.check(launcher.run(job))
        mpi_program.check(launcher.run(job, *mpi_words(mpirun)))
        again = launcher.run(mpi_program.job(launcher, kind, "3", restarts=1))
        mpi_program.check(again)
        harness.check(again.report()["restarts"] == 1, f"restarts {again.report()['restarts']}")
        cause = launcher.run(mpi_program.job(launcher, kind, "abort")).expect(1).report()["first_cause"]
        harness.check((cause["rank"], cause.get("exit_code")) == (3, 7), f"{kind}: MPI_Abort gave {cause}")
        left = [path for path in pathlib.Path("/dev/shm").glob(f"*{again.folder.name}*")]
        harness.check(not left, f"left behind: {left}")
        print(f"{kind}: a program of its own sums over 2 nodes, with virtual nodes and through mpirun")


def test(launcher, arguments):
    local = launcher.run(harness.QUICKSTART, *SETS).expect(0)
    mpiruns = {}
    for kind, names in KINDS.items():
        mpirun = next((path for name in names if (path := shutil.which(name))), None)
        if not mpirun:
            harness.check(os.environ.get("CI") != "true", f"{kind} is not installed (.ci/setup test)")
            print(f"{kind} is not installed: left out")
            continue
        run = launcher.run(harness.QUICKSTART, *SETS, *mpi_words(mpirun)).expect(0)
        harness.check(run.losses() == local.losses(), f"{kind}: the losses differ from those of the local back end")
        agent_killed(launcher, mpirun)
        started_inside(launcher, mpirun, kind)
        print(f"{kind}: {STEPS} losses equal to those of the local back end; a killed agent started again")
        mpiruns[kind] = mpirun
    for kind in mpi_program.WHEELS:
        mpirun = mpi_program.wheel(kind) / "bin/mpirun"
        if not mpirun.exists():
            harness.check(os.environ.get("CI") != "true", f"{kind} is not in {mpirun.parent} (.ci/setup test)")
            print(f"{kind} is not installed: left out")
            continue
        run = launcher.run(harness.QUICKSTART, *SETS, *mpi_words(mpirun)).expect(0)
        harness.check(run.losses() == local.losses(), f"{kind}: the losses differ from those of the local back end")
        print(f"{kind}: {STEPS} losses equal to those of the local back end")
        mpiruns[kind] = mpirun
    for kind, mpirun in mpiruns.items():
        daemons_rest(launcher, kind, mpirun)
    mpi_payloads(launcher, mpiruns)
    return 0 if mpiruns else harness.skip("no mpirun is installed (.ci/setup test)")


if __name__ == "__main__":
    harness.main(test, __doc__)
