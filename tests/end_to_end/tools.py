"""status, logs, stop and stacks, as a user types them in another terminal while a run goes on, and after it."""
import json
import pathlib
import signal
import stat
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402


def job(launcher, script, nodes=2, ranks_per_node=2, name="tools", output_dir=None):
    where = f'output_dir = "{output_dir}"\n' if output_dir else ""
    return launcher.job(f'[job]\nname = "{name}"\ndevices = "cpu"\nnodes = {nodes}\n'
                        f'ranks_per_node = {ranks_per_node}\n{where}[payload]\n'
                        f'command = ["sh", "-c", {json.dumps(script)}]\n[restart]\nmax_restarts = 0\n')


def started(launcher, script, nodes=2, ranks_per_node=2, **options):
    """A run whose ranks have all touched their mark."""
    for mark in launcher.work.glob("up-*"):
        mark.unlink()
    process = launcher.start(job(launcher, f"touch up-$RANK; {script}", nodes, ranks_per_node), **options)
    harness.wait_for(lambda: len(list(launcher.work.glob("up-*"))) == nodes * ranks_per_node, 60, "all ranks")
    return process


def beside(launcher, *words):
    options = {} if "--output-dir" in words else {"with_output_dir": False}
    return launcher.start(*words, **options)


def command(launcher, *words):
    """Beside a run, so without the look for survivors."""
    return launcher.finish(beside(launcher, *words), timeout=60)


def status_of_a_run(launcher):
    process = started(launcher, "exec sleep 1000")
    where = ("--output-dir", process.output_dir)

    def running():  # the head hears of it a moment after the ranks have touched their marks
        told = json.loads(command(launcher, "status", "--json", *where).expect(0).output)
        harness.check(told["in_progress"] and told["state"] in ("starting", "running"), f"status: {told}")
        return told if told["state"] == "running" else None
    told = harness.wait_for(running, 10, "status: running")
    harness.check([r["state"] for r in told["ranks"]] == ["running"] * 4, f"ranks: {told['ranks']}")
    commands = dict(launcher.survivors())
    for rank in told["ranks"]:
        harness.check("sleep 1000" in commands.get(rank["pid"], ""), f"{rank} is not a sleep of {commands}")
    harness.check([n["state"] for n in told["nodes"]] == ["joined"] * 2, f"nodes: {told['nodes']}")
    text = command(launcher, "status", *where).expect(0).output
    harness.check("ranks 0-3: running" in text and "nodes 0,1: joined" in text, text)

    folder = (process.output_dir / "latest").resolve()
    mode = stat.S_IMODE((folder / "control.sock").stat().st_mode)
    harness.check(mode == 0o600, f"the socket is not its owner's alone: {mode:o}")
    by_id = command(launcher, "status", folder.name.rsplit("-", 1)[1], *where).expect(0).output
    harness.check(folder.name in by_id, f"by the run's id: {by_id}")

    process.send_signal(signal.SIGSTOP)  # a head that does not answer is no reason to hang
    stopped = command(launcher, "status", *where).expect(0)
    harness.check("does not answer" in stopped.errors and "running" in stopped.output, stopped.everything())
    process.send_signal(signal.SIGCONT)

    stop = command(launcher, "stop", *where).expect(0)
    launcher.finish(process, timeout=60).expect(128 + signal.SIGTERM)
    harness.check("stopped" in stop.output, stop.everything())
    ended = json.loads(command(launcher, "status", "--json", *where).expect(0).output)
    harness.check(not ended["in_progress"] and ended["outcome"] == "stopped", f"after the end: {ended}")
    harness.check(not (folder / "control.sock").exists(), "the socket is left")
    again = command(launcher, "stop", *where).expect(0)
    harness.check("not in progress" in again.output, again.everything())


def stop_now(launcher):
    process = started(launcher, "trap '' TERM; while :; do sleep 0.1; done")
    begin = time.monotonic()
    command(launcher, "stop", "--now", "--output-dir", process.output_dir).expect(0)
    launcher.finish(process, timeout=60).expect(128 + signal.SIGTERM)
    harness.check(time.monotonic() - begin < 8, "--now took its time")
    harness.check(not launcher.survivors(), f"left: {launcher.survivors()}")


def long_folder(launcher):
    """A socket's address has 107 bytes; run folders have more."""
    deep = launcher.work / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    process = started(launcher, "exec sleep 1000", 1, 1)
    launcher.finish(stop_all(launcher, process))
    process = launcher.start(job(launcher, "touch deep; exec sleep 1000", 1, 1, output_dir=deep), with_output_dir=False)
    harness.wait_for(lambda: (launcher.work / "deep").exists(), 20, "the rank")
    text = command(launcher, "status", "--output-dir", deep).expect(0)
    harness.check("running" in text.output, text.everything())
    command(launcher, "stop", "--output-dir", deep).expect(0)
    launcher.finish(process, timeout=60).expect(143)


def stop_all(launcher, process):
    command(launcher, "stop", "--now", "--output-dir", process.output_dir)
    return process


def logs(launcher):
    script = "echo begin; echo rank $RANK; echo middle; [ $RANK != 2 ] || echo only two; printf 'no newline'"
    run = launcher.run(job(launcher, script)).expect(0)
    out = command(launcher, "logs", run.folder).expect(0).output.splitlines()
    harness.check(out[0] == "[0-3] begin" and "[0-3] middle" in out and out[-1] == "[0-3] no newline" and
                  "[2] only two" in out and len(out) == 8, f"folded: {out}")
    one = command(launcher, "logs", run.folder, "--rank", "2").expect(0).output.splitlines()
    harness.check(one == ["begin", "rank 2", "middle", "only two", "no newline"], f"of rank 2: {one}")
    node = command(launcher, "logs", run.folder, "--node", "1").expect(0).output.splitlines()
    harness.check("[2,3] begin" in node and "[3] rank 3" in node and "[0] rank 0" not in node, f"{node}")
    wrong = command(launcher, "logs", run.folder, "--rank", "4").expect(2)
    harness.check("0 to 3" in wrong.errors, wrong.everything())


def who_said(line, text):
    """The ranks of all "[0-2,5] line"; ranks that are not quite as fast as others get a line of their own."""
    ranks = set()
    for one in text.splitlines():
        names, said = one.removeprefix("[").split("] ", 1)
        if said == line:
            for part in names.split(","):
                first, _, last = part.partition("-")
                ranks |= set(range(int(first), int(last or first) + 1))
    return ranks


def logs_followed(launcher):
    for mark in launcher.work.glob("go-*"):
        mark.unlink()
    process = started(launcher, "echo early; while [ ! -e go-on ]; do sleep 0.02; done; echo late")
    follower = beside(launcher, "logs", "--follow", "--output-dir", process.output_dir)
    output = follower.output_dir / "stdout"
    harness.wait_for(lambda: who_said("early", output.read_text()) == {0, 1, 2, 3}, 20, "what was said before")
    (launcher.work / "go-on").touch()
    launcher.finish(process, timeout=60).expect(0)
    text = launcher.finish(follower, timeout=20).expect(0).output
    harness.check(who_said("late", text) == {0, 1, 2, 3}, text)


def stacks(launcher):
    process = started(launcher, "exec sleep 1000", nodes=4, ranks_per_node=16)
    begin = time.monotonic()
    run = command(launcher, "stacks", "--output-dir", process.output_dir).expect(0)
    seconds = time.monotonic() - begin
    print(f"  stacks of 64 ranks: {seconds:.2f} s")
    harness.check("ranks 0-63: sleep" in run.output and "nanosleep" in run.output, run.everything())
    harness.check(seconds < 3, f"stacks of 64 ranks took {seconds:.1f} s")
    files = list((process.output_dir / "latest/stacks").iterdir())
    harness.check(len(files) == 1 and files[0].read_text() == run.output, f"files: {files}")
    states = {(pathlib.Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0]
              for pid, words in launcher.survivors() if words.startswith("sleep 1000")}
    harness.check(states == {"S"}, f"ranks were left in states {states}")
    stop_all(launcher, process)
    launcher.finish(process, timeout=60).expect(143)


def unknown_runs(launcher):
    empty = launcher.work / "nothing"
    empty.mkdir()
    for words in (["status"], ["logs"], ["stop"], ["stacks"]):
        run = command(launcher, *words, "--output-dir", empty).expect(2)
        harness.check("no run in" in run.errors, run.everything())
        run = command(launcher, *words, "no-such-run", "--output-dir", empty).expect(2)
        harness.check("no-such-run" in run.errors, run.everything())


def frozen_agent(launcher):
    """SIGSTOP of an agent: its connection stays, only its heartbeat is missing."""
    process = started(launcher, "exec sleep 1000")
    victims = [pid for pid, words in launcher.survivors() if "mdsagent" in words.split()[0]]
    parents = {pid: int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in victims}
    proper = next(pid for pid in victims if parents[pid] in victims)
    subprocess.run(["kill", "-STOP", str(proper)], check=True)
    begin = time.monotonic()
    run = launcher.finish(process, timeout=60).expect(1)
    print(f"  frozen agent: the run ended after {time.monotonic() - begin:.1f} s")
    harness.check("no heartbeat for" in run.errors, run.everything())
    harness.check(not launcher.survivors(), f"left: {launcher.survivors()}")


def test(launcher, arguments):
    for case in (unknown_runs, status_of_a_run, stop_now, long_folder, logs, logs_followed, stacks, frozen_agent):
        print(case.__name__, flush=True)
        case(launcher)


if __name__ == "__main__":
    harness.main(test, __doc__)
