#!/usr/bin/env python3
"""Cost of placing and planning, from 16 to 2,048 nodes of 8 GPUs under three levels of switches: `mdslaunch plan
--json` from start to end, and the part of it that grows with the nodes, over n log n. Run: placement.py --build DIR
"""
import math
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

JOB = """
[job]
name = "bench"
nodes = {nodes}
gpus_per_node = 8
[parallel]
tensor = 8
pipeline = {pipeline}
[payload]
command = ["true"]
"""
SECONDS_MAX = 2


def seconds(launcher, nodes, repeats):
    job = launcher.job(JOB.format(nodes=nodes, pipeline=min(16, nodes)))
    source = f"dgx-h100 x{nodes} fabric:leaf=16,spine=8"
    times = []
    for _ in range(repeats):
        begin = time.monotonic()
        launcher.command("plan", "--json", "--topology", source, job).expect(0)
        times.append(time.monotonic() - begin)
    return min(times), statistics.median(times)


def bench(launcher, arguments):
    sizes = [16, 32, 64, 128, 256, 512, 1024, 2048]
    base = seconds(launcher, 1, arguments.repeats)[0]
    print(f"one node: {base:.3f} s\n\n| nodes | ranks | best, s | median, s | us over one node, per n log2 n |\n|"
          + "---:|" * 5)
    for nodes in sizes:
        best, median = seconds(launcher, nodes, arguments.repeats)
        grown = (best - base) / (nodes * math.log2(nodes)) * 1e6
        print(f"| {nodes} | {8 * nodes} | {best:.3f} | {median:.3f} | {grown:.1f} |", flush=True)
    harness.check(best < SECONDS_MAX, f"{8 * sizes[-1]} ranks took {best:.2f} s, more than {SECONDS_MAX} s")


def add_arguments(parser):
    parser.add_argument("--repeats", type=int, default=5)


if __name__ == "__main__":
    harness.main(bench, __doc__, add_arguments)
