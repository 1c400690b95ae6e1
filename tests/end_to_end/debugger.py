"""attach and debug: gdb on ranks, in a terminal as a user has it."""
import json
import os
import pathlib
import shutil
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "container")]
import container_runs  # noqa: E402
import harness  # noqa: E402
import tmux  # noqa: E402

# Two C functions, so that a backtrace has a name to look for; the rank counts until it is told to leave.
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
volatile int leave;
int deep_inside(int n) {
  for (; !leave; ++n) usleep(1000);
  return n;
}
int main(void) {
  printf("rank %s was here\\n", getenv("RANK"));
  fflush(stdout);
  leave = getenv("LEAVE") != 0;
  deep_inside(0);
  return 0;
}
"""


def build(launcher):
    source, program = launcher.work / "rank.c", launcher.work / "rank"
    source.write_text(PROGRAM)
    harness.check(os.system(f"cc -g -O0 -o {program} {source}") == 0, "cc")
    return program


def job(launcher, command, more="", nodes=2):
    return launcher.job(f'[job]\nname = "debugged"\ndevices = "cpu"\nnodes = {nodes}\nranks_per_node = 2\n'
                        f'[payload]\ncommand = {json.dumps(command)}\n[restart]\nmax_restarts = 0\n{more}')


def command(launcher, *words):
    """Beside a run, so without the look for survivors."""
    options = {} if "--output-dir" in words else {"with_output_dir": False}
    return launcher.finish(launcher.start(*words, **options), timeout=60)


def attach(launcher, program):
    process = launcher.start(job(launcher, ["sh", "-c", f"touch up-$RANK; exec {program}"]))
    harness.wait_for(lambda: len(list(launcher.work.glob("up-*"))) == 4, 30, "all ranks")
    words = ["attach", "--output-dir", process.output_dir, "--rank"]
    run = command(launcher, *words, "3", "--gdb=-batch", "--gdb=-ex=bt").expect(0)
    harness.check("deep_inside" in run.output, run.everything())
    printed = command(launcher, *words, "2", "--print").expect(0).output.split()
    harness.check(printed[:3] == ["gdb", "-q", "-p"] and printed[3].isdigit(), printed)
    wrong = command(launcher, *words, "4", "--print").expect(2)
    harness.check("ranks 0 to 3" in wrong.errors, wrong.everything())
    with tmux.Terminal([launcher.program, *words, "1"], environment=launcher.environment()) as terminal:
        terminal.wait_for("(gdb)")
        terminal.type("print leave")
        terminal.wait_for("$1 = 0")
        events = (process.output_dir / "latest/events.jsonl").read_text()
        harness.check('"event":"hold","rank":1' in events, events)
        terminal.type("set var leave = 1")
        terminal.type("detach")
        terminal.wait_for("detached")
        terminal.type("quit")
        terminal.wait_for("exit code 0")
    harness.wait_for(lambda: '"event":"rank_exited","exit_code":0' in
                     (process.output_dir / "latest/events.jsonl").read_text(), 20, "rank 1 to leave")
    command(launcher, "stop", "--now", "--output-dir", process.output_dir).expect(0)
    run = launcher.finish(process, timeout=60).expect(143)
    harness.check("first cause" not in run.errors, run.everything())


def in_containers(launcher, program):
    """The program is in the image alone, and so are its symbols; gdb and stacks are the host's."""
    root = container_runs.Root(launcher.work / "root")
    root.add(program, "/usr/bin/inside")
    where = job(launcher, ["/usr/bin/inside"], nodes=1)
    for runtime, environment in container_runs.runtimes(("podman", "charliecloud", "bubblewrap"), launcher).items():
        inside = container_runs.words(runtime, root.folder, trainer="")
        process = launcher.start(where, *inside, extra=environment)
        log = process.output_dir / "latest/logs/rank-00001.log"
        harness.wait_for(lambda: log.exists() and "was here" in log.read_text(), 60, f"rank 1 under {runtime}")
        run = command(launcher, "attach", "--rank", "1", "--output-dir", process.output_dir, "--gdb=-batch",
                      "--gdb=-ex=bt").expect(0)
        harness.check("deep_inside (n=" in run.output, f"{runtime}: {run.everything()}")
        run = command(launcher, "stacks", "--output-dir", process.output_dir).expect(0)
        harness.check("ranks 0,1: inside" in run.output and "deep_inside" in run.output, run.everything())
        command(launcher, "stop", "--now", "--output-dir", process.output_dir).expect(0)
        launcher.finish(process, timeout=60).expect(143)
        run = launcher.run("debug", "--rank", "0", where, *inside, "--gdb=-batch", "--gdb=-ex=break deep_inside",
                           "--gdb=-ex=continue", "--gdb=-ex=bt", extra=environment).expect(143)
        harness.check("deep_inside (n=0)" in run.output, f"{runtime}: {run.everything()}")
        print(f"  {runtime}: attach, stacks and debug", flush=True)


# LibTorch's symbols take gdb many seconds, and nobody looks at them here.
QUICK = "--gdb=-iex=set auto-solib-add off"


def attach_training(launcher):
    """A rank stands in the debugger for longer than the run's hang_timeout, and the run goes on."""
    text = harness.small_job(data=2, steps=100_000, more='[health]\nhang_timeout = "6s"\n')
    process = launcher.start(launcher.job(text, "long.toml"))
    metrics = process.output_dir / "latest/metrics.jsonl"
    harness.wait_for(lambda: metrics.exists() and '"loss"' in metrics.read_text(), 60, "the first step")
    command(launcher, "attach", "--rank", "1", "--output-dir", process.output_dir, QUICK,
            "--gdb=-batch", "--gdb=-ex=shell sleep 8").expect(0)
    command(launcher, "stop", "--now", "--output-dir", process.output_dir).expect(0)
    run = launcher.finish(process, timeout=60).expect(143)
    harness.check("first cause" not in run.errors, run.everything())


def debug(launcher, program):
    """The user sets a breakpoint before the program begins, looks at a variable there, and lets the run end."""
    runs = launcher.work / "debug"
    words = [launcher.program, "debug", "--rank", "1", job(launcher, [str(program)], nodes=1), "--set",
             'job.env={ LEAVE = "1" }', "--output-dir", runs]
    with tmux.Terminal(words, rows=60, environment=launcher.environment()) as terminal:
        terminal.wait_for("Temporary catchpoint 1 (exec'd")
        terminal.type("break deep_inside")
        terminal.wait_for("Breakpoint 2")
        terminal.type("continue")
        screen = "\n".join(terminal.wait_for("deep_inside (n=0)"))
        harness.check("rank 1 was here" in screen and "rank 0 was here" not in screen, screen)
        terminal.type("continue")
        terminal.wait_for("exited normally")
        terminal.type("quit")
        terminal.wait_for("exit code 0")
        harness.check("debugged finished" in terminal.everything(), terminal.everything())
    harness.check("rank 0 was here" in (runs / "latest/logs/rank-00000.log").read_text(), "rank 0's log")
    left = launcher.wait_until_gone(20)
    print(f"  gone {left:.2f} s after the end")


def debug_given_up(launcher, program):
    """The user quits while the rank lives: the run is stopped, and nothing is left."""
    run = launcher.run("debug", "--rank", "0", job(launcher, [str(program)], nodes=1), "--gdb=-batch",
                       "--gdb=-ex=info proc").expect(143)
    harness.check(str(program) in run.output and "stopped" in run.output, run.everything())


def debug_training(launcher):
    """A rank of the trainer stands before its first instruction; the others wait for it."""
    text = harness.small_job(data=2, steps=2)
    run = launcher.run("debug", "--rank", "1", launcher.job(text, "train.toml"), QUICK,
                       "--gdb=-batch", "--gdb=-ex=tbreak main", "--gdb=-ex=continue", "--gdb=-ex=continue").expect(0)
    harness.check("Temporary breakpoint" in run.output and "exited normally" in run.output, run.everything())
    harness.check(run.report()["outcome"] == "finished" and len(run.losses()) == 2, run.everything())


def wrong_words(launcher, program):
    where = job(launcher, [str(program)], nodes=1)
    for words, text in ((["debug", where], "needs --rank"), (["debug", "--rank", "7", where], "ranks 0 to 1"),
                        (["debug", "--rank", "-1", where], "no rank"),
                        (["debug", "--rank", "0", where, "--set", "job.backend=ssh", "--set", "job.hosts=['b']"],
                         "job.backend=local")):
        run = launcher.command(*words).expect(2)
        harness.check(text in run.errors, run.everything())


def test(launcher, arguments):
    for program in ("gdb", "tmux", "cc"):
        if not shutil.which(program):
            harness.check(os.environ.get("CI") != "true", f"{program} is missing (.ci/setup test)")
            return harness.skip(f"{program} is missing")
    program = build(launcher)
    for case in (wrong_words, attach, debug, debug_given_up, in_containers):
        print(case.__name__, flush=True)
        case(launcher, program)
    if (launcher.program.parent / "mdstrain").exists():
        for case in (attach_training, debug_training):
            print(case.__name__, flush=True)
            case(launcher)
    return 0


if __name__ == "__main__":
    harness.main(test, __doc__)
