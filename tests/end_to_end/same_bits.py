"""Same run, same bits: the quickstart model, shortened, gives identical losses when run twice, with ZeRO stage 0
instead of 1, and when a rank is killed by SIGKILL half way and the job restarts from its newest checkpoint.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

STEPS, INTERVAL, KILL_AT, KILLED = 30, 8, 21, 2


def run(launcher, *arguments):
    sets = [f"training.steps={STEPS}", f"checkpoint.interval={INTERVAL}"]
    result = launcher.run(harness.QUICKSTART, *(word for value in sets for word in ("--set", value)), *arguments)
    result.expect(0)
    losses = result.losses()
    harness.check(sorted(losses) == list(range(1, STEPS + 1)), f"steps {sorted(losses)}: {result.everything()}")
    harness.check(result.validation_losses(), f"no validation loss: {result.everything()}")
    return result


def same(first, second, what):
    for step, loss in first.losses().items():
        other = second.losses()[step]
        harness.check(loss == other, f"{what}: step {step} has loss {loss} and {other}")
    last = [max(r.validation_losses().items()) for r in (first, second)]
    harness.check(last[0] == last[1], f"{what}: validation losses {last[0]} and {last[1]}")
    print(f"{what}: {STEPS} losses and the validation loss are equal to the last bit")


def recovered(killed):
    """The log of the run with the killed rank says so, with the first cause, and that it went on from a checkpoint."""
    cause = next((e for e in killed.events() if "first_cause" in str(e)), None)
    told = killed.output + killed.errors
    harness.check(f"rank {KILLED}" in told and ("SIGKILL" in told or "signal 9" in told),
                  f"the first cause (rank {KILLED}, SIGKILL) is not named: {killed.everything()}")
    harness.check(cause is not None, "events.jsonl names no first cause")
    resumed = [record for record in killed.lines("metrics.jsonl") if "resumed_from" in record]
    harness.check(resumed or "step-" in told, f"it did not resume from a checkpoint: {killed.everything()}")


def test(launcher, arguments):
    first = run(launcher)
    same(first, run(launcher), "twice")
    same(first, run(launcher, "--set", "zero.stage=0"), "ZeRO 1 and 0")
    killed = run(launcher, "--kill-rank", f"{KILLED}@{KILL_AT}")
    recovered(killed)
    same(first, killed, f"rank {KILLED} killed at step {KILL_AT}")


if __name__ == "__main__":
    harness.main(test, __doc__)
