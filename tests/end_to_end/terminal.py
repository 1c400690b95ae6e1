"""What people see of a run in a terminal: one progress line at every width, nothing blank in between, nothing of it
left at the end; plain lines in a pipe and a file; no colours where they are not wanted. And `top`.
"""
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import tmux  # noqa: E402

STEP = re.compile(r"^step \d+/\d+", re.MULTILINE)
COLOUR = re.compile(rb"\033\[[0-9;]*m")


def words_of(launcher, steps, more=""):
    job = launcher.job(harness.small_job(data=2, steps=steps, more=more), f"terminal-{steps}.toml")
    return [launcher.program, job, "--output-dir", launcher.work / "terminal"]


def check_one_line(screen, columns):
    rows = [row for row in screen if STEP.match(row)]
    harness.check(len(rows) == 1 and len(rows[0]) < columns, f"at {columns} columns: " + "\n".join(screen))
    harness.check(screen[-1] == rows[0], "the progress line is not the last: " + "\n".join(screen))


def resize_between_draws(launcher, terminal, columns):
    """tmux wraps what is there at once, but tells the program of its new size up to a quarter of a second later; what
    is drawn in between cannot be right. So the program is held that long."""
    head = next(pid for pid, words in launcher.survivors() if words.startswith(str(launcher.program)))
    os.kill(head, signal.SIGSTOP)
    terminal.resize(columns, 20)
    harness.wait_for(lambda: int(os.popen(f"stty -F {terminal.device()} size").read().split()[1]) == columns, 10,
                     f"{columns} columns")
    os.kill(head, signal.SIGCONT)


def widths(launcher):
    """40, 80 and 200 columns, then the same terminal narrower and wider while the run goes on."""
    words = words_of(launcher, 100_000)
    for columns in (40, 80, 200):
        with tmux.Terminal(words, columns, 20, launcher.environment()) as terminal:
            terminal.wait_for("loss")
            for _ in range(5):
                check_one_line(terminal.screen(), columns)
                time.sleep(0.02)  # between two looks, so that they are at different moments
            if columns == 200:
                for narrower in (60, 30, 120):
                    terminal.resize(narrower, 20)
                    resize_between_draws(launcher, terminal, narrower)
                    before = terminal.screen()[-1]
                    terminal.wait_until(lambda screen: screen[-1] != before, "the next step")
                    check_one_line(terminal.screen(), narrower)
            terminal.press("C-c")
            terminal.wait_for("exit code 130")
            text = terminal.everything()
            harness.check(not STEP.search(text), f"a progress line is left behind:\n{text}")
            harness.check("stopped on SIGINT" in text.replace("\n", ""), text)


def on_a_terminal(launcher, words, extra):
    """Exit code and every byte that a terminal gets, with the moments at which it gets them."""
    master, slave = pty.openpty()
    process = subprocess.Popen(words, cwd=launcher.work, env=launcher.environment(extra), stdin=subprocess.DEVNULL,
                               stdout=slave, stderr=slave)
    os.close(slave)
    pieces = []
    while True:
        ready, _, _ = select.select([master], [], [], 60)
        harness.check(ready, "silence for 60 s")
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(master)
    return process.wait(), pieces


def no_flicker(launcher):
    """Each redraw is one write that begins where the line begins and clears only behind the new text."""
    begin = time.monotonic()
    exit_code, pieces = on_a_terminal(launcher, words_of(launcher, 60), {"TERM": "xterm", "NO_COLOR": ""})
    seconds = time.monotonic() - begin
    text = b"".join(pieces)
    harness.check(exit_code == 0, f"exit code {exit_code}: {text}")
    draws = text.count(b"step ")
    blanks = text.count(b"\r\033[K")
    harness.check(blanks == 1, f"the line was cleared {blanks} times before it was drawn, at the end is once: {text}")
    harness.check(draws <= 10 * seconds + 5, f"{draws} redraws in {seconds:.1f} s")
    harness.check(COLOUR.search(text), "no colours on a terminal")
    print(f"  {draws} redraws in {seconds:.1f} s")


def no_color(launcher):
    for extra in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb", "NO_COLOR": ""}):
        exit_code, pieces = on_a_terminal(launcher, words_of(launcher, 4), extra)
        text = b"".join(pieces)
        harness.check(exit_code == 0 and not COLOUR.search(text), f"{extra}: {text}")
        if extra["TERM"] == "dumb":
            harness.check(b"\033" not in text, f"escape sequences on a dumb terminal: {text}")


def plain(launcher):
    """In a pipe and in a file, as under sbatch: whole lines, each step once, the last one, too."""
    text = harness.small_job(data=2, steps=20).replace("steps = 20", "steps = 20\neval_interval = 5")
    run = launcher.run(launcher.job(text, "plain.toml")).expect(0)
    harness.check("\033" not in run.output + run.errors and "\r" not in run.output, repr(run.output))
    steps = STEP.findall(run.output)
    harness.check(len(steps) == len(set(steps)) and steps[-1] == "step 20/20", run.output)
    harness.check(re.search(r"^validation \d\.\d{4} after step 20$", run.output, re.MULTILINE), run.output)


def top(launcher):
    job = launcher.job('[job]\nname = "watched"\ndevices = "cpu"\nnodes = 2\nranks_per_node = 4\n'
                       '[payload]\ncommand = ["sh", "-c", "touch up-$RANK; exec sleep 1000"]\n', "watched.toml")
    process = launcher.start(job)
    harness.wait_for(lambda: len(list(launcher.work.glob("up-*"))) == 8, 30, "all ranks")
    words = ["top", "--output-dir", process.output_dir]
    once = launcher.finish(launcher.start(*words), 30).expect(0)
    harness.check("ranks 0-7: running" in once.output and "\033" not in once.output, once.everything())
    with tmux.Terminal([launcher.program, *words], 100, 30, launcher.environment()) as terminal:
        screen = terminal.wait_for("RANK")
        running = [row.split()[0] for row in screen if " running " in row and row.split()[0].isdigit()]
        harness.check(running == [str(r) for r in range(8)], "\n".join(screen))
        terminal.resize(50, 12)
        screen = terminal.wait_for("ranks more")
        harness.check(len(screen) <= 12 and all(len(row) <= 50 for row in screen), "\n".join(screen))
        terminal.press("q")
        screen = terminal.wait_for("exit code 0")
        harness.check("RANK" not in terminal.text(), "the screen of before is not back: " + terminal.text())
    with tmux.Terminal([launcher.program, *words], 100, 30, launcher.environment()) as terminal:
        terminal.wait_for("RANK")
        launcher.finish(launcher.start("stop", "--now", "--output-dir", process.output_dir), 30).expect(0)
        terminal.wait_for("exit code 0")
        harness.check("stopped after" in terminal.text(), terminal.text())  # the status at the end stays to be read
    launcher.finish(process, 60).expect(143)


def test(launcher, arguments):
    if not shutil.which("tmux"):
        harness.check(os.environ.get("CI") != "true", "tmux is missing (.ci/setup test)")
        return harness.skip("tmux is missing")
    cases = [top]
    if (launcher.program.parent / "mdstrain").exists():
        cases += [widths, no_flicker, no_color, plain]
    for case in cases:
        print(case.__name__, flush=True)
        case(launcher)
    return 0


if __name__ == "__main__":
    harness.main(test, __doc__)
