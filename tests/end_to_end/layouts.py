"""Every layout of tensor, pipeline and data parallelism trains the same model: for each architecture, losses and
gradient norms agree with those of one rank; and a checkpoint of one layout goes on in another. With --gpus the layouts
that fit this machine's GPUs are compared with one CPU rank.
"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

# (tensor, pipeline, data, nodes, sequence_parallel)
LAYOUTS = [(1, 1, 1, 1, False), (2, 1, 1, 1, True), (4, 1, 1, 1, False), (1, 2, 1, 1, False), (1, 1, 2, 2, False),
           (2, 2, 1, 2, True), (2, 1, 2, 1, False), (1, 2, 2, 2, False), (2, 2, 2, 2, True)]
STEPS = 4
KEEP_ALL = ("--set", "checkpoint.interval=1", "--set", "checkpoint.keep=0")
TOLERANCE = 2e-5      # fp32 sums in another order, a few optimizer steps on
GPU_TOLERANCE = 2e-4  # and other kernels


def run(launcher, layout, architecture, *arguments, steps=STEPS, gpus=False, vocabulary=256):
    tensor, pipeline, data, nodes, sequence_parallel = layout
    text = harness.small_job(tensor, pipeline, data, nodes, architecture, steps=steps)
    if gpus:
        text = text.replace('devices = "cpu"\n', "").replace("ranks_per_node", "gpus_per_node")
    # 257 of 256 bytes: a vocabulary that no tile divides, which GPUs pad and CPUs do not.
    text = text.replace("vocab_size = 256", f"vocab_size = {vocabulary}")
    return launcher.run(launcher.job(text), "--set", f"parallel.sequence_parallel={str(sequence_parallel).lower()}",
                        *arguments).expect(0)


def agree(reference, other, what, tolerance=TOLERANCE):
    wanted, found = ({r["step"]: r for r in run.lines("metrics.jsonl") if "loss" in r} for run in (reference, other))
    harness.check(set(found) <= set(wanted) and found, f"{what}: steps {sorted(found)} against {sorted(wanted)}")
    worst = 0.0
    for step, record in found.items():
        for key in ("loss", "grad_norm"):
            error = abs(record[key] - wanted[step][key]) / abs(wanted[step][key])
            harness.check(error < tolerance, f"{what}: {key} of step {step} is {record[key]}, of one rank "
                          f"{wanted[step][key]} (relative difference {error:.1e})")
            worst = max(worst, error)
    print(f"{what}: agrees within {worst:.1e}")


def on_gpus(launcher):
    machine = json.loads(launcher.command("topo", "--json").expect(0).output)
    gpus = sum(len(node["gpus"]) for node in machine["nodes"])
    if gpus == 0:
        return harness.skip("no GPU here")
    for architecture in ("llama", "gpt3", "bloom"):
        # Devices draw other initial weights from the same seed: all go on from the CPU's first step.
        reference = run(launcher, LAYOUTS[0], architecture, *KEEP_ALL, vocabulary=257)
        first = ("--set", f"checkpoint.load={reference.folder / 'checkpoints/step-00000001'}")
        for tensor, pipeline, data, _, sequence_parallel in LAYOUTS:
            if tensor * pipeline * data <= gpus:
                layout = (tensor, pipeline, data, 1, sequence_parallel)
                name = "{} on GPUs, tensor {} pipeline {} data {} nodes {} sequence_parallel {}".format(
                    architecture, *layout)
                agree(reference, run(launcher, layout, architecture, *first, gpus=True, vocabulary=257), name,
                      GPU_TOLERANCE)
    return 0


def test(launcher, arguments):
    if arguments.gpus:
        return on_gpus(launcher)
    for architecture in ("llama", "gpt3", "bloom"):
        reference = run(launcher, LAYOUTS[0], architecture)
        first, last = (float.fromhex(reference.losses()[step]) for step in (1, STEPS))
        harness.check(last < first, f"{architecture} does not learn: loss {first} at step 1, {last} at {STEPS}")
        for layout in LAYOUTS[1:]:
            name = "{} tensor {} pipeline {} data {} nodes {} sequence_parallel {}".format(architecture, *layout)
            agree(reference, run(launcher, layout, architecture), name)
    other_layout_resumes(launcher)
    return 0


def other_layout_resumes(launcher):
    undisturbed = run(launcher, LAYOUTS[0], "llama", steps=2 * STEPS)
    begun = run(launcher, LAYOUTS[5], "llama", "--set", f"checkpoint.interval={STEPS}", "--set", "checkpoint.keep=0",
                steps=2 * STEPS)
    checkpoint = begun.folder / f"checkpoints/step-{STEPS:08d}"
    resumed = run(launcher, LAYOUTS[6], "llama", "--set", f"checkpoint.load={checkpoint}", steps=2 * STEPS)
    harness.check(min(resumed.losses()) == STEPS + 1, f"resumed at step {min(resumed.losses())}")
    agree(undisturbed, resumed, "checkpoint of tensor 2 pipeline 2 goes on as tensor 2 data 2")


if __name__ == "__main__":
    harness.main(test, __doc__, lambda parser: parser.add_argument(
        "--gpus", action="store_true", help="compare layouts on this machine's GPUs with one CPU rank"))
