"""Runs mdslaunch the way a user does and reads what it leaves behind. Used by the scripts below; standard library only.

A script gets --build FOLDER (the build to test), works in a temporary folder that goes when it ends, and leaves with
exit code 0 (passed), 77 (skipped, the last line says why) or another (failed).
"""
import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "docs/examples/quickstart.toml"
SKIPPED = 77

# A LLaMA that trains a step in milliseconds; {tensor} etc. are filled in by small_job().
SMALL_JOB = """
[job]
name = "small"
devices = "cpu"
nodes = {nodes}
ranks_per_node = {ranks_per_node}
env = {{ OMP_NUM_THREADS = "1" }}
[parallel]
tensor = {tensor}
pipeline = {pipeline}
[model]
architecture = "{architecture}"
hidden_size = 64
num_layers = 4
num_attention_heads = 4
intermediate_size = 128
vocab_size = 256
max_position_embeddings = 32
[data]
format = "text"
path = "{text}"
[training]
steps = {steps}
seq_len = 32
global_batch_size = 8
micro_batch_size = 1
[optimizer]
name = "adamw"
lr = 1e-3
"""


class Failure(Exception):
    """What a check found; printed without a traceback."""


def check(condition, message):
    if not condition:
        raise Failure(message)


@dataclasses.dataclass
class Run:
    """One finished mdslaunch: exit code (negative: killed by that signal), what it printed, and its run folder."""
    exit_code: int
    output: str
    errors: str
    folder: pathlib.Path | None
    seconds: float

    def everything(self):
        return f"exit code {self.exit_code}\n--- standard output\n{self.output}--- standard error\n{self.errors}"

    def expect(self, *codes):
        check(self.exit_code in codes, f"expected exit code {' or '.join(map(str, codes))}, got {self.everything()}")
        return self

    def lines(self, name):
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def events(self):
        return self.lines("events.jsonl")

    def report(self):
        return json.loads((self.folder / "report.json").read_text())

    def log(self, rank):
        return (self.folder / f"logs/rank-{rank:05d}.log").read_text(errors="replace")

    def losses(self):
        """Training loss of each step as a hexadecimal float: equal strings are equal bits. A step that was done again
        after a restart counts once, and must have had the same loss."""
        losses = {}
        for record in self.lines("metrics.jsonl"):
            if "loss" in record:
                bits = float(record["loss"]).hex()
                check(losses.setdefault(record["step"], bits) == bits, f"step {record['step']} was done twice with "
                      f"different losses, {losses[record['step']]} and {bits}, in {self.folder}")
        return losses

    def validation_losses(self):
        return {r["step"]: float(r["validation_loss"]).hex() for r in self.lines("metrics.jsonl")
                if "validation_loss" in r}

    def checkpoints(self):
        return sorted(path.parent.name for path in self.folder.glob("checkpoints/step-*/manifest.json"))


class Launcher:
    """Starts build/bin/mdslaunch. What it starts carries a mark in its environment, by which survivors are found."""

    def __init__(self, build, work):
        self.program = pathlib.Path(build).resolve() / "bin/mdslaunch"
        self.work = pathlib.Path(work)
        self.mark = f"LAUNCH_TEST_MARK={uuid.uuid4()}"
        check(self.program.exists(), f"{self.program} is missing: build it first (make test)")

    def environment(self, extra=None):
        name, value = self.mark.split("=")
        return {**os.environ, name: value, "OMP_NUM_THREADS": "1", **(extra or {})}

    def job(self, text, name="job.toml"):
        path = self.work / name
        path.write_text(text)
        return path

    def start(self, *arguments, extra=None, **options):
        """A running mdslaunch with its output in files; finish() waits for it. `within`: words before its own."""
        output_dir = pathlib.Path(tempfile.mkdtemp(dir=self.work, prefix="runs-"))
        command = [*options.pop("within", ()), str(self.program), *map(str, arguments)]
        if "--output-dir" not in command and options.pop("with_output_dir", True):
            command += ["--output-dir", str(output_dir)]
        files = [open(output_dir / name, "w+") for name in ("stdout", "stderr")]
        process = subprocess.Popen(command, cwd=self.work, env=self.environment(extra), stdin=subprocess.DEVNULL,
                                   stdout=files[0], stderr=files[1], **options)
        process.output_dir, process.files, process.started = output_dir, files, time.monotonic()
        return process

    def finish(self, process, timeout=240):
        try:
            exit_code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            exit_code = f"none within {timeout} s"
        seconds = time.monotonic() - process.started
        texts = []
        for file in process.files:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return Run(exit_code, *texts, self.run_folder(process), seconds)

    @staticmethod
    def run_folder(process):
        latest = process.output_dir / "latest"
        return latest.resolve() if latest.exists() else None

    def run(self, *arguments, timeout=240, **options):
        """Runs to the end and checks what holds after any end: no process of the run is left."""
        run = self.finish(self.start(*arguments, **options), timeout)
        left = self.survivors()
        check(not left, f"processes left behind: {left}\n{run.everything()}")
        return run

    def command(self, *arguments, timeout=60, **options):
        """A command that starts no job, such as plan or completion."""
        return self.run(*arguments, timeout=timeout, with_output_dir=False, **options)

    def survivors(self):
        """Processes that carry our mark: [(pid, command line)]."""
        found = []
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # A zombie has no environment any more; it is its parent's to reap, not ours to find.
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.append((int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
        return found

    def wait_until_gone(self, seconds):
        """After a violent end, the time that it took until no process was left."""
        begin = time.monotonic()
        while left := self.survivors():
            check(time.monotonic() - begin < seconds, f"still there after {seconds} s: {left}")
            time.sleep(0.01)
        return time.monotonic() - begin

    def kill_survivors(self):
        for pid, _ in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def small_job(tensor=1, pipeline=1, data=1, nodes=1, architecture="llama", steps=4, text=None, more=""):
    world = tensor * pipeline * data
    check(world % nodes == 0, "the ranks must divide by the nodes")
    text = text or "/usr/share/common-licenses"
    return SMALL_JOB.format(tensor=tensor, pipeline=pipeline, nodes=nodes, ranks_per_node=world // nodes, steps=steps,
                            architecture=architecture, text=text) + more


def wait_for(condition, seconds, what):
    """Polls until condition() is true; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        check(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        time.sleep(0.01)
    return value


def fresh_seed():
    seed = int(os.environ.get("MDS_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"seed {seed} (MDS_TEST_SEED={seed} repeats it)")
    return seed


def main(test, description, add_arguments=None):
    """Runs test(launcher, arguments) in a temporary folder and leaves with the exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build/release"), help="build folder to test")
    if add_arguments:
        add_arguments(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mds-test-") as work:
        launcher = None
        try:
            launcher = Launcher(arguments.build, work)
            code = test(launcher, arguments)
        except Failure as failure:
            print(f"FAILED: {failure}")
            code = 1
        finally:
            if launcher:
                launcher.kill_survivors()
    sys.exit(code or 0)


def skip(reason):
    print(f"skipped: {reason}")
    return SKIPPED
