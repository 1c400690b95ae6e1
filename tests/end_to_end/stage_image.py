"""Container images for nodes that share no file system with the launcher: real sshd's and slurmd's that see nothing of
ours (stage.py) get the image over the agents' connections, once; the next job finds it there. Ranks inside see what was
staged, and an image that was changed on its way, does not fit on the disk, or lies nowhere ends with one sentence.
"""
import functools
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent), str(pathlib.Path(__file__).resolve().parent),
                str(pathlib.Path(__file__).resolve().parent.parent / "container")]
import container_runs  # noqa: E402
import harness  # noqa: E402
import slurm_cluster  # noqa: E402
import ssh  # noqa: E402
import stage  # noqa: E402

STORE = f"/var/tmp/mds-stage-{os.geteuid()}"
# What a rank sees: relative and absolute paths, a bind of what was staged, and its image's files, not the node's.
LOOK = """
read -r word < lib/word.txt
read -r data < "${1#--data=}"
read -r bound < /mnt/word.txt
read -r image < /etc/image-mark
[ "$PWD" = "$MDS_STAGED/$HERE" ] || echo "starts in $PWD"
[ -e /usr/bin/env ] && echo "is not in the image"
: > "$MDS_RUN_FOLDER/of-rank-$RANK" || echo "cannot write to the run folder"
[ "$FILE" = "$MDS_STAGED/$HERE/data.txt" ] && [ "$FILE" = "$INSIDE" ] || echo "is given $FILE and $INSIDE"
echo "rank $RANK $word $data $bound $image"
[ -n "$2" ] && [ "$TORCHELASTIC_RESTART_COUNT" = 0 ] || exit 0
echo waits
exec sleep 1000
"""


class Image:
    """A tar archive, or a squashfs file by its name, of a shell, cat and sleep, with a mark that no other has, and
    `megabytes` of chance."""

    def __init__(self, launcher, megabytes=8, trainer=None, name="image.tar"):
        root = container_runs.Root(pathlib.Path(tempfile.mkdtemp(dir=launcher.work, prefix="root-")), trainer)
        root.add("/bin/sleep", "/bin/sleep")
        self.mark = os.urandom(8).hex()
        (root.folder / "etc/image-mark").write_text(self.mark + "\n")
        (root.folder / "blob").write_bytes(os.urandom(megabytes << 20))
        self.path = launcher.work / name
        squashfs = ["mksquashfs", root.folder, self.path, "-quiet", "-no-progress", "-noD"]
        archive = ["tar", "-C", root.folder, "-cf", self.path, "."]
        subprocess.run(archive if self.path.suffix == ".tar" else squashfs, check=True)
        shutil.rmtree(root.folder)
        self.bytes = self.path.stat().st_size

    @functools.cached_property
    def sha256(self):
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def look(launcher, image, runtime, waits=False, more=""):
    """A job whose ranks look around inside, and what each of them says then."""
    home = launcher.work
    (home / "lib").mkdir(exist_ok=True)
    (home / "lib/word.txt").write_text("staged\n")
    data = os.urandom(8).hex()
    (home / "data.txt").write_text(data + "\n")
    (home / "look.sh").write_text(LOOK)
    here = str(home)[1:]
    words = ', "waits"' if waits else ""
    job = launcher.job(f"""
[job]
name = "inside"
devices = "cpu"
nodes = 2
ranks_per_node = 2
env = {{ HERE = "{here}", FILE = "{home}/data.txt" }}
[payload]
command = ["/bin/sh", "look.sh", "--data={home}/data.txt"{words}]
[container]
runtime = "{runtime}"
image = "{image.path}"
binds = ["lib:/mnt:ro"]
inherit = ["LAUNCH_TEST_MARK"]
env = {{ INSIDE = "{home}/data.txt" }}
{more}
[stage]
enabled = true
files = ["lib"]
[restart]
max_restarts = 0
""", name=f"{runtime}.toml")
    return job, f"staged {data} staged {image.mark}"


def check_looks(run, said, ranks=4):
    for rank in range(ranks):
        harness.check(run.log(rank).splitlines()[-1:] == [f"rank {rank} {said}"], f"rank {rank}: {run.log(rank)!r}")
        harness.check("is " not in run.log(rank) and "cannot" not in run.log(rank) and "starts" not in run.log(rank),
                      f"rank {rank}: {run.log(rank)!r}")


def received(run):
    """Bytes that each node was sent, by what its agent says."""
    logs = "".join(path.read_text(errors="replace") for path in (run.folder / "logs").glob("*.log"))
    return [int(number) for number in re.findall(r"staged in \S+ s, (\d+) bytes received", logs)]


def images_left(pid):
    """What the store of node `pid` has kept, below its folder; and nothing but images."""
    prefix = STORE + "/"
    left = [path.removeprefix(prefix) for path in stage.left_on(pid) if path.startswith(prefix)]
    return sorted(path for path in left if not re.fullmatch(r"images/[0-9a-f]{64}\.root/.*", path))


def check_kept(hosts, *images):
    """Of finished runs nothing is left but these images and what was unpacked of them."""
    wanted = {"lock", "objects", "images", "runs"}
    for image in images:
        wanted |= {f"objects/{image.sha256}"} | {f"images/{image.sha256}{end}" for end in ("", ".lock", ".root")}
    for pid in hosts.pids():
        try:
            harness.wait_for(lambda: not set(images_left(pid)) - wanted, 10, "the end of all but images")
        except harness.Failure as failure:
            raise harness.Failure(f"{failure}: {set(images_left(pid)) - wanted}") from failure
        for image in images:
            harness.check(f"images/{image.sha256}" in images_left(pid), f"image not kept: {images_left(pid)}")


def sent_once(launcher, hosts, runtimes):
    """Under each runtime; the first job brings the image, with no digest in the job file, and none after it does."""
    image = Image(launcher)
    first = next(iter(runtimes))
    for runtime, again in [(first, False), *((runtime, True) for runtime in runtimes)]:
        job, said = look(launcher, image, runtime)
        digest = ["--set", f'container.sha256="{image.sha256}"'] if again else []
        run = launcher.run(job, *hosts.words(), *digest, extra=runtimes[runtime]).expect(0)
        check_looks(run, said)
        harness.check(len(received(run)) == 2, f"{received(run)} bytes on two nodes: {run.everything()}")
        for count in received(run):
            harness.check((count < image.bytes) == again, f"{runtime}: {count} of {image.bytes} bytes, {again=}")
        check_kept(hosts, image)
        print(f"    {runtime}: {max(received(run))} bytes, {run.seconds:.1f} s", flush=True)


def mounted_as_it_is(launcher, hosts, runtimes):
    """Charliecloud takes a squashfs file from the store as it lies there."""
    if "charliecloud" not in runtimes or not shutil.which("mksquashfs"):
        harness.check(os.environ.get("CI") != "true", "no charliecloud or mksquashfs (.ci/setup test)")
        return print("SQUASHFS IS NOT TESTED: no charliecloud or mksquashfs")
    image = Image(launcher, megabytes=2, name="image.sqfs")
    job, said = look(launcher, image, "charliecloud")
    run = launcher.run(job, *hosts.words()).expect(0)
    check_looks(run, said)
    for pid in hosts.pids():
        harness.check(f"images/{image.sha256}.root" not in images_left(pid), f"unpacked: {images_left(pid)}")


def damaged_in_the_store(launcher, hosts, runtime):
    """A byte of the kept image is flipped: the node says so, and fetches it anew."""
    image = Image(launcher, name="kept.tar")
    job, said = look(launcher, image, runtime)
    launcher.run(job, *hosts.words()).expect(0)
    first = hosts.pids()[0]
    flip = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(99); b = f.read(1)[0]; f.seek(99); f.write(bytes([b ^ 1]))"
    subprocess.run(["nsenter", "--mount", "--target", str(first), "/usr/bin/python3", "-c", flip,
                    f"{STORE}/images/{image.sha256}"], check=True)
    run = launcher.run(job, *hosts.words()).expect(0)
    check_looks(run, said)
    anew = [count >= image.bytes for count in received(run)]
    harness.check(sorted(anew) == [False, True], f"one node was to fetch it anew: {received(run)}")
    notes = "".join(path.read_text(errors="replace") for path in (run.folder / "logs").glob("*.log"))
    harness.check(f"the stored copy of {image.path} is damaged" in notes, f"nothing is said of it: {notes}")


def changed_on_the_way(launcher, hosts, runtime):
    """A byte is flipped after the launcher has read the image for its digest: both nodes refuse it."""
    image = Image(launcher, name="changed.tar")
    meant = image.sha256
    content = image.path.read_bytes()
    place = next(at for at in range(image.bytes // 2, image.bytes) if content[at] != ord("x"))
    folder = launcher.work / "changing"
    folder.mkdir()
    (folder / "scp").write_text(f"""#!/bin/sh
printf 'x' | dd of='{image.path}' bs=1 seek={place} conv=notrunc status=none
exec {shutil.which("scp")} "$@"
""")
    (folder / "scp").chmod(0o755)
    job, _ = look(launcher, image, runtime)
    run = launcher.run(job, *hosts.words(), extra={"PATH": f"{folder}:{os.environ['PATH']}"}).expect(1)
    found = hashlib.sha256(image.path.read_bytes()).hexdigest()
    cause = first_cause(run)
    harness.check(all(text in cause for text in (str(image.path), meant, found, "on node")), cause)
    no_rank_ran(run)
    for pid in hosts.pids():
        harness.wait_for(lambda: not [path for path in images_left(pid) if meant in path or found in path], 10,
                         f"no trace of it: {images_left(pid)}")
    run = launcher.run(job, *hosts.words(), "--set", f'container.sha256="{meant}"').expect(2)
    harness.check(meant in run.errors and found in run.errors, run.everything())


def first_cause(run):
    return next(iter(re.findall("^first cause: (.*)", run.errors, re.MULTILINE)), run.everything())


def no_rank_ran(run):
    ran = [path for path in run.folder.glob("logs/rank-*.log") if path.stat().st_size]
    harness.check(not ran, f"ranks have run: {run.everything()}")


def killed_and_two_at_once(launcher, hosts, runtime):
    """Guard and agent are killed while ranks wait inside: the node starts again with the image that it has, and no
    container stays. Then two jobs stage one image at once."""
    image = Image(launcher, name="waits.tar")
    job, said = look(launcher, image, runtime, waits=True)
    process = launcher.start(job, *hosts.words(), "--set", "restart.max_restarts=2")
    stage.kill_agents(launcher, process)
    run = launcher.finish(process, 60).expect(0)
    check_looks(run, said)
    launcher.wait_until_gone(15)
    image = Image(launcher, megabytes=30, name="two.tar")
    job, said = look(launcher, image, runtime)
    for process in [launcher.start(job, *hosts.words()) for _ in range(2)]:
        check_looks(launcher.finish(process, 60).expect(0), said)
    launcher.wait_until_gone(10)


def trainer_in_the_image(launcher, hosts, runtime):
    """container.trainer, with the data staged: the losses of a run without container or staging."""
    small = [*stage.NO_CHECKPOINTS, "--set", "job.nodes=1", "--set", "parallel.data=1", "--set", "training.steps=6",
             "--set", "lr_schedule.warmup_steps=2"]
    local = launcher.run(harness.QUICKSTART, *small).expect(0)
    image = Image(launcher, trainer=launcher.program.parent / "mdstrain", name="trainer.tar")
    run = launcher.run(harness.QUICKSTART, *small, *ssh.ssh_words(hosts, "node1"), "--set", "stage.enabled=true",
                       *container_runs.words(runtime, image.path, trainer="/usr/bin/mdstrain")).expect(0)
    harness.check(run.losses() == local.losses() and run.losses(), f"other losses: {run.everything()}")
    harness.check(all(image.bytes <= count < image.bytes + (64 << 20) for count in received(run)),
                  f"{received(run)} bytes were sent, of an image of {image.bytes}: mdstrain of the host's, too?")
    print(f"    {runtime}: the losses of the local back end, {image.bytes >> 20} MiB sent, {run.seconds:.1f} s")


def full_disk(launcher, runtime):
    """The image itself, or what is unpacked of it: path and size, and nothing that a later job would trust."""
    # mdsagent's own copy takes 10 to 25 MB there, with debug information, while it runs: the smaller image fits beside
    # it, but not twice.
    for megabytes, told in ((120, r"\S+\.tar: no room for \d+ bytes as /var/tmp/mds-stage-\S+: No space left"),
                            (60, r"unpacking /var/tmp/mds-stage-\S+ of \d+ bytes into \S+ failed")):
        with stage.Hosts(launcher, size="104m") as hosts:
            image = Image(launcher, megabytes=megabytes, name=f"large-{megabytes}.tar")
            job, _ = look(launcher, image, runtime)
            run = launcher.run(job, *hosts.words()).expect(1)
            cause = first_cause(run)
            harness.check(re.search(told, cause) and "on node" in cause, f"no size and place: {cause}")
            no_rank_ran(run)
            for pid in hosts.pids():  # a half by its own name may be left: the next job removes it
                trusted = {f"objects/{image.sha256}"} if megabytes == 120 else {f"images/{image.sha256}.root"}
                harness.check(not trusted & set(images_left(pid)), f"half an image: {images_left(pid)}")


def refused(launcher, runtime):
    """What is not on a node, or cannot be sent, is said with the remedy; without [stage] too."""
    image = Image(launcher, megabytes=0, name="here.tar")
    job, _ = look(launcher, image, runtime)
    off = ["--set", "stage.enabled=false", "--set", "stage.files=[]"]
    for words, code, texts in (
            ([*off, "--set", 'container.image="/nowhere/i.tar"'], 1, ["/nowhere/i.tar", "stage.enabled = true"]),
            ([*off, "--set", 'container.binds=["/nowhere/data:/mnt"]'], 1, ["/nowhere/data", "stage.files"]),
            (["--set", 'container.binds=["/nowhere/data:/mnt"]'], 1, ["/nowhere/data", "stage.files", "on node"]),
            (["--set", 'container.binds=["/usr/share:/tmp"]'], 2, ["would hide /tmp/mds-staged"]),
            (["--set", 'container.image="/usr"'], 2, ["/usr is a folder", "tar -C"]),
            (["--set", f'container.image="{job}"'], 2, [f"{job} is no image"])):
        run = launcher.run(job, *words, "--set", "restart.max_restarts=0",
                           "--set", f'stage.folder="{launcher.work}/store"').expect(code)
        for text in texts:
            harness.check(text in run.errors, f"'{text}' is not said: {run.everything()}")
    shown = launcher.command("run", "--dry-run", job).expect(0).output
    for text in (f"not got it: {image.path}", "/images/SHA256", "/tmp/mds-staged"):
        harness.check(text in shown, f"no '{text}': {shown}")


def under_slurm(launcher, runtime):
    """A heterogeneous job: each component is a step of its own, to which srun sends mdsagent, too."""
    with slurm_cluster.Cluster(nodes=2, within=stage.hidden(launcher)) as cluster:
        image = Image(launcher)
        job, said = look(launcher, image, runtime)
        out = pathlib.Path(tempfile.mkdtemp(dir=launcher.work, prefix="runs-"))
        name, value = launcher.mark.split("=")
        done = subprocess.run(["salloc", "--nodes=1", ":", "--nodes=1", str(launcher.program), str(job), "--output-dir",
                               str(out)], cwd=launcher.work, env={**cluster.environment, name: value}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
        run = harness.Run(done.returncode, done.stdout, done.stderr, (out / "latest").resolve(), 0).expect(0)
        check_looks(run, said)
        launcher.wait_until_gone(10)


def test(launcher, arguments):
    missing = [name for name in ("ssh", "ssh-keygen", "scp", "sshd", "unshare", "nsenter", "tar")
               if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    missing += slurm_cluster.missing_programs()
    runtimes = container_runs.runtimes(["bubblewrap", "charliecloud", "podman"], launcher)
    if missing or not runtimes or os.geteuid() != 0:
        harness.check(os.environ.get("CI") != "true", f"not installed: {missing} (.ci/setup test), or not root")
        return harness.skip(f"needs root, a container runtime, and {missing} (.ci/setup test)")
    one = next(iter(runtimes))
    wanted = lambda case: not arguments.only or case.__name__ in arguments.only  # noqa: E731
    with stage.Hosts(launcher) as hosts:
        for case in filter(wanted, (sent_once, mounted_as_it_is)):
            stage.timed(case, launcher, hosts, runtimes)
        for case in filter(wanted, (damaged_in_the_store, changed_on_the_way, killed_and_two_at_once,
                                    trainer_in_the_image)):
            stage.timed(case, launcher, hosts, one)
    for case in filter(wanted, (full_disk, refused, under_slurm)):
        stage.timed(case, launcher, one)


if __name__ == "__main__":
    harness.main(test, __doc__, lambda parser: parser.add_argument("--only", nargs="*", help="cases by name"))
