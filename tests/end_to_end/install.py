"""What `cmake --install` puts into a package: programs that run from there, man pages, completions, examples."""
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402

JOB = """
[job]
name = "installed"
devices = "cpu"
nodes = 2
ranks_per_node = 2
[payload]
command = ["true"]
"""
WANTED = ["bin/mdslaunch", "bin/mdsagent", "share/man/man1/mdslaunch.1", "share/man/man1/mdsagent.1",
          "share/bash-completion/completions/mdslaunch",
          "share/zsh/site-functions/_mdslaunch", "share/fish/vendor_completions.d/mdslaunch.fish",
          "share/doc/mds/examples/quickstart.toml"]


def test(launcher, arguments):
    prefix = launcher.work / "usr"
    installed = subprocess.run(["cmake", "--install", arguments.build, "--prefix", str(prefix)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    harness.check(installed.returncode == 0, installed.stdout)
    missing = [name for name in WANTED if not (prefix / name).is_file() or not (prefix / name).stat().st_size]
    harness.check(not missing, f"not installed: {missing}; installed:\n{installed.stdout}")

    ours = harness.Launcher(arguments.build, launcher.work)
    ours.program = prefix / "bin/mdslaunch"
    harness.check("0." in ours.command("--version").expect(0).output, "no version")
    ours.run(ours.job(JOB)).expect(0)
    if (prefix / "bin/mdstrain").exists():
        run = ours.run(ours.job(harness.small_job(tensor=2, steps=2))).expect(0)
        harness.check(len(run.losses()) == 2, f"installed mdstrain: {run.everything()}")


if __name__ == "__main__":
    harness.main(test, __doc__)
