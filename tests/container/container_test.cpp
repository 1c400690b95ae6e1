#include "container/container.hpp"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "container/command_line.hpp"
#include "tests/catch.hpp"

using namespace mds::container;

namespace {

const std::string kPodman = "/usr/bin/podman --root /dev/shm/mds-podman-7/root --runroot /dev/shm/mds-podman-7/run "
                            "--tmpdir /dev/shm/mds-podman-7/tmp --storage-driver vfs";

Container some(Runtime runtime) {
  Container container;
  container.runtime = runtime;
  container.image = "/images/training image.sif";
  container.binds = {{"/scratch", "/scratch", false}, {"/data/set, one", "/mnt/data", true}};
  container.working_dir = "/scratch";
  container.gpus = true;
  return container;
}

Host host(const std::string& program) {
  Host host;
  host.runtime_program = program;
  host.files_max = 4096;
  host.processes_max = 1000;
  host.name = "mds-job-n0";
  host.has_cdi = true;
  host.devices = {"/dev/infiniband"};
  host.store = "/dev/shm/mds-podman-7";
  return host;
}

std::string line_of(Runtime runtime, const std::string& program) {
  return shell_text(command_line(some(runtime), host(program), {"/bin/sh", "-c", "echo $$"}));
}

std::string problem_of(const Container& container) {
  const auto status = check(container, {"/runs/quickstart-1"});
  return status ? "" : status.error().message;
}

Container with_bind(Runtime runtime, const std::string& source, const std::string& target) {
  Container container;
  container.runtime = runtime;
  container.image = "/image";
  container.binds = {{source, target, false}};
  return container;
}

}  // namespace

TEST_CASE("A container becomes its runtime's argument list", "[container]") {
  CHECK(line_of(Runtime::apptainer, "/usr/bin/apptainer") ==
        "/usr/bin/apptainer --silent exec --userns --cleanenv --no-home --no-mount cwd,tmp,bind-paths --nv "
        "--scratch /tmp "
        "--mount type=bind,source=/scratch,destination=/scratch "
        "--mount 'type=bind,\"source=/data/set, one\",destination=/mnt/data,ro' --pwd /scratch "
        "'/images/training image.sif' /bin/sh -c 'echo $$'");
  CHECK(line_of(Runtime::podman, "/usr/bin/podman") ==
        kPodman + " run --interactive --rm --name mds-job-n0 --network=host --pid=host --ipc=host --uts=host "
        "--security-opt=label=disable --security-opt=seccomp=unconfined --log-driver=none --no-hosts "
        "--ulimit nofile=4096:4096 --ulimit nproc=1000:1000 --device nvidia.com/gpu=all --device /dev/infiniband "
        "--read-only --mount type=bind,source=/scratch,destination=/scratch "
        "--mount 'type=bind,\"source=/data/set, one\",destination=/mnt/data,ro=true' --workdir /scratch "
        "--rootfs '/images/training image.sif' /bin/sh -c 'echo $$'");
  CHECK(line_of(Runtime::charliecloud, "/usr/bin/ch-run") ==
        "/usr/bin/ch-run '--unset-env=*' "
        "--set-env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --set-env=HOME=/tmp --private-tmp "
        "--bind /scratch:/scratch --bind '/data/set, one:/mnt/data' --cd /scratch '/images/training image.sif' -- "
        "/bin/sh -c 'echo $$'");
  // enroot and Pyxis are not in Debian: this list is after enroot's manual, not after a run.
  CHECK(line_of(Runtime::enroot, "/usr/bin/enroot") ==
        "/usr/bin/enroot start --mount /scratch:/scratch:none:x-create=auto,rbind "
        "--mount '/data/set,\\040one:/mnt/data:none:x-create=auto,rbind,ro' '/images/training image.sif' "
        "/bin/sh -c 'echo $$'");
  CHECK(line_of(Runtime::bubblewrap, "/usr/bin/bwrap") ==
        "/usr/bin/bwrap --die-with-parent --clearenv --setenv PATH "
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --setenv HOME /tmp "
        "--ro-bind '/images/training image.sif' / --dev-bind /dev /dev --proc /proc --ro-bind /sys /sys --tmpfs /tmp "
        "--bind /scratch /scratch --ro-bind '/data/set, one' /mnt/data --chdir /scratch -- /bin/sh -c 'echo $$'");
  CHECK(shell_text(cleanup_command_line(some(Runtime::podman), host("/usr/bin/podman"))) ==
        kPodman + " rm --force --ignore --time 0 mds-job-n0");
  CHECK(cleanup_command_line(some(Runtime::apptainer), host("/usr/bin/apptainer")).empty());
}

TEST_CASE("Podman keeps its records where the job says", "[container]") {
  Container container = some(Runtime::podman);
  container.runtime_options = {"--root=/scratch/podman"};
  CHECK(shell_text(cleanup_command_line(container, host("podman"))) ==
        "podman --root=/scratch/podman rm --force --ignore --time 0 mds-job-n0");
}

TEST_CASE("Binds are read with their colons", "[container]") {
  CHECK(*bind_from_text("/data") == Bind{"/data", "/data", false});
  CHECK(*bind_from_text("/data:/mnt:ro") == Bind{"/data", "/mnt", true});
  CHECK(*bind_from_text("/a\\:b:/mnt") == Bind{"/a:b", "/mnt", false});
  for (const char* wrong : {"", ":/mnt", "/a:", "/a:/b:rx", "/a:/b:ro:x"}) {
    INFO(wrong);
    CHECK_FALSE(bind_from_text(wrong).ok());
  }
}

TEST_CASE("What a bind would hide is refused, with what to do", "[container][threats]") {
  for (const char* target : {"/", "/etc", "/usr", "/proc", "/sys", "/dev", "/bin", "/runs", "/runs/quickstart-1"}) {
    INFO(target);
    CHECK(problem_of(with_bind(Runtime::apptainer, "/elsewhere", target)).find("would hide") != std::string::npos);
  }
  for (const char* target : {"/etc/resolv.conf", "/usr/local/data", "/mnt", "/runs/other", "/run/user"}) {
    INFO(target);
    CHECK(problem_of(with_bind(Runtime::apptainer, "/elsewhere", target)).empty());
  }
  CHECK(problem_of(with_bind(Runtime::apptainer, "/runs/quickstart-1", "/runs/quickstart-1")).empty());
  CHECK(problem_of(with_bind(Runtime::apptainer, "/runs", "/runs")).empty());
}

TEST_CASE("Hostile names stay names", "[container][threats]") {
  const std::string odd = "/data/a b'c\"d,e=f";
  CHECK(problem_of(with_bind(Runtime::podman, odd, "/mnt")).empty());
  const auto line = command_line(with_bind(Runtime::podman, odd, "/mnt"), host("podman"), {"true"});
  const char* mount = "type=bind,\"source=/data/a b'c\"\"d,e=f\",destination=/mnt";
  CHECK(std::find(line.begin(), line.end(), mount) != line.end());
  for (const char* name : {"/a\nb", "/a\tb", "/a\x1b[2Jb"}) {
    const std::string problem = problem_of(with_bind(Runtime::podman, name, "/mnt"));
    CHECK(problem.find("control character") != std::string::npos);
    CHECK(problem.find_first_of("\n\x1b") == std::string::npos);
  }
  for (const char* name : {"relative", "/a/../b", "/a//b", "/a/.", "/a/"}) {
    INFO(name);
    CHECK(problem_of(with_bind(Runtime::podman, name, "/mnt")).find("absolute") != std::string::npos);
  }
  CHECK(problem_of(with_bind(Runtime::charliecloud, "/a:b", "/mnt")).find("':'") != std::string::npos);
  CHECK(problem_of(with_bind(Runtime::enroot, "/a,b", "/mnt")).find("','") != std::string::npos);
  CHECK(problem_of(with_bind(Runtime::apptainer, "/a:b,c", "/mnt")).empty());
  Container container = with_bind(Runtime::podman, "/a", "/mnt");
  container.binds.push_back({"/b", "/mnt", false});
  CHECK(problem_of(container).find("two binds") != std::string::npos);
  container = with_bind(Runtime::podman, "/a", "/mnt");
  container.image = "/images/x\ny";
  CHECK(problem_of(container).find("control character") != std::string::npos);
  container.image = "-v";
  CHECK(problem_of(container).find("absolute") != std::string::npos);
  container.image = "/image";
  container.sha256 = "abc";
  CHECK(problem_of(container).find("64") != std::string::npos);
}

TEST_CASE("A container travels as JSON", "[container]") {
  Container container = some(Runtime::charliecloud);
  container.sha256 = std::string(64, 'a');
  container.env = {{"A", "b c"}};
  container.inherit = {"WANDB_*"};
  container.runtime_options = {"--verbose"};
  container.read_only = false;
  CHECK(*container_from_json(to_json(container)) == container);
  auto broken = to_json(container);
  broken["binds"] = 3;
  CHECK_FALSE(container_from_json(broken).ok());
  broken = to_json(container);
  broken["runtime"] = "docker";
  CHECK_FALSE(container_from_json(broken).ok());
}
