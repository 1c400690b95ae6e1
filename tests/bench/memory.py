"""Memory and step time of one GPU as the plan predicts them and as the trainer measures them, side by side.

    memory.py [--build FOLDER] [--only NAME;...] [--topology MACHINE]

The plan is made for a machine of the same kind (--topology) before the job runs. Memory is what the tensors take at
their highest (memory_bytes_max of report.json); step time is the median behind the first two steps. Exit code 1 if a
job's memory is more than 5 % off.
"""
import csv
import json
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

WORST_MEMORY_ERROR = 0.05
STEPS, WARMUP_STEPS = 6, 2


def sets(preset, seq_len, micro, batch, **more):
    keys = {"model.preset": f'"{preset}"', "training.seq_len": seq_len, "training.micro_batch_size": micro,
            "training.global_batch_size": batch, "training.steps": STEPS}
    keys |= {name.replace("__", "."): value for name, value in more.items()}
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]


FULL, SELECTIVE = '"full"', '"selective"'
JOBS = {
    "llama-1b": sets("llama-1b", 8192, 2, 2),
    "llama-1b, 4 x 8k, selective": sets("llama-1b", 8192, 4, 4, training__recompute=SELECTIVE),
    "llama-1b, 8 x 8k, full": sets("llama-1b", 8192, 8, 8, training__recompute=FULL),
    "llama-1b, 16k, 2 micro batches": sets("llama-1b", 16384, 1, 2, model__max_position_embeddings=16384),
    "llama-1b, fp32": sets("llama-1b", 2048, 2, 2, training__precision='"fp32"'),
    "llama-3b, 4 micro batches": sets("llama-3b", 4096, 1, 4),
    "gpt3-1.3b, 8 x 2k": sets("gpt3-1.3b", 2048, 8, 8),
    "gpt3-2.7b, 16 x 2k, full": sets("gpt3-2.7b", 2048, 16, 16, training__recompute=FULL),
    "bloom-1b7, 4 x 2k": sets("bloom-1b7", 2048, 4, 4),
    "bloom-3b, 2 x 2k, selective": sets("bloom-3b", 2048, 2, 4, training__recompute=SELECTIVE),
}
JOB = """\
[job]
name = "memory"
gpus_per_node = 1
[model]
{model}
[data]
format = "random"
[training]
deterministic = false
precision = "bf16"
[checkpoint]
interval = 0
at_end = false
"""


def measure(launcher, name, topology):
    untied = "tie_word_embeddings = false" if name.startswith("llama") else ""
    job = launcher.job(JOB.format(model=untied), "memory.toml")
    plan = launcher.command("plan", "--json", "--topology", topology, job, *JOBS[name]).expect(0)
    plan = json.loads(plan.output)
    run = launcher.run(job, *JOBS[name], timeout=200)
    if run.exit_code != 0:
        print(f"{name}: {run.everything()[-3000:]}", flush=True)
        return None
    with open(run.folder / "metrics.csv", newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file) if row.get("loss")]
    return {"job": name, "planned_gib": plan["ranks"][0]["memory"]["tensors"] / 2**30,
            "gib": max(run.report()["memory_bytes_max"].values()) / 2**30,
            "planned_seconds": plan["step_time"]["total"], "seconds": statistics.median(seconds[WARMUP_STEPS:])}


def bench(launcher, arguments):
    names = arguments.only.split(";") if arguments.only else list(JOBS)
    results = []
    print("| job | GiB planned | GiB measured | off | step planned, s | step measured, s | off |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        r = measure(launcher, name, arguments.topology)
        if r is None:
            continue
        results.append(r | {"error": r["planned_gib"] / r["gib"] - 1})
        print(f"| {name} | {r['planned_gib']:.1f} | {r['gib']:.1f} | {100 * results[-1]['error']:+.1f} % | "
              f"{r['planned_seconds']:.3f} | {r['seconds']:.3f} | "
              f"{100 * (r['planned_seconds'] / r['seconds'] - 1):+.1f} % |", flush=True)
    wrong = [r["job"] for r in results if abs(r["error"]) > WORST_MEMORY_ERROR]
    if wrong:
        print(f"more than {100 * WORST_MEMORY_ERROR:.0f} % off: {', '.join(wrong)}")
    return 0 if len(results) == len(names) and not wrong else 1


def arguments(parser):
    parser.add_argument("--only", help="jobs, joined by semicolons: " + "; ".join(JOBS))
    parser.add_argument("--topology", default="dgx-h200", help="the machine that the plan is made for")


if __name__ == "__main__":
    harness.main(bench, __doc__, arguments)
