"""Four GPUs of one host in one call of under ten minutes (`make gpu4`): what each layout costs and whether its losses
agree, checkpoints across layouts, a killed rank, and the host's topology beside NCCL's own dump. Prints tables for
docs/performance.md.

    four_gpus.py [--build FOLDER] [--steps N] [--record FOLDER] [--cpu]

--record   keeps topo.json, nccl_dump.xml and nccl_graph.xml of this host, as tests/topology/recordings/live-* has them
--cpu      four ranks on CPUs with a model of a few thousand parameters: tries the script, not the machine
"""
import itertools
import json
import pathlib
import shutil
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import gpu  # noqa: E402
import harness  # noqa: E402

# tensor, pipeline, data; micro batches of a data-parallel rank with the job's global batch of 8
LAYOUTS = {"tensor 4 + sequence parallel": (4, 1, 1), "pipeline 4": (1, 4, 1), "data 4, ZeRO-1": (1, 1, 4),
           "tensor 2 x pipeline 2": (2, 2, 1), "tensor 2 x data 2": (2, 1, 2), "pipeline 2 x data 2": (1, 2, 2)}
GLOBAL_BATCH = 8
# Cross-loaded and killed: the same code, but a checkpoint of seconds instead of minutes.
SMALL = ("model.num_layers=4", "model.vocab_size=32000", "training.seq_len=2048")
TINY = ("model.hidden_size=64", "model.num_attention_heads=4",
        "model.num_key_value_heads=4", "model.intermediate_size=128", "model.num_layers=4", "model.vocab_size=256",
        "training.seq_len=32", 'training.precision="fp32"')
SAVED, END, KILLED = 4, 8, 6


class Machine:
    """What all parts share: how a job is started here."""

    def __init__(self, launcher, cpu):
        self.launcher, self.cpu = launcher, cpu
        text = (harness.ROOT / "docs/examples/llama-8b.toml").read_text()
        four = 'devices = "cpu"\nranks_per_node = 4' if cpu else "gpus_per_node = 4"
        self.job = launcher.job(text.replace("gpus_per_node = 2", four))

    def run(self, name, more=(), small=False, arguments=()):
        tensor, pipeline, data = LAYOUTS[name]
        sets = [f"parallel.tensor={tensor}", f"parallel.pipeline={pipeline}",
                f"parallel.sequence_parallel={str(tensor > 1).lower()}"]
        sets += TINY if self.cpu else SMALL if small else ()
        if data == 4 and not self.cpu and not small:
            sets += gpu.RECOMPUTE   # parameters and gradients are whole on each GPU
        words = [word for key in (*sets, *more) for word in ("--set", key)]
        run = self.launcher.run(self.job, *words, *arguments, timeout=300)
        if run.exit_code != 0:
            for log in sorted(run.folder.glob("logs/rank-*.log")) if run.folder else []:
                print(f"--- {log.name}\n{log.read_text()[-1500:]}")
        return run.expect(0)


def steps(run):
    """The records of the training steps, by step; of a step done twice the later one."""
    return {r["step"]: r for r in run.lines("metrics.jsonl") if "loss" in r}


def difference(losses, reference):
    return max(abs(losses[s] - reference[s]) / abs(reference[s]) for s in losses)


def loss_of(run):
    return {step: record["loss"] for step, record in steps(run).items()}


def layouts(machine, count):
    """The table of costs, and the losses against the first layout's beside what another seed makes of them."""
    print("| layout | tokens/s a GPU | MFU | peak GiB | bubble | in theory | loss, last step | off | seconds in all |")
    print("|---|---|---|---|---|---|---|---|---|")
    reference = None
    for name, (_, pipeline, data) in LAYOUTS.items():
        run = machine.run(name, [f"training.steps={count}"])
        records = list(steps(run).values())[gpu.WARMUP_STEPS:]
        rate = statistics.median(r["tokens"] / r["seconds"] for r in records) / 4
        gib = max(run.report()["memory_bytes_max"].values()) / 2**30
        mfu = rate * gpu.flops_per_token("llama-8b", 8192) / gpu.PEAK_FLOPS
        bubbles = [r["pipeline_bubble"] for r in records if "pipeline_bubble" in r]
        harness.check(bool(bubbles) == (pipeline > 1), f"{name}: bubbles {bubbles}")
        theory = (pipeline - 1) / (GLOBAL_BATCH // data + pipeline - 1)
        losses = loss_of(run)
        reference = reference or losses
        print(f"| {name} | {rate:,.0f} | {'' if machine.cpu else f'{100 * mfu:.1f} %'} | {gib:.1f} | "
              + (f"{100 * statistics.median(bubbles):.1f} % | {100 * theory:.1f} % | " if bubbles else " | | ")
              + f"{losses[count]:.5f} | {difference(losses, reference):.1e} | {run.seconds:.0f} |", flush=True)
    first = next(iter(LAYOUTS))
    other = loss_of(machine.run(first, [f"training.steps={count}", "training.seed=4321"]))
    print(f"\noff: the largest relative difference of a step's loss from {first}; noise: another seed's losses are "
          f"{difference(other, reference):.1e} off", flush=True)


def checkpoints(machine):
    """Each layout's checkpoint goes on in the next one, beside the layout that wrote it and went on itself."""
    print("\n| checkpoint of | goes on as | largest relative difference of a loss |\n|---|---|---|")
    names = list(LAYOUTS)
    for name, other in zip(names, itertools.islice(itertools.cycle(names), 1, None)):
        saving = [f"training.steps={END}", f"checkpoint.interval={SAVED}", "checkpoint.keep=0"]
        whole = machine.run(name, saving, small=True)
        saved = whole.folder / f"checkpoints/step-{SAVED:08d}"
        loading = [f"training.steps={END}", f'checkpoint.load="{saved}"', "checkpoint.interval=0"]
        losses = loss_of(machine.run(other, loading, small=True))
        harness.check(sorted(losses) == list(range(SAVED + 1, END + 1)), f"{other} did steps {sorted(losses)}")
        off = difference(losses, loss_of(whole))
        harness.check(off < 5e-3, f"{other} does not go on where {name} was: {off}")
        print(f"| {name} | {other} | {off:.1e} |", flush=True)
        shutil.rmtree(whole.folder / "checkpoints")


def killed_rank(machine):
    """SIGKILL of a rank in the middle: who is named, when the next step is done, and the losses' bits."""
    name = "tensor 2 x data 2"
    exact = [f"training.steps={END}", "training.deterministic=true", f"checkpoint.interval={SAVED}"]
    undisturbed = machine.run(name, exact, small=True)
    run = machine.run(name, exact, small=True, arguments=["--kill-rank", f"2@{KILLED}"])
    harness.check(run.report()["restarts"] == 1, f"restarts: {run.report()['restarts']}")
    harness.check(run.losses() == undisturbed.losses(), "losses differ from an undisturbed run's")
    records = [r for r in run.lines("metrics.jsonl") if "loss" in r]
    killed = next(r["time"] for r in records if r["attempt"] == 1 and r["step"] == KILLED)
    back = next(r["time"] for r in records if r["attempt"] == 2)
    cause = next(line for line in (run.errors + run.output).splitlines() if "first cause" in line)
    print(f"\nkilled rank ({name}): {cause}; next step done {back - killed:.1f} s later; all {len(run.losses())} "
          "losses have the bits of an undisturbed run", flush=True)


def topology(machine, record):
    """What discovery sees beside what NCCL writes of the same host."""
    folder = pathlib.Path(record or machine.launcher.work / "live").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    dump, graph = folder / "nccl_dump.xml", folder / "nccl_graph.xml"
    machine.run("tensor 4 + sequence parallel", ["training.steps=1", f'job.env.NCCL_TOPO_DUMP_FILE="{dump}"',
                                               f'job.env.NCCL_GRAPH_DUMP_FILE="{graph}"'], small=True)
    ours = machine.launcher.command("topo", "--json").expect(0).output
    (folder / "topo.json").write_text(ours)
    theirs = machine.launcher.command("topo", "--json", "--input", dump).expect(0).output
    ours, theirs = (json.loads(text)["nodes"][0] for text in (ours, theirs))
    seen = [{card["bus_id"]: card["numa"] for card in node["gpus"]} for node in (ours, theirs)]
    harness.check(seen[0] == seen[1], f"GPUs by bus id and NUMA node: {seen[0]}, NCCL has {seen[1]}")
    classes = [{(path["from"], path["to"]): path["class"] for path in node["paths"]["gpu_gpu"]}
               for node in (ours, theirs)]
    harness.check(classes[0] == classes[1], f"path classes {classes[0]}, NCCL's file has {classes[1]}")
    print(f"\ntopology: {len(seen[0])} GPUs, bus ids, NUMA nodes and {len(classes[0])} path classes as in NCCL's dump "
          f"({folder if record else 'kept with --record FOLDER'})", flush=True)


def bench(launcher, arguments):
    if not arguments.cpu and gpu.gpu_count() < 4:
        print(f"this machine has {gpu.gpu_count()} GPUs and 4 are needed (--cpu tries the script without)")
        return 1
    machine = Machine(launcher, arguments.cpu)
    layouts(machine, arguments.steps)
    checkpoints(machine)
    killed_rank(machine)
    if not arguments.cpu:
        topology(machine, arguments.record)
    return 0


def arguments(parser):
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--record", help="folder to keep the topology files in")
    parser.add_argument("--cpu", action="store_true", help="four CPU ranks and a tiny model")


if __name__ == "__main__":
    harness.main(bench, __doc__, arguments)
