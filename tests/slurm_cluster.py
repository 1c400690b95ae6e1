"""A real Slurm on this machine, for tests: munged, slurmctld and some slurmd, all in one temporary folder, as root and
without systemd. Standard library only.

    with slurm_cluster.Cluster(nodes=8) as cluster:
        cluster.run("srun", "-N", "8", "hostname")

It is up in about a second and leaves nothing behind. The nodes n1, n2, ... are this machine: each has CPUS processors
that need not exist, tasks are not bound, and their addresses are 127.0.0.1.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import harness

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol", "squeue", "sinfo")

CONFIG = """
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
MailProg=/bin/true
KillWait={kill_wait}
MinJobAge=300
SlurmdTimeout=10
Waittime=0
"""


def missing_programs():
    """Those of Slurm and munge that this machine has not got."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if not shutil.which(name, path=path)]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    def __init__(self, nodes=8, cpus=4, kill_wait=10, name="test", within=()):
        """`within`: words before each slurmd's own."""
        self.nodes, self.cpus, self.kill_wait, self.name, self.within = nodes, cpus, kill_wait, name, within
        self.daemons = {}

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mds-slurm-"))
        self.folder.chmod(0o755)  # munge wants its socket where everybody may go; its key is 0400
        self.environment = {**{k: v for k, v in os.environ.items() if not k.startswith("SLURM_")},
                            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
                            "SLURM_CONF": str(self.folder / "slurm.conf")}
        self.daemon_environment = dict(self.environment)  # jobs get what a test adds to the other
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Exception):
            self.run("scancel", "--user=root", check=False, timeout=10)
            harness.wait_for(lambda: not self.run("squeue", "-h", check=False).stdout.strip(), 15, "end of all jobs")
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for daemon in reversed(list(self.daemons.values())):
                if daemon.poll() is None:
                    daemon.send_signal(sign)
            deadline = time.monotonic() + 5
            for daemon in self.daemons.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(max(0.01, deadline - time.monotonic()))
        self._kill_steps()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self):
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = [f"n{i + 1}" for i in range(self.nodes)]
        ports = free_ports(self.nodes + 1)
        host = socket.gethostname()
        text = CONFIG.format(name=self.name, host=host, folder=self.folder, controller_port=ports[-1],
                             kill_wait=self.kill_wait)
        for name, port in zip(names, ports):
            text += (f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} "
                     f"RealMemory=1000 State=UNKNOWN\n")
        text += f"PartitionName=main Nodes=n[1-{self.nodes}] Default=YES MaxTime=INFINITE State=UP\n"
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "state").mkdir()

        self._daemon("munged", "munged", "--foreground", "--force", f"--key-file={key}",
                     f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munge.pid",
                     f"--seed-file={self.folder}/munge.seed", "--num-threads=2")
        harness.wait_for((self.folder / "munge.socket").exists, 10, "munge's socket")
        self._daemon("slurmctld", "slurmctld", "-D")
        for name in names:
            (self.folder / "spool" / name).mkdir(parents=True)
            self._daemon(name, *self.within, "slurmd", "-D", "-N", name)
        harness.wait_for(self._all_idle, 180, f"{self.nodes} idle nodes (see {self.folder}/*.log)")

    def _daemon(self, key, *command):
        with open(self.folder / f"{key}.out", "w") as output:
            self.daemons[key] = subprocess.Popen(command, env=self.daemon_environment, stdin=subprocess.DEVNULL,
                                                 stdout=output, stderr=output, start_new_session=True)

    def _all_idle(self):
        states = self.run("sinfo", "-h", "-N", "-o", "%T", check=False).stdout.split()
        return len(states) == self.nodes and set(states) == {"idle"}

    def _kill_steps(self):
        """What outlived its daemon: processes with this cluster's SLURM_CONF."""
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"SLURM_CONF={self.folder}".encode() in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)

    def run(self, *command, check=True, timeout=60, **options):
        """One of Slurm's commands, to its end."""
        done = subprocess.run(list(map(str, command)), env=self.environment, text=True, capture_output=True,
                              timeout=timeout, stdin=subprocess.DEVNULL, **options)
        harness.check(not check or done.returncode == 0, f"{command} failed: {done.stderr}")
        return done

    def submit(self, script, *options, cwd=None):
        """The id of the new job."""
        return int(self.run("sbatch", "--parsable", *options, script, cwd=cwd).stdout.split(";")[0])

    def state(self, job):
        return self.run("scontrol", "--oneliner", "show", "job", job).stdout.split(" JobState=")[1].split()[0]

    def exit_code(self, job):
        text = self.run("scontrol", "--oneliner", "show", "job", job).stdout
        return int(text.split(" ExitCode=")[1].split(":")[0])

    def wait(self, job, *states, seconds=60):
        """Until the job is in one of these states; COMPLETED, FAILED, ... if none is given."""
        wanted = states or ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        return harness.wait_for(lambda: (s := self.state(job)) in wanted and s, seconds, f"job {job} {wanted}")

    def start_again(self, job, seconds=240):
        """Slurm holds a requeued job back for two minutes; an administrator's release starts it sooner, but not in the
        second in which it was revoked, else slurmd takes it for the old one. Returns when its second time has begun, or
        is over already."""
        self._await(job, seconds, lambda: self.restarts(job) and self.state(job) == "PENDING")
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now+2")
        self._await(job, seconds, lambda: self.state(job) not in ("PENDING", "REQUEUED", "CONFIGURING"))

    def _await(self, job, seconds, condition):
        begin = time.monotonic()
        while not condition():
            harness.check(time.monotonic() - begin < seconds, f"job {job} did not start again in {seconds} s: "
                          + self.run("scontrol", "--oneliner", "show", "job", job).stdout)
            time.sleep(0.1)

    def restarts(self, job):
        text = self.run("scontrol", "--oneliner", "show", "job", job).stdout
        return int(text.split(" Restarts=")[1].split()[0])

    def start_node(self, name):
        """After kill_node()."""
        self._daemon(name, *self.within, "slurmd", "-D", "-N", name)
        self.wait_usable(name)

    def wait_usable(self, name):
        harness.wait_for(lambda: self.run("sinfo", "-h", "-n", name, "-o", "%T").stdout.strip()
                         in ("idle", "mixed", "allocated"), 60, f"node {name}")

    def kill_node(self, name):
        """Its slurmd and everything that runs there go, as when a machine loses its power."""
        self.daemons[name].kill()
        self.daemons[name].wait()
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"SLURMD_NODENAME={name}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
