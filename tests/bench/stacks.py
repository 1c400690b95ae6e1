"""How long `mdslaunch stacks` takes for many ranks on this machine: stubs, which sleep, and mdstrain's, which train.

    stacks.py [--build FOLDER] [--ranks 64] [--repeats 5]
"""
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

NODES = 4
STUB = """
[job]
devices = "cpu"
nodes = {nodes}
ranks_per_node = {ranks_per_node}
[payload]
command = ["sleep", "1000"]
"""


def all_run(process, ranks):
    events = process.output_dir / "latest/events.jsonl"
    return events.exists() and events.read_text().count('"event":"rank_started"') == ranks


def trains(process, _):
    metrics = process.output_dir / "latest/metrics.jsonl"
    return metrics.exists() and '"step":2,' in metrics.read_text()


def times(launcher, process, repeats):
    seconds = []
    for _ in range(repeats):
        asked = launcher.start("stacks", "--output-dir", process.output_dir)
        begin = time.monotonic()
        asked.wait()
        seconds.append(time.monotonic() - begin)
        launcher.finish(asked).expect(0)
    return seconds


def bench(launcher, arguments):
    per_node = arguments.ranks // NODES
    jobs = {"stubs": (STUB.format(nodes=NODES, ranks_per_node=per_node), all_run),
            "mdstrain": (harness.small_job(data=arguments.ranks, nodes=NODES, steps=20_000)
                         .replace("global_batch_size = 8", f"global_batch_size = {arguments.ranks}"), trains)}
    for name, (job, ready) in jobs.items():
        process = launcher.start(launcher.job(job, f"{name}.toml"))
        harness.wait_for(lambda: ready(process, arguments.ranks), 240, name)
        seconds = times(launcher, process, arguments.repeats)
        print(f"{arguments.ranks} ranks, {name}: {statistics.median(seconds):.2f} s "
              f"({min(seconds):.2f} to {max(seconds):.2f})", flush=True)
        stop = launcher.start("stop", "--now", "--output-dir", process.output_dir)
        launcher.finish(stop).expect(0)
        launcher.finish(process)


def add_arguments(parser):
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)


if __name__ == "__main__":
    harness.main(bench, __doc__, add_arguments)
