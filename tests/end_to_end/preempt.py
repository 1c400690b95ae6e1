"""A preempted run stops with a checkpoint and exit code 75; resumed, it goes on in its folder with the same bits."""
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

STEPS = 60


def steps_done(process):
    metrics = process.output_dir / "latest/metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def preempted(launcher, *arguments, after, number=signal.SIGUSR1):
    process = launcher.start(*arguments)
    begun = steps_done(process)
    harness.wait_for(lambda: steps_done(process) >= begun + after or process.poll() is not None, 60, f"{after} steps")
    process.send_signal(number)
    run = launcher.finish(process, timeout=60)
    harness.check(not launcher.survivors(), f"left behind: {launcher.survivors()}\n{run.everything()}")
    return run


def check_report(run, outcome):
    harness.check(run.report()["outcome"] == outcome, f"report.json says {run.report()['outcome']}, not {outcome}")


def without_checkpoint(launcher):
    """A program that knows nothing of checkpoints: a plain stop."""
    job = launcher.job('[job]\nname = "p"\ndevices = "cpu"\nnodes = 1\nranks_per_node = 2\n'
                       '[payload]\ncommand = ["sh", "-c", "touch up-$RANK; exec sleep 1000"]\n')
    process = launcher.start(job)
    harness.wait_for(lambda: len(list(launcher.work.rglob("up-*"))) == 2, 20, "both ranks")
    process.send_signal(signal.SIGUSR1)
    run = launcher.finish(process, timeout=60).expect(128 + signal.SIGUSR1)
    check_report(run, "stopped")


def test(launcher, arguments):
    without_checkpoint(launcher)
    job = launcher.job(harness.small_job(tensor=2, data=2, nodes=2, steps=STEPS))
    whole = launcher.run(job).expect(0)

    first = preempted(launcher, job, after=5).expect(75)
    check_report(first, "preempted")
    harness.check(first.checkpoints(), "no checkpoint was written")
    done = first.report()["step"]
    harness.check(0 < done < STEPS, f"it was to be stopped in the middle, not after step {done}")

    # Preempted again: the output folder of this start is another one, the run's own stays what it is.
    second = launcher.start("run", "--resume", first.folder, "--kill-rank", f"1@{done + 3}")
    second = launcher.finish(second).expect(0)
    harness.check(second.folder is None, "the resumed run made a folder of its own")
    events = first.events()
    attempts = {e["attempt"] for e in events if e.get("event") == "rank_started"}
    harness.check(attempts == {1, 2, 3}, f"attempts {attempts} instead of 1, 2 (resumed), 3 (after the kill)")
    harness.check(first.report()["run"] == first.folder.name, "another run id")
    harness.check(first.losses() == whole.losses(), "losses of the resumed run differ from an undisturbed run's")
    harness.check(len(first.losses()) == STEPS, f"{len(first.losses())} of {STEPS} steps were recorded")
    rows = (first.folder / "metrics.csv").read_text().splitlines()
    harness.check(len(rows) == STEPS + 1, f"metrics.csv has {len(rows) - 1} steps")

    again = launcher.finish(launcher.start("run", "--resume", first.folder)).expect(0)
    harness.check("finished already" in again.errors, f"a finished run was resumed: {again.everything()}")


if __name__ == "__main__":
    harness.main(test, __doc__)
