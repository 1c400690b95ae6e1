"""The environment that a rank sees under mdslaunch holds all of torchrun's variables, with torchrun's values."""
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

NODES, RANKS = 2, 2
# What each launcher chooses for itself; it must be there all the same.
OWN_CHOICE = {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "GROUP_RANK"}
# Of torchrun's elastic store and its error files, which torchrun alone serves.
TORCHRUN_ONLY = {"TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_SIGNALS_TO_HANDLE",
                 "TORCH_NCCL_ASYNC_ERROR_HANDLING", "ROLE_NAME", "PYTHONUNBUFFERED", "LAUNCH_TEST_MARK"}
# Each rank writes a file of its own: lines of several processes in one pipe may run into each other.
WRITE = "import json,os,sys; json.dump(dict(os.environ), open(sys.argv[1] + '/' + os.environ['RANK'], 'w'))"
JOB = """
[job]
name = "environment"
devices = "cpu"
nodes = {nodes}
ranks_per_node = {ranks}
[payload]
command = {command}
"""


def command(folder):
    folder.mkdir()
    return [sys.executable, "-c", WRITE, str(folder)]


def environments(folder):
    """By global rank."""
    return {int(path.name): json.loads(path.read_text()) for path in folder.iterdir()}


def under_torchrun(launcher):
    """Two torchrun agents, as a user starts them on two nodes."""
    port, folder = free_port(), launcher.work / "torchrun"
    words = command(folder)
    plain = {key: value for key, value in launcher.environment().items() if key != "OMP_NUM_THREADS"}
    agents = [subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--nnodes", str(NODES), "--node-rank",
                                str(node), "--nproc-per-node", str(RANKS), "--master-addr", "127.0.0.1",
                                "--master-port", str(port), "--max-restarts", "3", "--no-python", *words], env=plain)
              for node in range(NODES)]
    for agent in agents:
        agent.wait(timeout=100)
    return environments(folder)


def free_port():
    import socket
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test(launcher, arguments):
    theirs = under_torchrun(launcher)
    folder = launcher.work / "mdslaunch"
    launcher.run(launcher.job(JOB.format(nodes=NODES, ranks=RANKS, command=json.dumps(command(folder))))).expect(0)
    ours = environments(folder)
    every_rank = list(range(NODES * RANKS))
    harness.check(sorted(theirs) == sorted(ours) == every_rank, f"ranks {sorted(theirs)} and {sorted(ours)}")
    for rank, environment in theirs.items():
        added = {key for key in environment if key not in os.environ} - TORCHRUN_ONLY
        for key in sorted(added):
            value = ours[rank].get(key)
            harness.check(value is not None, f"rank {rank}: torchrun sets {key}={environment[key]}, we do not")
            harness.check(key in OWN_CHOICE or key.startswith("OMP") or value == environment[key],
                          f"rank {rank}: {key}={value}, under torchrun {environment[key]}")
    secrets = [key for environment in ours.values() for key in environment if "KEY" in key and key not in os.environ]
    harness.check(not secrets, f"a key in a rank's environment: {secrets}")
    print("torchrun's variables, all there:", " ".join(sorted(added)))


if __name__ == "__main__":
    harness.main(test, __doc__)
