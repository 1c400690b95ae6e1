"""Runs a real program under torchrun and under mdslaunch and compares its losses, which must be equal to the last bit.

    compare.py ddp | hf_trainer | megatron_deepspeed [--build FOLDER]
"""
import contextlib
import json
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import megatron_deepspeed  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
RANKS = 2
JOB = """
[job]
name = "{name}"
devices = "cpu"
nodes = 1
ranks_per_node = {ranks}
env = {{ {env} }}
[payload]
command = {command}
[restart]
max_restarts = 0
"""


# Gloo's threads now and then abort a process that is done with its work while it takes its process group down (about
# one run in ten of ddp.py under plain torchrun, PyTorch 2.11). Such a run says nothing about the losses: repeat it.
GLOO_ABORT = "terminate called without an active exception"
ATTEMPTS = 5


def finished(run, failure):
    """The first of a few runs that did not end in gloo's abort; `failure` reads what a failed run printed."""
    for _ in range(ATTEMPTS):
        result = run()
        if GLOO_ABORT not in failure(result):
            break
        print(f"repeated: {GLOO_ABORT}")
    return result


def under_torchrun(launcher, command, env):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    run = finished(lambda: subprocess.run([*torchrun, "--no-python", *command], cwd=launcher.work,
                                          env=launcher.environment(env), text=True, stdin=subprocess.DEVNULL,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400),
                   lambda run: run.stdout if run.returncode else "")
    harness.check(run.returncode == 0, f"torchrun itself failed:\n{run.stdout[-6000:]}")
    return run.stdout


def under_mdslaunch(launcher, name, command, env):
    text = JOB.format(name=name.replace("_", "-"), ranks=RANKS, command=json.dumps(command),
                      env=", ".join(f"{key} = {json.dumps(value)}" for key, value in env.items()))
    job = launcher.job(text)
    run = finished(lambda: launcher.run(job, timeout=400), lambda run: logs(run) if run.exit_code else "").expect(0)
    return logs(run)


def logs(run):
    return "".join(run.log(rank) for rank in range(RANKS))


def remove_what_deepspeed_leaves(since):
    """69 MB a rank of its all-reduce's buffers, which it never removes, under torchrun either."""
    for path in pathlib.Path("/dev/shm").glob("deepspeed_allreduce_buffer_*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime >= since:
                path.unlink()


def test(launcher, arguments):
    since = time.time()
    try:
        return compare(launcher, arguments)
    finally:
        remove_what_deepspeed_leaves(since)


def compare(launcher, arguments):
    pattern, env = r"^loss (\d+) (\S+)", {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / f"{arguments.program}.py")]
    if arguments.program == "megatron_deepspeed":
        source = megatron_deepspeed.find_source()
        if not source:
            return harness.skip("no Megatron-DeepSpeed source: name its folder or archive in MDS_MEGATRON_SOURCE")
        pattern = megatron_deepspeed.LOSS_LINE
        command = megatron_deepspeed.prepare(source, launcher.work)
        env |= megatron_deepspeed.ENVIRONMENT
    found = {}
    for name, output in (("torchrun", under_torchrun(launcher, command, env)),
                         ("mdslaunch", under_mdslaunch(launcher, arguments.program, command, env))):
        found[name] = re.findall(pattern, output, re.MULTILINE)
        harness.check(len(found[name]) >= 6, f"{len(found[name])} losses under {name}:\n{output[-6000:]}")
    for theirs, ours in zip(found["torchrun"], found["mdslaunch"]):
        print("step {} torchrun {} mdslaunch {}".format(theirs[0], theirs[1], ours[1]))
    harness.check(found["torchrun"] == found["mdslaunch"], "the losses differ")
    return 0


if __name__ == "__main__":
    harness.main(test, __doc__, lambda parser: parser.add_argument(
        "program", choices=["ddp", "hf_trainer", "megatron_deepspeed"]))
