"""A real sshd on a loopback port, with host keys and a user's key of its own: the quickstart job, shortened, runs on
two hosts through ssh and has the losses of the local back end, bit for bit. A killed agent starts again, an ssh that is
cut takes its agent with it, and a host whose key is not known is refused.
"""
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import mpi_program  # noqa: E402

STEPS = 24
SETS = [word for value in (f"training.steps={STEPS}", "checkpoint.interval=5", "training.eval_interval=0")
        for word in ("--set", value)]


class SshServer:
    """sshd in the foreground; `config` is a file for ssh -F that knows it as node1, node2, ..., and as stranger, whose
    key is not known. What it starts carries `mark` in its environment. `within` are words before sshd's, and `address`
    is where it is reached then; `names` is the pattern of the hosts that it is."""

    def __init__(self, folder, mark, address="127.0.0.1", within=(), names="node*"):
        self.folder, self.mark, self.address, self.within, self.names = folder, mark, address, within, names

    def __enter__(self):
        self.folder.mkdir(mode=0o700)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        host_key = (self.folder / "host_key.pub").read_text().split()
        (self.folder / "known_hosts").write_text(f"known {host_key[0]} {host_key[1]}\n")
        (self.folder / "sshd_config").write_text(
            f"Port {port}\nListenAddress {'0.0.0.0' if self.within else self.address}\n"
            f"HostKey {self.folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
            f"PermitRootLogin prohibit-password\nMaxStartups 100\nSubsystem sftp internal-sftp\nSetEnv {self.mark}\n")
        common = (f"HostName {self.address}\n  Port {port}\n  User {getpass.getuser()}\n"
                  f"  IdentityFile {self.folder}/user_key\n  IdentitiesOnly yes\n"
                  f"  UserKnownHostsFile {self.folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n")
        self.config = self.folder / "ssh_config"
        self.config.write_text(f"Host {self.names}\n  HostKeyAlias known\n  {common}Host stranger\n  {common}")
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own folder for its unprivileged part
        sshd = shutil.which("sshd", path="/usr/sbin:/sbin:" + os.environ["PATH"])
        self.sshd = subprocess.Popen([*self.within, sshd, "-D", "-e", "-f", self.folder / "sshd_config"],
                                     stdin=subprocess.DEVNULL,
                                     stdout=open(self.folder / "log", "w"), stderr=subprocess.STDOUT)
        harness.wait_for(lambda: "listening" in (self.folder / "log").read_text(), 10, "sshd")
        return self

    def __exit__(self, *_):
        self.sshd.terminate()
        self.sshd.wait()


def ssh_words(server, hosts):
    return ["--hosts", hosts, "--set", f'job.ssh_config="{server.config}"', "--set", 'job.backend="ssh"']


def wait_for_step(process, step):
    def reached():
        path = process.output_dir / "latest/metrics.jsonl"
        return path.exists() and f'"step":{step},' in path.read_text()
    harness.wait_for(reached, 60, f"step {step}")


def same_bits_as_local(launcher, server):
    local = launcher.run(harness.QUICKSTART, *SETS).expect(0)
    remote = launcher.run(harness.QUICKSTART, *SETS, *ssh_words(server, "node[1-2]")).expect(0)
    harness.check(len(remote.losses()) == STEPS, f"{len(remote.losses())} losses: {remote.everything()}")
    harness.check(remote.losses() == local.losses(), "the losses differ from those of the local back end")
    print(f"ssh: {STEPS} losses equal to those of the local back end")


def killed(launcher, server, victim):
    """An agent, or the ssh that started it: the node comes back, and the run goes on."""
    process = launcher.start(harness.QUICKSTART, *SETS, "--set", "training.steps=60", *ssh_words(server, "node[1-2]"))
    wait_for_step(process, 7)
    ours = [pid for pid, words in launcher.survivors() if pathlib.Path(words.split(" ")[0]).name == victim]
    harness.check(ours, f"no {victim} is found")
    os.kill(max(ours), signal.SIGKILL)
    run = launcher.finish(process).expect(0)
    harness.check(run.report()["restarts"] == 1, f"restarts {run.report()['restarts']}: {run.everything()}")
    harness.check(len(run.losses()) == 60, f"{len(run.losses())} losses")
    launcher.wait_until_gone(10)  # agents on the far side are no children of the launcher
    print(f"a killed {victim}: started again, 60 losses")


def launcher_killed(launcher, server):
    process = launcher.start(harness.QUICKSTART, "--set", "training.steps=100000", *ssh_words(server, "node[1-2]"))
    wait_for_step(process, 2)
    process.kill()
    launcher.finish(process)
    launcher.wait_until_gone(10)
    print("a killed launcher: nothing left on the far side")


def unknown_host_key(launcher, server):
    run = launcher.run(harness.QUICKSTART, *SETS, "--set", "job.nodes=1", "--set", "parallel.data=1",
                       *ssh_words(server, "stranger")).expect(4)
    harness.check("Host key verification failed" in run.errors, f"no reason: {run.everything()}")


def hostfile(launcher, server):
    path = launcher.work / "hostfile"
    path.write_text("node1 slots=2\nnode2 slots=2\nstranger slots=2\n")
    words = ssh_words(server, "unused")[2:]
    run = launcher.run(harness.QUICKSTART, *SETS, "--hostfile", path, "--exclude", "stranger", *words).expect(0)
    harness.check(len(run.losses()) == STEPS, f"{len(run.losses())} losses: {run.everything()}")


def mpi_payloads(launcher, server):
    for kind in mpi_program.COMPILERS:
        if file := mpi_program.job(launcher, kind):
            mpi_program.check(launcher.run(file, *ssh_words(server, "node[1-2]")))


def test(launcher, arguments):
    missing = [name for name in ("ssh", "ssh-keygen", "sshd")
               if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if missing:
        harness.check(os.environ.get("CI") != "true", f"not installed: {missing} (.ci/setup test)")
        return harness.skip(f"not installed: {', '.join(missing)} (.ci/setup test)")
    with SshServer(launcher.work / "sshd", launcher.mark) as server:
        same_bits_as_local(launcher, server)
        killed(launcher, server, "mdsagent")
        killed(launcher, server, "ssh")
        launcher_killed(launcher, server)
        unknown_host_key(launcher, server)
        hostfile(launcher, server)
        mpi_payloads(launcher, server)


if __name__ == "__main__":
    harness.main(test, __doc__)
