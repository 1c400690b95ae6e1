"""A real Slurm on this machine (tests/slurm_cluster.py): the quickstart job, shortened, runs unchanged in an sbatch
script and has the losses of the local back end, bit for bit. A killed agent starts again, scancel leaves a checkpoint
and exit code 75, and a job that Slurm starts again goes on under the same run id.
"""
import contextlib
import os
import pathlib
import re
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import mpi_program  # noqa: E402
import slurm_cluster  # noqa: E402

STEPS, INTERVAL = 30, 10
SETS = [word for value in (f"training.steps={STEPS}", f"checkpoint.interval={INTERVAL}", "training.eval_interval=0")
        for word in ("--set", value)]
LONG = "training.steps=100000"


class Jobs:
    """sbatch scripts that call mdslaunch as a user writes them."""

    def __init__(self, launcher, cluster):
        self.launcher, self.cluster = launcher, cluster
        cluster.environment.update([launcher.mark.split("=")])
        cluster.environment["OMP_NUM_THREADS"] = "1"

    def submit(self, *words, options=(), nodes=2, more=""):
        """`more`: further lines of #SBATCH."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-", dir=self.launcher.work))
        command = [str(self.launcher.program), *map(str, words), "--output-dir", str(folder / "runs")]
        script = folder / "job.sh"
        script.write_text(f"#!/bin/bash\n#SBATCH --nodes={nodes}\n{more}exec {' '.join(command)}\n")
        job = self.cluster.submit(script, f"--output={folder}/out", "--open-mode=append", *options, cwd=folder)
        return job, folder

    def finished(self, job, folder, *states, seconds=120):
        """The run, when the Slurm job has ended in one of these states."""
        state = self.cluster.wait(job, seconds=seconds)
        output = (folder / "out").read_text(errors="replace") if (folder / "out").exists() else ""
        code = self.cluster.exit_code(job)
        run = harness.Run(code, output, "", folder_of(folder), 0)
        harness.check(state in states, f"job {job} ended {state}: {run.everything()}")
        return run


def folder_of(folder):
    latest = folder / "runs/latest"
    return latest.resolve() if latest.exists() else None


def wait_for_step(folder, step, seconds=60):
    def reached():
        path = folder / "runs/latest/metrics.jsonl"
        return path.exists() and f'"step":{step},' in path.read_text()
    harness.wait_for(reached, seconds, f"step {step} in {folder}")


def agents(cluster, *variables):
    """The agents (and guards) that this cluster runs, with these variables: srun's environment has no mark of ours."""
    wanted = [f"SLURM_CONF={cluster.folder}/slurm.conf", *variables]
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_text(errors="replace").split("\0")
            if (folder / "comm").read_text().strip() == "mdsagent" and all(word in environment for word in wanted):
                found.append(int(folder.name))
    return found


def nothing_left(launcher, cluster):
    launcher.wait_until_gone(15)
    harness.wait_for(lambda: not agents(cluster), 5, "end of all agents")


def same_bits_as_local(launcher, jobs):
    local = launcher.run(harness.QUICKSTART, *SETS).expect(0)
    job, folder = jobs.submit(harness.QUICKSTART, *SETS)
    run = jobs.finished(job, folder, "COMPLETED").expect(0)
    harness.check(len(run.losses()) == STEPS, f"{len(run.losses())} losses: {run.everything()}")
    harness.check(run.losses() == local.losses(), "the losses differ from those of the local back end")
    nothing_left(launcher, jobs.cluster)
    print(f"slurm: {STEPS} losses equal to those of the local back end, run folder {run.folder.name}")


SECRET = "a-token-of-the-user-4f1d"


def shown_by_slurm(cluster, job):
    """{command: output} of all that Slurm tells of a job to whoever asks, the batch script included."""
    commands = (["scontrol", "--details", "show", "job", job], ["scontrol", "--details", "show", "step"],
                ["scontrol", "write", "batch_script", job, "-"], ["squeue", "--format=%all"],
                ["squeue", "--steps", "--format=%all"], ["scontrol", "--details", "show", "nodes"])
    shown = {" ".join(map(str, command)): cluster.run(*command).stdout for command in commands}
    harness.check("mdsagent" in shown["scontrol --details show step"], f"the step of the agents is not shown: {shown}")
    harness.check("mdslaunch" in shown[f"scontrol write batch_script {job} -"], f"no batch script: {shown}")
    return shown


def bootstrap_is_secret(launcher, jobs):
    """No key in an argument list, an environment or what Slurm shows; nor a secret of the user's environment, which
    ranks have, in what everybody may read."""
    jobs.cluster.environment["SOME_TOKEN"] = SECRET
    job, folder = jobs.submit(harness.QUICKSTART, "--set", LONG)
    del jobs.cluster.environment["SOME_TOKEN"]
    wait_for_step(folder, 2)
    public = shown_by_slurm(jobs.cluster, job)
    private = {}
    ranks = 0
    for process, _ in launcher.survivors():
        with contextlib.suppress(OSError):
            environment = pathlib.Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace")
            words = pathlib.Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
            public[f"arguments of {process}"], private[f"environment of {process}"] = words, environment
            ranks += SECRET in environment and "mdstrain" in words
    for process in agents(jobs.cluster):
        public[f"environment of agent {process}"] = pathlib.Path(f"/proc/{process}/environ").read_text(errors="replace")
    harness.check(ranks == 4, f"{ranks} ranks have the user's variable: the test would find nothing")
    for where, shown in {**public, **private}.items():
        key = re.search(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", shown)
        harness.check("head_address" not in shown and not key, f"the bootstrap line can be seen: {where} has {key}")
    for where, shown in public.items():
        harness.check(SECRET not in shown, f"a secret of the user's environment can be seen: {where}")
    jobs.cluster.run("scancel", job)
    run = jobs.finished(job, folder, "CANCELLED", "FAILED")
    harness.check(run.checkpoints(), f"no checkpoint after scancel: {run.everything()}")
    harness.check(run.report()["exit_code"] == 75, f"exit code {run.report()['exit_code']}: {run.everything()}")
    nothing_left(launcher, jobs.cluster)
    print("scancel: a checkpoint, exit code 75, nothing left")


def agent_killed(launcher, jobs):
    """Its ranks go with it; a new step brings another agent, and the run goes on from its newest checkpoint."""
    job, folder = jobs.submit(harness.QUICKSTART, *SETS, "--set", "training.steps=60")
    wait_for_step(folder, INTERVAL + 2)
    of_node_1 = agents(jobs.cluster, "SLURM_PROCID=1")
    harness.check(len(of_node_1) == 2, f"agent and guard of node 1: {of_node_1}")
    os.kill(max(of_node_1), signal.SIGKILL)
    run = jobs.finished(job, folder, "COMPLETED").expect(0)
    harness.check(run.report()["restarts"] == 1, f"restarts {run.report()['restarts']}: {run.everything()}")
    harness.check(len(run.losses()) == 60, f"{len(run.losses())} losses")
    nothing_left(launcher, jobs.cluster)
    print("a killed agent was started again by a step of its own")


def signal_before_end(launcher, jobs):
    """What Slurm does before the time limit, here by scancel --batch: a checkpoint, the job is queued again, starts
    again and goes on under the same run id."""
    undisturbed = launcher.run(harness.QUICKSTART, *SETS).expect(0)
    job, folder = jobs.submit(harness.QUICKSTART, *SETS, options=("--requeue",))
    wait_for_step(folder, 5)
    name = folder_of(folder).name
    jobs.cluster.run("scancel", "--batch", "--signal=USR1", job)
    harness.wait_for(lambda: "is queued again" in (folder / "out").read_text(), 60, "requeue")
    jobs.cluster.start_again(job)
    run = jobs.finished(job, folder, "COMPLETED", seconds=180).expect(0)
    harness.check(run.folder.name == name, f"the second run is called {run.folder.name}, the first {name}")
    harness.check(run.losses() == undisturbed.losses(), "the losses differ from those of an undisturbed run")
    nothing_left(launcher, jobs.cluster)
    print(f"requeued job {job} went on in {name} with the same bits")


def script_of_ours(launcher, jobs):
    """submit: the script that sbatch prints, handed in and run to its end."""
    folder = launcher.work / "submitted"
    done = launcher.run("submit", harness.QUICKSTART, *SETS, "--set", "slurm.time=10", "--output-dir", folder,
                        "--chain", "2", extra=jobs.cluster.environment).expect(0)
    first, second = map(int, done.output.split())
    for number in (first, second):
        jobs.cluster.wait(number, seconds=120)
        harness.check(jobs.cluster.state(number) == "COMPLETED", f"job {number}: {jobs.cluster.state(number)}")
    text = (folder / f"quickstart-{first}.out").read_text()
    harness.check("quickstart finished" in text, f"what it printed: {text}")
    harness.check("\033" not in text and "\r" not in text, f"no plain lines in a file: {text!r}")
    text = (folder / f"quickstart-{second}.out").read_text()
    harness.check("has finished already" in text, f"what the next of the chain printed: {text}")
    nothing_left(launcher, jobs.cluster)
    print(f"submit: job {first} has run to its end, and {second} behind it saw that")


def time_limit(launcher, jobs):
    """Slurm's own signal before a real time limit; at scancel's resolution of time that takes up to a minute."""
    job, folder = jobs.submit(harness.QUICKSTART, "--set", LONG, "--set", "slurm.requeue=false",
                              options=("--time=1", "--signal=B:USR1@40"))
    run = jobs.finished(job, folder, "FAILED", seconds=100).expect(75)
    harness.check(run.checkpoints(), f"no checkpoint: {run.everything()}")
    nothing_left(launcher, jobs.cluster)
    print(f"time limit: {run.checkpoints()[-1]} was written, exit code 75")


def node_lost(launcher, jobs):
    """A node that loses its power: the first cause names it; without a spare one the run cannot go on there."""
    job, folder = jobs.submit(harness.QUICKSTART, "--set", LONG, "--set", "restart.max_restarts=0",
                              options=("--no-kill",))
    wait_for_step(folder, 3)
    jobs.cluster.kill_node("n2")
    run = jobs.finished(job, folder, "FAILED").expect(1)
    cause = run.report()["first_cause"]
    harness.check("node 1" in str(cause) or cause.get("node") == 1, f"the first cause: {cause}")
    nothing_left(launcher, jobs.cluster)
    print("a lost node is the first cause")


def mpi_payloads(launcher, jobs):
    for kind in mpi_program.COMPILERS:
        if file := mpi_program.job(launcher, kind):
            job, folder = jobs.submit(file)
            mpi_program.check(jobs.finished(job, folder, "COMPLETED"))
            print(f"{kind}: a program of its own sums over 2 nodes of Slurm")
    nothing_left(launcher, jobs.cluster)


def too_few_nodes(launcher, jobs):
    job, folder = jobs.submit(harness.QUICKSTART, "--nodes", "4-6")
    run = jobs.finished(job, folder, "FAILED").expect(3)
    harness.check("this Slurm job has 2" in run.output, f"what it says: {run.everything()}")


CASES = (same_bits_as_local, bootstrap_is_secret, agent_killed, signal_before_end, script_of_ours, mpi_payloads,
         too_few_nodes)


def test(launcher, arguments):
    if missing := slurm_cluster.missing_programs():
        harness.check(os.environ.get("CI") != "true", f"not installed: {missing} (.ci/setup test)")
        return harness.skip(f"not installed: {', '.join(missing)} (.ci/setup test)")
    with slurm_cluster.Cluster(nodes=8) as cluster:
        jobs = Jobs(launcher, cluster)
        for case in CASES:
            if arguments.only and case.__name__ not in arguments.only:
                continue
            begin = time.monotonic()
            case(launcher, jobs)
            print(f"  {case.__name__}: {time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    harness.main(test, __doc__, lambda parser: parser.add_argument("--only", nargs="*", help="cases by name"))
