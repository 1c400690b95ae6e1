// Real containers with every runtime that this machine has, in a root folder made of this machine's own files.
#include "container/session.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "container/runtimes.hpp"
#include "tests/catch.hpp"

namespace fs = std::filesystem;
using namespace mds::container;

namespace {

/// A root folder with a shell, cat and what they link: enough of an image, in a moment and without a network.
class SmallImage {
 public:
  SmallImage() {
    char name[] = "/tmp/mds-image-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    root_ = name;
    REQUIRE(chmod(name, 0755) == 0);
    for (const char* folder : {"bin", "dev", "proc", "sys", "tmp", "mnt", "etc", "root", "run", "var/tmp", "usr/bin"}) {
      fs::create_directories(root_ / folder);
    }
    for (const char* file : {"etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf", "etc/localtime"}) {
      std::ofstream(root_ / file) << "";
    }
    for (const char* program : {"sh", "cat", "true", "env", "sleep"}) add_program("/bin/" + std::string(program));
    std::ofstream(root_ / "etc/mark") << "inside\n";
  }
  ~SmallImage() { fs::remove_all(root_); }
  const fs::path& root() const { return root_; }

 private:
  void add_program(const std::string& path) {
    fs::copy_file(path, root_ / path.substr(1), fs::copy_options::overwrite_existing);
    FILE* lines = popen(("ldd " + path).c_str(), "r");
    char line[512];
    while (std::fgets(line, sizeof line, lines)) {
      const std::string text(line);
      const size_t begin = text.find('/');
      if (begin == std::string::npos) continue;
      const std::string library = text.substr(begin, text.find(' ', begin) - begin);
      fs::create_directories((root_ / library.substr(1)).parent_path());
      fs::copy_file(library, root_ / library.substr(1), fs::copy_options::overwrite_existing);
    }
    pclose(lines);
  }
  fs::path root_;
};

/// Runs a program inside as the agent does: fork, enter, exec. Its output.
std::string run_inside(const Session& session, const std::string& script) {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], 1);
    if (const int problem = enter(session.entrance())) _exit(problem);
    execl("/bin/sh", "sh", "-c", script.c_str(), nullptr);
    _exit(127);
  }
  close(ends[1]);
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) out.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  return out;
}

}  // namespace

TEST_CASE("A forked process enters the container of every runtime that is here", "[container][session]") {
  const SmallImage image;
  const fs::path shared = image.root() / "mnt";  // some runtimes need the mount point to exist
  char outside[] = "/tmp/mds-bind-XXXXXX";
  REQUIRE(mkdtemp(outside) != nullptr);
  std::ofstream(fs::path(outside) / "hello") << "from outside\n";

  size_t tried = 0;
  for (const Runtime runtime :
       {Runtime::apptainer, Runtime::podman, Runtime::charliecloud, Runtime::enroot, Runtime::bubblewrap}) {
    if (!find_runtime(runtime, "x")) continue;
    if (runtime == Runtime::enroot) continue;  // takes squashfs files only
    ++tried;
    Container container;
    container.runtime = runtime;
    container.image = image.root();
    container.binds = {{outside, "/mnt", false}};
    container.env = {{"GREETING", "hello there"}};
    REQUIRE(check(container, {}).ok());
    INFO("runtime " << to_string(runtime));
    setenv("MDS_LEAK", "leaked", 1);
    auto session = start_container(container, "mds-test-" + std::to_string(getpid()), std::chrono::seconds(20));
    unsetenv("MDS_LEAK");
    INFO((session ? std::string() : session.error().message));
    REQUIRE(session.ok());
    CHECK(run_inside(*session, "cat /etc/mark /mnt/hello") == "inside\nfrom outside\n");
    CHECK(run_inside(*session, "echo written > /mnt/file-" + std::string(to_string(runtime))).empty());
    CHECK(fs::exists(fs::path(outside) / ("file-" + std::string(to_string(runtime)))));
    CHECK(session->environment().at("GREETING") == "hello there");
    CHECK(session->environment().count("MDS_LEAK") == 0);
    CHECK(session->environment().count("PATH") == 1);
    CHECK(session->environment().count("HOME") == 1);
    CHECK(run_inside(*session, "echo x > /tmp/x && cat /tmp/x") == "x\n");
    // Nothing of the image can be changed.
    CHECK(run_inside(*session, "if echo x > /etc/mark; then echo writable; else echo refused; fi 2>/dev/null") ==
          "refused\n");
    const pid_t runtime_pid = session->runtime_pid();
    session->close(std::chrono::seconds(5));
    CHECK(kill(runtime_pid, 0) != 0);
  }
  fs::remove_all(outside);
  CHECK(tried > 0);
}

TEST_CASE("What is no container is refused with the runtime's own words", "[container][session]") {
  char folder[] = "/tmp/mds-empty-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  Container container;
  container.runtime = Runtime::automatic;
  container.image = folder;
  const auto session = start_container(container, "mds-none", std::chrono::seconds(5));
  fs::remove_all(folder);
  REQUIRE_FALSE(session.ok());
  CHECK(session.error().code == mds::ErrorCode::unavailable);
  CHECK(session.error().message.size() > 20);
}
