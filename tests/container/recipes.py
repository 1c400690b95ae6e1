"""The images' recipes hold what container/lint.py demands, and it would notice if they did not: each fault below is put
into a copy and must be named. Every example job of container/examples is valid and can be placed on the machines that
it is meant for.
"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

FOLDER = harness.ROOT / "container"
sys.path.insert(0, str(FOLDER))
import lint  # noqa: E402

DIGEST = "@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171"
# (what is put in place of what in megatron-deepspeed.def, words of the complaint)
FAULTS = (
    (DIGEST, ":latest", "not pinned"),
    ("Fingerprints: {{ fingerprints }}\n", "", "without Fingerprints"),
    ("%labels", "%setup\n  touch /etc/owned\n\n%labels", "%setup is not used here: it runs on the host"),
    ("%environment", "%appenv x", "the last stage has no %environment"),
    ("  mds-image-test", "  true", "does not run mds-image-test"),
    ("  export LC_ALL=C.UTF-8\n", "", "does not set LC_ALL"),
    ("  steps/finish.sh", "  pip install transformers", "belongs into steps/"),
    ("  steps/finish.sh", "  curl -O https://example.org/x", "belongs into steps/"),
    ("{{ image }}", "{{ picture }}", "{{ picture }} is no argument"),
    ("  cpu=x86-64-v3", "  cpu=x86-64-v3\n  spare=", "argument spare is used nowhere"),
    ("container/requirements-cpu.txt", "container/requirements-none.txt", "does not exist"),
)
PAIR_FAULTS = (
    ("    steps/megatron.sh && \\\n", "", "other steps"),
    ("LC_ALL=C.UTF-8", "LC_ALL=C", "other environments"),
    ("sha256:88200866", "sha256:98200866", "other bases"),
    ("cpu=x86-64-v3", "cpu=x86-64-v4", "argument cpu is"),
)
STEP_FAULTS = (
    ("apex-wheel/*.whl", "apex-wheel/*.whl\n  python3 -m pip install ninja", "without a sum"),
    ("MEGATRON_COMMIT=f4157be", "MEGATRON_COMMIT=main", "is no commit"),
    ("set -euo pipefail", "", "goes on after a command that failed"),
)
MACHINES = "dgx-h100 x48"


def must_complain(check, text, faults):
    harness.check(not list(check(text)), f"{check.__name__}: {list(check(text))}")
    for old, new, complaint in faults:
        harness.check(old in text, f"{old!r} is not there any more: mend this test")
        found = list(check(text.replace(old, new)))
        harness.check(any(complaint in problem for problem in found), f"{new!r} for {old!r} gives {found}, not "
                      f"'{complaint}'")


def the_linter_sees_faults():
    definition = (FOLDER / "megatron-deepspeed.def").read_text()
    containerfile = (FOLDER / "Containerfile.megatron-deepspeed").read_text()
    must_complain(lint.check_definition, definition, FAULTS)
    must_complain(lint.check_containerfile, containerfile, ((DIGEST, "", "not pinned"),
                                                            ("RUN mds-image-test", "", "the last line")))
    must_complain(lambda text: lint.check_pair(definition, text), containerfile, PAIR_FAULTS)
    must_complain(lint.check_step, (FOLDER / "steps/megatron.sh").read_text(), STEP_FAULTS)
    wanted = (FOLDER / "requirements-megatron-deepspeed.in").read_text()
    must_complain(lambda text: lint.check_requirements(wanted, text),
                  (FOLDER / "requirements-megatron-deepspeed.txt").read_text(),
                  (("trl==", "trl>=", "not pinned"), ("peft==0.14.0", "peft==0.13.0", "container/lock.py")))


def examples_are_jobs(launcher):
    examples = sorted((FOLDER / "examples").glob("*.toml"))
    harness.check(len(examples) >= 8, f"{len(examples)} examples")
    readme = (FOLDER / "README.md").read_text()
    for example in examples:
        launcher.command("check", example).expect(0)
        plan = json.loads(launcher.command("plan", "--json", "--topology", MACHINES, example).expect(0).output)
        harness.check(example.name in readme, f"{example.name} is not in container/README.md")
        words = example.read_text()
        config = next((word for word in words.split('"') if "/ds-" in word), None)
        if config:
            check_batches(example, words, FOLDER / "examples" / config.rsplit("/", 1)[1], plan["world_size"])
    return len(examples)


def check_batches(example, words, config, ranks):
    """DeepSpeed's configuration repeats the command line, and refuses to start where they differ."""
    wanted = json.loads(config.read_text())
    parts = [part for part in words.split('"')]
    after = {name: int(parts[parts.index(name) + 2]) for name in
             ("--micro-batch-size", "--global-batch-size", "--tensor-model-parallel-size",
              "--pipeline-model-parallel-size", "--zero-stage")}
    harness.check(after["--global-batch-size"] == wanted["train_batch_size"] and
                  after["--micro-batch-size"] == wanted["train_micro_batch_size_per_gpu"] and
                  after["--zero-stage"] == wanted["zero_optimization"]["stage"], f"{example.name} and {config.name}")
    layers = after["--tensor-model-parallel-size"] * after["--pipeline-model-parallel-size"]
    replicas = ranks // layers
    harness.check(ranks % layers == 0 and wanted["train_batch_size"] %
                  (replicas * wanted["train_micro_batch_size_per_gpu"]) == 0,
                  f"{example.name}: {ranks} ranks do not divide the batch")


def test(launcher, _arguments):
    found = list(lint.problems())
    harness.check(not found, "\n".join(f"container/{name}: {what}" for name, what in found))
    the_linter_sees_faults()
    count = examples_are_jobs(launcher)
    faults = len(FAULTS) + len(PAIR_FAULTS) + len(STEP_FAULTS) + 4
    print(f"recipes: no problem, {faults} planted faults found; {count} example jobs are valid")
    return 0


if __name__ == "__main__":
    harness.main(test, __doc__)
