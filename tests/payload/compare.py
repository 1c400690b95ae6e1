"""Runs a real program under torchrun and under mdslaunch and compares its losses, which must be equal to the last bit.

    compare.py ddp | hf_trainer | megatron_deepspeed [--build FOLDER]
"""
import json
import pathlib
import re
import subprocess
import sys

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


def under_torchrun(launcher, command, env):
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS),
                          "--no-python", *command], cwd=launcher.work, env=launcher.environment(env), text=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400)
    harness.check(run.returncode == 0, f"torchrun itself failed:\n{run.stdout[-6000:]}")
    return run.stdout


def under_mdslaunch(launcher, name, command, env):
    text = JOB.format(name=name.replace("_", "-"), ranks=RANKS, command=json.dumps(command),
                      env=", ".join(f"{key} = {json.dumps(value)}" for key, value in env.items()))
    run = launcher.run(launcher.job(text), timeout=400).expect(0)
    return "".join(run.log(rank) for rank in range(RANKS))


def test(launcher, arguments):
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


if __name__ == "__main__":
    harness.main(test, __doc__, lambda parser: parser.add_argument(
        "program", choices=["ddp", "hf_trainer", "megatron_deepspeed"]))
