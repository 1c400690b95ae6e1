"""What happens to machines under a real Slurm (tests/slurm_cluster.py), to a run of many nodes.

    slurm_faults.py [--nodes 64] [--only CASE...]

With 64 slurmd it is part of `make faults`, with 8 of the tests. A run of all nodes with 8 ranks on each starts and
ends, and so does one in a heterogeneous job. Then a run loses a node and goes on without it, in fewer ranks; one has a
node taken down by the administrator, and a spare one in its place; one is to be queued again instead; one is
cancelled, one meets its time limit. The first cause names the node or the request, what was trained is not lost, and
nothing is left.
"""
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import slurm_cluster  # noqa: E402
from slurm import Jobs, folder_of, node_lost, nothing_left, time_limit, wait_for_step  # noqa: E402

STUB = """[job]
name = "stub"
devices = "cpu"
ranks_per_node = {ranks}
[payload]
command = [{words}]
[restart]
max_restarts = 3
{more}
"""
# A small model on two nodes; parallel.data = "auto" takes what is there.
TRAINING = ("training.steps={steps}", "training.eval_interval=0", "checkpoint.interval=5", "job.ranks_per_node=1",
            "parallel.tensor=1", "parallel.data=\"auto\"", "training.global_batch_size=12",
            "training.micro_batch_size=1")


def stub_job(launcher, name, words, ranks=8, more=""):
    texts = ", ".join(f'"{word}"' for word in words)
    return launcher.job(STUB.format(ranks=ranks, words=texts, more=more), f"{name}.toml")


def training_words(steps, *more):
    return [word for value in (*(text.format(steps=steps) for text in TRAINING), *more) for word in ("--set", value)]


def started(folder, ranks):
    """All ranks of the newest attempt run."""
    path = folder / "runs/latest/events.jsonl"
    return path.exists() and path.read_text().count('"event":"rank_started"') >= ranks


def all_nodes(launcher, jobs):
    """Every node, eight stub ranks on each: it starts, runs and ends."""
    nodes = jobs.cluster.nodes
    file = stub_job(launcher, "true", ["true"])
    begin = time.monotonic()
    job, folder = jobs.submit("--nodes", nodes, file, nodes=nodes)
    run = jobs.finished(job, folder, "COMPLETED", seconds=240).expect(0)
    harness.check(run.report()["ranks"] == nodes * 8, f"ranks: {run.report()['ranks']}")
    harness.check(run.output.count("failed") == 0, run.everything())
    nothing_left(launcher, jobs.cluster)
    print(f"{nodes} nodes, {nodes * 8} ranks: {run.report()['seconds']:.2f} s of {time.monotonic() - begin:.1f} s")


def goes_on_without(launcher, jobs):
    """Power off in a run on all nodes: the others go on, with fewer ranks."""
    nodes = jobs.cluster.nodes
    # The first time everybody waits for ever; who sees a smaller world ends.
    file = stub_job(launcher, "without", ["sh", "-c", f"[ $WORLD_SIZE -lt {nodes * 8} ] || exec sleep 1000"])
    job, folder = jobs.submit("--nodes", nodes, file, nodes=nodes, options=("--no-kill",))
    harness.wait_for(lambda: started(folder, nodes * 8), 120, "all ranks")
    victim = f"n{nodes - 1}"
    begin = time.monotonic()
    jobs.cluster.kill_node(victim)
    run = jobs.finished(job, folder, "COMPLETED", seconds=240).expect(0)
    harness.check(f"{victim} is lost; going on with {nodes - 1} nodes" in run.output, run.everything())
    harness.check(run.report()["ranks"] == (nodes - 1) * 8, f"ranks: {run.report()['ranks']}")
    events = run.events()
    first = next(e for e in events if e.get("event") == "agent_lost")
    harness.check(first["node"] == nodes - 2, f"what was lost first: {first}")
    jobs.cluster.start_node(victim)
    nothing_left(launcher, jobs.cluster)
    print(f"goes on with {nodes - 1} nodes, {time.monotonic() - begin:.1f} s after {victim} lost its power")


def spare_takes_over(launcher, jobs):
    """A node set down by the administrator under a training run with a spare one: the same layout, the same bits."""
    undisturbed = launcher.run(harness.QUICKSTART, *training_words(40), "--set", "job.nodes=2").expect(0)
    job, folder = jobs.submit(harness.QUICKSTART, *training_words(40, "job.nodes=2"), nodes=3, options=("--no-kill",))
    wait_for_step(folder, 7)
    jobs.cluster.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    run = jobs.finished(job, folder, "COMPLETED", seconds=240).expect(0)
    harness.check("n2 is lost; going on with 2 nodes" in run.output, run.everything())
    harness.check(run.losses() == undisturbed.losses(), "the losses differ from those of an undisturbed run")
    jobs.cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)  # it may have come back itself
    jobs.cluster.wait_usable("n2")
    nothing_left(launcher, jobs.cluster)
    print("a node set down: its spare took over, with the same bits")


def fewer_nodes_train(launcher, jobs):
    """No spare node, but data parallel ranks: training goes on with fewer of them from the newest checkpoint."""
    job, folder = jobs.submit(harness.QUICKSTART, *training_words(40, "job.nodes=3"), nodes=3, options=("--no-kill",))
    wait_for_step(folder, 7)
    jobs.cluster.kill_node("n3")
    run = jobs.finished(job, folder, "COMPLETED", seconds=240).expect(0)
    harness.check("n3 is lost; going on with 2 nodes" in run.output, run.everything())
    steps = [record["step"] for record in run.lines("metrics.jsonl") if "loss" in record]
    harness.check(set(steps) == set(range(1, 41)), f"steps: {steps}")
    jobs.cluster.start_node("n3")
    nothing_left(launcher, jobs.cluster)
    print(f"training went on with 2 of 3 nodes, {len(steps) - 40} steps done again")


def requeues(launcher, jobs):
    """restart.lost_node = "requeue": the job leaves with its checkpoint, and Slurm starts it elsewhere."""
    undisturbed = launcher.run(harness.QUICKSTART, *training_words(40), "--set", "job.nodes=2").expect(0)
    job, folder = jobs.submit(harness.QUICKSTART, *training_words(40, 'restart.lost_node="requeue"'), nodes=2,
                              options=("--no-kill", "--requeue"))
    wait_for_step(folder, 7)
    name = folder_of(folder).name
    jobs.cluster.kill_node("n2")
    harness.wait_for(lambda: "is queued again" in (folder / "out").read_text(), 120, "requeue")
    jobs.cluster.start_node("n2")
    jobs.cluster.start_again(job)
    run = jobs.finished(job, folder, "COMPLETED", seconds=240).expect(0)
    harness.check(run.folder.name == name, f"the second run is called {run.folder.name}, the first {name}")
    harness.check(run.losses() == undisturbed.losses(), "the losses differ from those of an undisturbed run")
    nothing_left(launcher, jobs.cluster)
    print(f"a lost node: job {job} was queued again and went on in {name} with the same bits")


def heterogeneous(launcher, jobs):
    """A job of two components: the agents come up by a step of each, and are the nodes of one run."""
    file = stub_job(launcher, "het", ["sh", "-c", "echo node $NODE_RANK of $GROUP_WORLD_SIZE"], ranks=1)
    job, folder = jobs.submit(file, nodes=1, more="#SBATCH hetjob\n#SBATCH --nodes=2\n")
    run = jobs.finished(job, folder, "COMPLETED").expect(0)
    for rank in range(3):
        harness.check(f"node {rank} of 3" in run.log(rank), f"rank {rank}: {run.log(rank)}")
    nothing_left(launcher, jobs.cluster)
    print("a heterogeneous job: 1 and 2 nodes are one run of 3")


def cancelled(launcher, jobs):
    """scancel of a run on all nodes: every rank goes, and the exit code says by what."""
    nodes = jobs.cluster.nodes
    job, folder = jobs.submit("--nodes", nodes, stub_job(launcher, "cancel", ["sleep", "1000"]), nodes=nodes)
    harness.wait_for(lambda: started(folder, nodes * 8), 120, "all ranks")
    begin = time.monotonic()
    jobs.cluster.run("scancel", job)
    run = jobs.finished(job, folder, "CANCELLED", "FAILED")
    harness.check(run.report()["exit_code"] == 143, f"exit code {run.report()['exit_code']}: {run.everything()}")
    nothing_left(launcher, jobs.cluster)
    print(f"scancel of {nodes * 8} ranks: nothing left after {time.monotonic() - begin:.1f} s")


CASES = (all_nodes, heterogeneous, goes_on_without, spare_takes_over, fewer_nodes_train, requeues, cancelled,
         time_limit, node_lost)


def test(launcher, arguments):
    if missing := slurm_cluster.missing_programs():
        harness.check(os.environ.get("CI") != "true", f"not installed: {missing} (.ci/setup test)")
        return harness.skip(f"not installed: {', '.join(missing)} (.ci/setup test)")
    with slurm_cluster.Cluster(nodes=arguments.nodes, cpus=8) as cluster:
        jobs = Jobs(launcher, cluster)
        for case in CASES:
            if arguments.only and case.__name__ not in arguments.only:
                continue
            begin = time.monotonic()
            case(launcher, jobs)
            print(f"  {case.__name__}: {time.monotonic() - begin:.1f} s", flush=True)


def add_arguments(parser):
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--only", nargs="*", help="cases by name")


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
