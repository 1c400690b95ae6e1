"""The commands on a run whose head is on another node: in namespaces with another host name, where the head's socket
answers nobody, they find the head through the run folder, and ranks through a real sshd. The run is its owner's alone.
"""
import os
import pathlib
import shutil
import subprocess
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent), str(pathlib.Path(__file__).resolve().parent)]
import harness  # noqa: E402
import slurm  # noqa: E402
import slurm_cluster  # noqa: E402
import ssh  # noqa: E402
import tmux  # noqa: E402


def own_address():
    """One that is not loopback."""
    text = subprocess.run(["hostname", "-I"], text=True, capture_output=True).stdout
    return next((word for word in text.split() if "." in word), None)


class Elsewhere:
    """Another node of a shared file system, as far as a command can tell."""

    def __init__(self, launcher, folder):
        self.launcher, self.folder = launcher, folder

    def words(self, *words):
        script = 'hostname elsewhere && mount --bind /dev/null "$1" && shift && exec "$@"'
        return list(map(str, ["unshare", "--uts", "--mount", "sh", "-c", script, "sh", self.folder / "control.sock",
                              self.launcher.program, *words]))

    def __call__(self, *words):
        return subprocess.run(self.words(*words), text=True, capture_output=True, timeout=60,
                              env=self.launcher.environment())


def expect(done, exit_code, *texts):
    for text in texts:
        harness.check(text in done.stdout + done.stderr, f"no {text!r}: {done}")
    harness.check(done.returncode == exit_code, str(done))
    return done


def started(launcher, server, address):
    job = launcher.job('[job]\nname = "far"\ndevices = "cpu"\nnodes = 2\nranks_per_node = 2\n[payload]\n'
                       'command = ["sh", "-c", "touch up-$RANK; exec sleep 1000"]\n')
    process = launcher.start(job, *ssh.ssh_words(server, "node[1-2]"), "--set", f'job.interface="{address}"')
    harness.wait_for(lambda: len(list(launcher.work.glob("up-*"))) == 4, 60, "all ranks")
    return process


def from_another_node(launcher, server, address):
    process = started(launcher, server, address)
    folder = (process.output_dir / "latest").resolve()
    harness.check((folder / "control.json").stat().st_mode & 0o777 == 0o600, "control.json is not its owner's alone")
    there = Elsewhere(launcher, folder)
    expect(there("status", folder), 0, "ranks 0-3: running", "nodes 0,1: joined")
    expect(there("stacks", folder), 0, "ranks 0-3: sleep", "nanosleep")
    printed = expect(there("attach", "--rank", "3", "--print", folder), 0, f"ssh -t -F {server.config} node2 gdb -q -p")
    if shutil.which("gdb"):
        attached = expect(there("attach", "--rank", "3", folder, "--gdb=-batch", "--gdb=-ex=bt 3"), 0, "nanosleep")
        harness.check("node2" in attached.stderr and printed.stdout.strip() in attached.stderr, str(attached))
    here = launcher.finish(launcher.start("attach", "--rank", "3", "--print", "--output-dir", process.output_dir), 30)
    harness.check(here.output.startswith("gdb -q -p"), here.everything())
    expect(there("stop", "--now", folder), 0, "stopped")
    launcher.finish(process, 60).expect(143)
    harness.check(not (folder / "control.json").exists(), "control.json is left")


def another_user(launcher, server, address):
    """Not even with all files open to everybody: the head asks the kernel who it is that asks."""
    process = started(launcher, server, address)
    folder = (process.output_dir / "latest").resolve()
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def ask(*words):
        return subprocess.run([*nobody, str(launcher.program), *words], text=True, capture_output=True, timeout=60,
                              cwd="/", env={**launcher.environment(), "HOME": "/"})
    harness.check(ask("version").returncode == 0, "another user may not even start the program; where is the build?")
    for words in (["stop"], ["stacks"], ["attach", "--rank", "0"]):
        harness.check(ask(*words, str(folder)).returncode != 0, words)
    for path in (launcher.work, process.output_dir, folder, *folder.iterdir()):
        path.chmod(0o777 if path.is_dir() else 0o666)
    for words in (["stop"], ["stacks"], ["attach", "--rank", "0"]):
        done = ask(*words, str(folder))
        harness.check(done.returncode != 0 and "another user" in done.stderr, str(done))
    raw = ('import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); '
           's.sendall(b\'{"command": "stop"}\\n\'); print(s.recv(100))')
    socket = os.path.relpath(folder / "control.sock", "/")
    if len(socket) < 100:
        done = subprocess.run([*nobody, "/usr/bin/python3", "-c", raw, socket], text=True, capture_output=True, cwd="/")
        harness.check("ok" not in done.stdout, str(done))
    status = launcher.finish(launcher.start("status", "--output-dir", process.output_dir), 30).expect(0)
    harness.check("ranks 0-3: running" in status.output, status.everything())
    launcher.finish(launcher.start("stop", "--now", "--output-dir", process.output_dir), 30).expect(0)
    launcher.finish(process, 60).expect(143)


def attach_through_slurm(launcher, address):
    """From a login node to a rank's node: srun gives gdb a terminal there."""
    with slurm_cluster.Cluster(nodes=2) as cluster:
        jobs = slurm.Jobs(launcher, cluster)
        file = launcher.job('[job]\nname = "far"\ndevices = "cpu"\nranks_per_node = 2\n[payload]\n'
                            f'command = ["sh", "-c", "touch {launcher.work}/up-$RANK; exec sleep 1000"]\n')
        job, folder = jobs.submit(file, "--set", f"job.interface={address}")
        harness.wait_for(lambda: len(list(launcher.work.glob("up-*"))) == 4, 60, "all ranks")
        run = slurm.folder_of(folder)
        words = Elsewhere(launcher, run).words("attach", "--rank", "3", run)
        with tmux.Terminal(words, 120, 50, {**launcher.environment(), **cluster.environment}) as terminal:
            terminal.wait_for("(gdb)")
            terminal.type("bt")
            terminal.wait_for("nanosleep")
            harness.check(f"srun --jobid={job} --overlap" in terminal.text(), terminal.text())
            terminal.type("detach")
            terminal.wait_for("detached")
            terminal.type("quit")
            terminal.wait_for("exit code 0")
        cluster.run("scancel", job)
        jobs.finished(job, folder, "CANCELLED", "FAILED")


def test(launcher, arguments):
    missing = [p for p in ("sshd", "unshare", "setpriv") if not shutil.which(p, path="/usr/sbin:" + os.environ["PATH"])]
    address = own_address()
    if missing or not address or os.geteuid() != 0:
        harness.check(os.environ.get("CI") != "true", f"missing: {missing}, address {address}, or not root")
        return harness.skip(f"needs root, an address besides loopback, and {missing}")
    with ssh.SshServer(launcher.work / "ssh", launcher.mark) as server:
        for case in (from_another_node, another_user):
            print(case.__name__, flush=True)
            for mark in launcher.work.glob("up-*"):
                mark.unlink()
            case(launcher, server, address)
    for mark in launcher.work.glob("up-*"):
        mark.unlink()
    if not shutil.which("gdb") or not shutil.which("tmux") or slurm_cluster.missing_programs():
        harness.check(os.environ.get("CI") != "true", "gdb, tmux or Slurm is missing (.ci/setup test)")
        print("attach_through_slurm is left out: gdb, tmux or Slurm is missing")
        return 0
    print("attach_through_slurm", flush=True)
    attach_through_slurm(launcher, address)
    return 0


if __name__ == "__main__":
    harness.main(test, __doc__)
