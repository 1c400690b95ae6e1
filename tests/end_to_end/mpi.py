"""Real start programs of MPI: the quickstart job, shortened, runs through Open MPI's and MPICH's mpirun and has the
losses of the local back end, bit for bit; a killed agent starts again. (Which words each kind is given is
tests/launcher/backend/remote_test.cpp's; Intel MPI's is a Hydra, too.)
"""
import os
import pathlib
import shutil
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

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


def test(launcher, arguments):
    local = launcher.run(harness.QUICKSTART, *SETS).expect(0)
    tried = 0
    for kind, names in KINDS.items():
        mpirun = next((path for name in names if (path := shutil.which(name))), None)
        if not mpirun:
            harness.check(os.environ.get("CI") != "true", f"{kind} is not installed (.ci/setup test)")
            print(f"{kind} is not installed: left out")
            continue
        run = launcher.run(harness.QUICKSTART, *SETS, *mpi_words(mpirun)).expect(0)
        harness.check(run.losses() == local.losses(), f"{kind}: the losses differ from those of the local back end")
        agent_killed(launcher, mpirun)
        print(f"{kind}: {STEPS} losses equal to those of the local back end; a killed agent started again")
        tried += 1
    return 0 if tried else harness.skip("no mpirun is installed (.ci/setup test)")


if __name__ == "__main__":
    harness.main(test, __doc__)
