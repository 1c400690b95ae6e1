"""However a run ends, no process of it is left, and the exit code and the first cause say how it ended.

Ranks here start a grandchild that leaves the session (setsid) and ignores SIGTERM, as daemons do.
"""
import contextlib
import json
import os
import pathlib
import resource
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

DAEMON = "setsid sh -c 'trap \"\" TERM HUP INT; touch daemon-$RANK; exec sleep 1000' & "
WAIT_FOR_DAEMON = "while [ ! -e daemon-$RANK ]; do sleep 0.01; done; "
SECONDS_TO_CLEAR = 5


def job(launcher, script, nodes=2, ranks_per_node=2, restarts=0):
    return launcher.job(f"""
[job]
name = "ends"
devices = "cpu"
nodes = {nodes}
ranks_per_node = {ranks_per_node}
[payload]
command = ["sh", "-c", {json.dumps(DAEMON + WAIT_FOR_DAEMON + script)}]
[restart]
max_restarts = {restarts}
""")


def clear_daemon_marks(launcher):
    for mark in launcher.work.rglob("daemon-*"):
        mark.unlink()


def started(launcher, script="exec sleep 1000"):
    """A running job whose four ranks and their daemons are all up."""
    clear_daemon_marks(launcher)
    process = launcher.start(job(launcher, script))
    harness.wait_for(lambda: sum("sleep 1000" in command for _, command in launcher.survivors()) >= 8, 20,
                     "four ranks and their daemons")
    return process


def finished_by_itself(launcher):
    clear_daemon_marks(launcher)
    run = launcher.run(job(launcher, "exit 0")).expect(0)
    harness.check(run.report(), "report.json is empty")


def failing_rank(launcher):
    clear_daemon_marks(launcher)
    script = "if [ $RANK = 3 ]; then echo out of luck >&2; exit 41; fi; exec sleep 1000"
    run = launcher.run(job(launcher, script)).expect(1)
    told = run.output + run.errors
    for word in ("rank 3", "41", "out of luck"):
        harness.check(word in told, f"the first cause does not say {word!r}: {run.everything()}")
        harness.check(word.removeprefix("rank ") in json.dumps(run.report()), f"report.json does not say {word!r}")


def killed_rank(launcher):
    clear_daemon_marks(launcher)
    run = launcher.run(job(launcher, "if [ $RANK = 1 ]; then kill -SEGV $$; fi; exec sleep 1000")).expect(1)
    told = run.output + run.errors
    harness.check("rank 1" in told and ("SIGSEGV" in told or "signal 11" in told),
                  f"the first cause does not name rank 1 and SIGSEGV: {run.everything()}")


def restarts_within_the_budget(launcher):
    """A rank that fails twice and then works: two restarts, the third attempt finishes the job."""
    clear_daemon_marks(launcher)
    for mark in launcher.work.rglob("said-*"):
        mark.unlink()
    script = ("n=$TORCHELASTIC_RESTART_COUNT; echo attempt $n; touch said-$RANK-$n; "
              "while [ ! -e said-0-$n ]; do sleep 0.01; done; [ $RANK != 2 ] || [ $n = 2 ]")
    path = job(launcher, script, restarts=2)
    run = launcher.run(path).expect(0)
    harness.check([f"attempt {n}" in run.log(0) for n in range(3)] == [True] * 3, f"log of rank 0: {run.log(0)}")
    launcher.run(path, "--set", "restart.max_restarts=1").expect(1)


def program_missing(launcher):
    path = launcher.job('[job]\nname = "x"\ndevices = "cpu"\nnodes = 1\nranks_per_node = 2\n'
                        '[payload]\ncommand = ["/no/such/program"]\n[restart]\nmax_restarts = 0\n')
    run = launcher.run(path)
    harness.check(run.exit_code in (1, 2, 4), f"exit code {run.exit_code}")
    harness.check("/no/such/program" in run.output + run.errors, f"not named: {run.everything()}")


def signalled(launcher, number):
    """A clean stop by the user: 128 + signal, nothing left the moment mdslaunch has ended."""
    process = started(launcher)
    process.send_signal(number)
    run = launcher.finish(process, timeout=60).expect(128 + number)
    harness.check(not launcher.survivors(), f"left after {number.name}: {launcher.survivors()}\n{run.everything()}")


def process_killed(launcher, program, which, code):
    """SIGKILL of mdslaunch itself, of an agent or of its guard: the ranks and daemons go, too."""
    process = started(launcher)
    if program == "mdslaunch":
        victims = [process.pid]
    else:
        victims = [pid for pid, command in launcher.survivors() if "mdsagent" in command.split()[0]]
        parents = {pid: int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
                   for pid in victims}
        guards = [pid for pid in victims if parents[pid] not in victims]
        victims = guards[:1] if which == "guard" else [pid for pid in victims if pid not in guards][:1]
    harness.check(victims, f"no {which} found among {launcher.survivors()}")
    os.kill(victims[0], signal.SIGKILL)
    if code is not None:
        launcher.finish(process, timeout=60).expect(code)
    else:
        with contextlib.suppress(ChildProcessError):
            process.wait()
    print(f"  all gone {launcher.wait_until_gone(SECONDS_TO_CLEAR) * 1e3:.0f} ms later")


def simple_job(launcher, script):
    return launcher.job('[job]\nname = "simple"\ndevices = "cpu"\nnodes = 1\nranks_per_node = 2\n'
                        f'[payload]\ncommand = ["sh", "-c", {json.dumps(script)}]\n')


def reader_gone(launcher):
    """`mdslaunch ... | head -1`: the run is worth more than its display."""
    reader, writer = os.pipe()
    os.close(reader)
    process = launcher.start(simple_job(launcher, "echo hello"), preexec_fn=lambda: os.dup2(writer, 1))
    os.close(writer)
    run = launcher.finish(process, timeout=30).expect(0)
    harness.check(run.report()["outcome"] == "finished", "no report")


def hangup_under_nohup(launcher):
    process = launcher.start(simple_job(launcher, "touch up-$RANK; sleep 1"),
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    harness.wait_for(lambda: any(launcher.work.rglob("up-*")), 20, "a rank")
    process.send_signal(signal.SIGHUP)
    launcher.finish(process, timeout=30).expect(0)


def stopped_rank(launcher):
    """A rank that has stopped itself hears of the end all the same, long before it would be killed."""
    process = launcher.start(simple_job(launcher, "touch stopped-$RANK; kill -STOP $$; sleep 100"))
    harness.wait_for(lambda: len(list(launcher.work.rglob("stopped-*"))) == 2, 20, "both ranks")
    process.send_signal(signal.SIGINT)
    launcher.finish(process, timeout=20).expect(130)


def small_limits(launcher):
    """No file may grow: an end with a message, not by SIGXFSZ."""
    run = launcher.finish(launcher.start(simple_job(launcher, "true"), preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (512, 512))), timeout=30).expect(2)
    harness.check("File too large" in run.errors, f"no reason: {run.everything()}")


def test(launcher, arguments):
    cases = [(finished_by_itself,), (failing_rank,), (killed_rank,), (restarts_within_the_budget,), (program_missing,),
             (reader_gone,), (hangup_under_nohup,), (stopped_rank,), (small_limits,),
             (signalled, signal.SIGINT), (signalled, signal.SIGTERM), (signalled, signal.SIGHUP),
             (process_killed, "mdslaunch", "head", None), (process_killed, "mdsagent", "agent", 1),
             (process_killed, "mdsagent", "guard", 1)]
    for case, *parameters in cases:
        print(case.__name__, *parameters, flush=True)
        case(launcher, *parameters)


if __name__ == "__main__":
    harness.main(test, __doc__)
