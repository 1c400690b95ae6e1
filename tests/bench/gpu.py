"""What the layouts cost on this machine's GPUs, and that their losses agree. A report, not a timed test.

    gpu.py [--build FOLDER] [--steps N] [--only NAME,...]

One GPU: llama-1b. Two: llama-8b as tensor 2 with sequence parallel, pipeline 2, data 2 with ZeRO-1; four: tensor 4,
pipeline 4, data 4 and the mixed ones. Tokens a second are the median over the steps behind the first four. MFU counts
the products of every parameter but the embedding and of full (not only causal) attention, against 989 TFLOP/s.
"""
import csv
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

PEAK_FLOPS = 989e12          # bf16 of an H100 or H200, dense, by its data sheet
WARMUP_STEPS = 4
# hidden, layers, vocabulary, parameters without the embedding table
SHAPES = {"llama-1b": (2048, 16, 128256, 1_235_814_400), "llama-8b": (4096, 32, 128256, 7_504_924_672)}


def layout(tensor=1, pipeline=1, more=()):
    sets = [f"parallel.tensor={tensor}", f"parallel.pipeline={pipeline}",
            f"parallel.sequence_parallel={'true' if tensor > 1 else 'false'}", *more]
    return [word for key in sets for word in ("--set", key)]


RECOMPUTE = ("training.recompute=selective",)
LAYOUTS = {           # name -> (GPUs, job, arguments)
    "1b": (1, "llama-1b", []),
    "8b-tp2": (2, "llama-8b", layout(tensor=2)),
    "8b-pp2": (2, "llama-8b", layout(pipeline=2)),
    "8b-dp2": (2, "llama-8b", layout(more=RECOMPUTE)),
    "8b-tp4": (4, "llama-8b", layout(tensor=4)),
    "8b-pp4": (4, "llama-8b", layout(pipeline=4)),
    "8b-dp4": (4, "llama-8b", layout(more=RECOMPUTE)),
    "8b-tp2-pp2": (4, "llama-8b", layout(tensor=2, pipeline=2)),
    "8b-tp2-dp2": (4, "llama-8b", layout(tensor=2)),
    "8b-pp2-dp2": (4, "llama-8b", layout(pipeline=2)),
}


def gpu_count():
    try:
        return len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines())
    except FileNotFoundError:
        return 0


def flops_per_token(model, seq_len):
    hidden, layers, _, parameters = SHAPES[model]
    return 6 * parameters + 12 * layers * hidden * seq_len


def measure(launcher, name, steps, more):
    gpus, model, arguments = LAYOUTS[name]
    run = launcher.run(harness.ROOT / f"docs/examples/{model}.toml", *arguments, "--set", f"job.gpus_per_node={gpus}",
                       "--set", f"training.steps={steps}", *more, timeout=580)
    if run.exit_code != 0:
        print(f"{name}: {run.everything()}", flush=True)
        for log in sorted(run.folder.glob("logs/*.log")) if run.folder else []:
            print(f"--- {log.name}\n{log.read_text()[-1500:]}")
        return None
    with open(run.folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss")]
    rates = [float(row["tokens"]) / float(row["seconds"]) / gpus for row in rows[WARMUP_STEPS:]]
    rate = statistics.median(rates)
    report = run.report()
    return {"layout": name, "gpus": gpus, "tokens_s_gpu": rate, "mfu": rate * flops_per_token(model, 8192) / PEAK_FLOPS,
            "gib": max((m / 2**30 for m in report.get("memory_bytes_max", {}).values()), default=0.0),
            "losses": [float(row["loss"]) for row in rows], "seconds": run.seconds}


def table(results):
    print("\n| layout | GPUs | tokens/s per GPU | MFU | peak GiB a GPU | loss, first step | loss, last step |")
    print("|---|---|---|---|---|---|---|")
    for r in results:
        print(f"| {r['layout']} | {r['gpus']} | {r['tokens_s_gpu']:,.0f} | {100 * r['mfu']:.1f} % | {r['gib']:.1f} | "
              f"{r['losses'][0]:.6f} | {r['losses'][-1]:.6f} |")
    eights = [r for r in results if r["layout"].startswith("8b")]
    for r in eights[1:]:
        worst = max(abs(a - b) / abs(b) for a, b in zip(r["losses"], eights[0]["losses"]))
        print(f"{r['layout']} against {eights[0]['layout']}: largest relative difference of a step's loss {worst:.2e}")


def bench(launcher, arguments):
    available = gpu_count()
    names = arguments.only.split(",") if arguments.only else [n for n, (g, _, _) in LAYOUTS.items() if g == available]
    harness.check(names, f"this machine has {available} GPUs: name layouts with --only, of {', '.join(LAYOUTS)}")
    results = []
    for name in names:
        result = measure(launcher, name, arguments.steps, arguments.set and
                         [word for key in arguments.set for word in ("--set", key)] or [])
        if result:
            results.append(result)
            print(f"{name}: {result['tokens_s_gpu']:,.0f} tokens/s per GPU, {result['gib']:.1f} GiB, "
                  f"{result['seconds']:.0f} s; losses {' '.join(f'{x:.4f}' for x in result['losses'])}", flush=True)
    table(results)
    return 0 if len(results) == len(names) else 1


def arguments(parser):
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", help="layouts, joined by commas: " + ", ".join(LAYOUTS))
    parser.add_argument("--set", action="append", help="passed on to mdslaunch")


if __name__ == "__main__":
    harness.main(bench, __doc__, arguments)
