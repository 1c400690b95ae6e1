"""What a verified image costs at the start: 64 ranks of `true` on one node, in a container of each runtime, beside the
same without a container, and beside one Apptainer for each rank. A report, not a test.

    containers.py [--build FOLDER] [--runs N] [--ranks N] [--write docs/performance.md]

The image is a shell and `true`, packed as an archive (as a SIF file for Apptainer) and named by its sha256; it lies in
the node's store, as from the second job on. Rows take turns, as in start.py.
"""
import functools
import hashlib
import pathlib
import shutil
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

sys.path.insert(0, str(harness.ROOT / "tests/container"))
import container_runs  # noqa: E402
import start  # noqa: E402

BEGIN, END = "<!-- begin: containers -->", "<!-- end: containers -->"
EACH = 'for rank in $(seq "$1"); do "$2" --silent exec --userns "$3" true & done; wait'


def images(launcher, wanted):
    """{runtime: image file}: an archive, and a SIF file where Apptainer is."""
    root = container_runs.Root(launcher.work / "root").folder
    archive = launcher.work / "image.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    found = {runtime: archive for runtime in wanted if runtime != "apptainer"}
    if "apptainer" in wanted:
        found["apptainer"] = launcher.work / "image.sif"
        subprocess.run(["apptainer", "build", found["apptainer"], root], check=True, capture_output=True,
                       env=launcher.environment(wanted["apptainer"]))
    return found


def command(launcher, job, words=()):
    return [str(launcher.program), str(job), *words, "--output-dir", str(launcher.work / "runs")]


def contenders(launcher, ranks, wanted):
    job = start.payload_job(launcher, 1, ranks)
    plain = {"MDS_IMAGE_STORE": str(launcher.work / "store")}
    rows = {"no container": functools.partial(start.measure, command(launcher, job), launcher.environment(plain))}
    files = images(launcher, wanted)
    for runtime, environment in wanted.items():
        digest = hashlib.sha256(files[runtime].read_bytes()).hexdigest()
        words = container_runs.words(runtime, files[runtime], digest, trainer="")
        rows[runtime] = functools.partial(start.measure, command(launcher, job, words),
                                          launcher.environment({**environment, **plain}))
    if "apptainer" in wanted:
        program = shutil.which("apptainer", path=wanted["apptainer"]["PATH"])
        each = ["sh", "-c", EACH, "sh", str(ranks), program, str(files["apptainer"])]
        rows["one Apptainer for each rank, no launcher"] = functools.partial(start.measure, each,
                                                                             launcher.environment())
    return {name: (row, None) for name, row in rows.items()}


def test(launcher, arguments):
    wanted = container_runs.runtimes(("charliecloud", "bubblewrap", "podman", "apptainer"), launcher)
    times = start.side_by_side(contenders(launcher, arguments.ranks, wanted), arguments.runs)
    floor = statistics.median(one.wall_ms for one in times["no container"])
    lines = [f"{arguments.ranks} ranks of `true` on one node; medians of {arguments.runs} runs taking turns, fastest "
             "and slowest in brackets.", "", "| ranks in | from command to exit | over no container |", "|---|---|---|"]
    for name, measured in times.items():
        ended = [one.wall_ms for one in measured if one]
        over = f"{statistics.median(ended) - floor:.0f} ms" if ended and name != "no container" else ""
        lines.append(f"| {name} | {start.median_and_range(ended)} | {over} |")
    tables = "\n".join(lines) + "\n"
    print(tables)
    if arguments.write:
        start.write(harness.ROOT / arguments.write, tables, BEGIN, END)


def add_arguments(parser):
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--write", metavar="PAGE", help="replace the table of this page, relative to the checkout")


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
