"""Builds the images pytorch-2.5.0 and megatron-deepspeed for CPUs with Apptainer, one on top of the other, and runs in
them what they are for: Megatron-DeepSpeed's ten iterations, LoRA by peft and preference tuning by trl give the losses
of plain torchrun when mdslaunch starts them; text is generated with the adapters; every example job runs, cut down to a
size that a CPU trains in seconds. Last, the trainer and its CUDA plug-in are built with the image's CUDA and
PyTorch (pinned_cuda.py).

    megatron.py [--build FOLDER] [--images FOLDER]

--images takes the two root folders from a folder where they are there, and leaves them there where they are not.
"""
import json
import pathlib
import re
import subprocess
import sys
import time
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import apptainer  # noqa: E402
import image_builds  # noqa: E402
import pinned_cuda  # noqa: E402

sys.path.insert(0, str(harness.ROOT / "tests/payload"))
import megatron_deepspeed  # noqa: E402

EXAMPLES = harness.ROOT / "container/examples"
INSIDE = "/usr/local/share/mds/examples"
TEXT = "/usr/share/common-licenses/GPL-2"
ENVIRONMENT = {**megatron_deepspeed.ENVIRONMENT, "OMP_NUM_THREADS": "1"}
LOSS = r"^loss (\d+) (.*)$"
JOB = """
[job]
name = "{name}"
devices = "cpu"
nodes = {nodes}
ranks_per_node = {ranks_per_node}
[container]
runtime = "apptainer"
image = "{image}"
binds = ["{work}:/data"]
inherit = ["LAUNCH_TEST_MARK"]
env = {{ {env} }}
working_dir = "/data"
[payload]
command = {command}
[restart]
max_restarts = 0
"""
# What is small instead of large in the example jobs, by option; what CPUs cannot do is switched off.
SMALL = {"--num-layers": "2", "--hidden-size": "64", "--ffn-hidden-size": "128", "--num-attention-heads": "4",
         "--seq-length": "64", "--max-position-embeddings": "64",
         "--micro-batch-size": "2", "--global-batch-size": "8", "--train-iters": "3", "--eval-iters": "1",
         "--data-path": "/data/data_text_document", "--vocab-file": "/data/vocab.json",
         "--merge-file": "/data/merges.txt", "--split": "90,5,5"}
# DeepSpeed's recomputation wants streams of a GPU.
GPUS_ALONE = {"--deepspeed-activation-checkpointing", "--checkpoint-activations"}
ON_CPUS = ["--distributed-backend", "gloo", "--no-masked-softmax-fusion", "--no-gradient-accumulation-fusion",
           "--no-bias-gelu-fusion", "--no-bias-dropout-fusion", "--no-async-tensor-model-parallel-allreduce"]


class Image:
    """The built root folder, and programs in it without mdslaunch."""

    def __init__(self, program, folder, launcher):
        self.program, self.folder, self.launcher = program, folder, launcher
        self.work = launcher.work / "data"
        self.work.mkdir()
        self.path = {"PATH": f"{program.parent}:{launcher.environment()['PATH']}"}

    def run(self, *command, check=True):
        env = [word for name, value in ENVIRONMENT.items() for word in ("--env", f"{name}={value}")]
        run = subprocess.run([self.program, "exec", "--userns", "--cleanenv", "--no-home", "--bind",
                              f"{self.work}:/data", "--pwd", "/data", *env, self.folder, *command], text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400)
        harness.check(not check or run.returncode == 0, f"{command}:\n{run.stdout[-5000:]}")
        return run.stdout

    def torchrun(self, *command):
        return self.run("python3", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                        "--no-python", *command)

    def mdslaunch(self, name, command, nodes=1, ranks_per_node=2):
        """All that rank 0 and the last rank said; Megatron-DeepSpeed prints losses on the last."""
        text = JOB.format(name=name, nodes=nodes, ranks_per_node=ranks_per_node, image=self.folder, work=self.work,
                          command=json.dumps(command),
                          env=", ".join(f"{key} = {json.dumps(value)}" for key, value in ENVIRONMENT.items()))
        run = self.launcher.run(self.launcher.job(text, f"{name}.toml"), timeout=400, extra=self.path)
        logs = {run.log(rank) for rank in (0, nodes * ranks_per_node - 1)} if run.folder else set()
        harness.check(run.exit_code == 0, f"{name}: {run.everything()}\n{''.join(logs)[-5000:]}")
        print(f"{name}: {run.seconds:.1f} s", flush=True)
        return "".join(logs)


def built(launcher, arguments, program):
    """The folder of the image for CPUs: Debian itself is the toolkit, so that there is no nvcc."""
    work = pathlib.Path(arguments.images or launcher.work)
    work.mkdir(exist_ok=True)
    if (work / "megatron-deepspeed").exists():
        return work / "megatron-deepspeed"
    source = megatron_deepspeed.find_source()
    base = image_builds.debian_base(launcher.work)
    offline = image_builds.offline_folder(launcher.work, launcher, ["cpu", "pytorch-2.5.0", "megatron-deepspeed"],
                                          megatron=source)
    builder = image_builds.Apptainer(program, work)
    local = {"bootstrap": "localimage", "base": base, "offline": offline}
    below = work / "pytorch-2.5.0"
    if not below.exists():
        builder.build("pytorch-2.5.0", sandbox=True, toolkit=base, **local)
    return builder.build("megatron-deepspeed", sandbox=True, image=below, **local)


def same_losses(name, pattern, image, command):
    """Under torchrun in the image, and under mdslaunch with the image; the losses."""
    expected = re.findall(pattern, image.torchrun(*command), re.MULTILINE)
    found = re.findall(pattern, image.mdslaunch(name, command), re.MULTILINE)
    harness.check(len(expected) >= 5, f"{name}: torchrun gave {expected}")
    harness.check(found == expected, f"{name}: mdslaunch gave {found}, torchrun {expected}")
    print(f"{name}: {len(found)} losses equal to those of torchrun, {found[0][1]} to {found[-1][1]}", flush=True)
    return [float(loss.split()[0]) for _, loss in found]


def make_data(image):
    megatron_deepspeed.write_inputs(image.work)
    image.run("megatron", "tools/preprocess_data.py", "--input", "text.jsonl", "--output-prefix", "data",
              "--vocab-file", "vocab.json", "--merge-file", "merges.txt", "--tokenizer-type", "GPT2BPETokenizer",
              "--append-eod", "--dataset-impl", "mmap", "--workers", "1")


def small_command(path):
    """(command, tensor x pipeline) of an example job at a size for CPUs; its DeepSpeed configuration follows."""
    words = tomllib.loads(path.read_text())["payload"]["command"]
    ways = {name: 2 if int(words[words.index(name) + 1]) > 1 else 1
            for name in ("--tensor-model-parallel-size", "--pipeline-model-parallel-size")}
    small = SMALL | {name: str(value) for name, value in ways.items()}
    more = list(ON_CPUS)
    if ways["--pipeline-model-parallel-size"] > 1:
        small["--num-layers"] = "5"     # as 70 layers in 12 stages: they do not divide
        more += ["--normalization", "rmsnorm"]  # its LayerNorm for CPUs does not know sequence_parallel
    config = words[words.index("--deepspeed_config") + 1].removeprefix(INSIDE + "/")
    small |= {"--deepspeed_config": f"/data/{config}", "--save": f"/data/{path.stem}", "--load": f"/data/{path.stem}"}
    for index in range(len(words) - 1):
        if words[index] in small:
            words[index + 1] = small[words[index]]
    ranks = ways["--tensor-model-parallel-size"] * ways["--pipeline-model-parallel-size"]
    return [word for word in words if word not in GPUS_ALONE] + more, config, ranks


def example_runs(image, path):
    command, config, ranks = small_command(path)
    wanted = json.loads((EXAMPLES / config).read_text())
    wanted |= {"train_batch_size": 8, "train_micro_batch_size_per_gpu": 2}
    (image.work / config).write_text(json.dumps(wanted))
    nodes = 2 if "slurm" in path.stem else 1
    output = image.mdslaunch(path.stem, command, nodes=nodes, ranks_per_node=max(1, ranks // nodes))
    losses = re.findall(r"iteration +(\d+)/.*lm loss: (\S+)", output)
    harness.check(len(losses) == 3 and all(float(loss) < 7 for _, loss in losses), f"{path.name}: {losses}\n"
                  f"{output[-4000:]}")


def frameworks(image):
    """Each under torchrun and under mdslaunch, with equal losses."""
    same_losses("megatron-deepspeed", megatron_deepspeed.LOSS_LINE, image,
                ["megatron", "pretrain_gpt.py", *megatron_deepspeed.ARGUMENTS])
    lora = same_losses("lora", LOSS, image, ["python3", f"{INSIDE}/lora.py", "--text", TEXT, "--steps", "20",
                                             "--output", "/data/adapters"])
    harness.check(lora[-1] < lora[0], f"the adapters learned nothing: {lora}")
    same_losses("dpo", LOSS, image, ["python3", f"{INSIDE}/dpo.py", "--steps", "10", "--output", "/data/tuned"])
    prompts = ["Once upon a time", "The licence says that"]
    texts = image.mdslaunch("generate", ["python3", f"{INSIDE}/generate.py", "--adapters", "/data/adapters",
                                         "--tokens", "16", *prompts])
    for prompt in prompts:
        harness.check(f"'{prompt}' -> " in texts, f"no text for '{prompt}': {texts}")


def test(launcher, arguments):
    if lacking := image_builds.missing("mmdebstrap", "patchelf"):
        return harness.skip(f"not installed: {', '.join(lacking)} (.ci/setup test)")
    if not arguments.images and not megatron_deepspeed.find_source():
        return harness.skip("no source of Megatron-DeepSpeed (MDS_MEGATRON_SOURCE)")
    program, problem = apptainer.find()
    if not program:
        return harness.skip(problem)
    begin = time.monotonic()
    image = Image(program, built(launcher, arguments, program), launcher)
    make_data(image)
    if arguments.examples == "*.toml":
        frameworks(image)
    for path in sorted(EXAMPLES.glob(arguments.examples)):
        if "megatron" in tomllib.loads(path.read_text())["payload"]["command"]:
            example_runs(image, path)
    if arguments.examples == "*.toml":
        pinned_cuda.check(launcher, next(image.folder.glob("usr/local/lib/python3*/dist-packages")).resolve())
    print(f"megatron: all in {time.monotonic() - begin:.0f} s")
    return 0


def add_arguments(parser):
    parser.add_argument("--images")
    parser.add_argument("--examples", default="*.toml", help="only these example jobs")


if __name__ == "__main__":
    harness.main(test, __doc__, add_arguments)
