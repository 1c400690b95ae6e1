// What a job needs on nodes that share no files with the launcher's machine, and what it is called there.
#include "launcher/stage_plan.hpp"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "container/sha256.hpp"
#include "launcher/plan_container.hpp"
#include "tests/agent/temporary_folder.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
using mds::agent::StageEntry;
namespace fs = std::filesystem;

namespace {

void write(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path) << text;
}

/// A file that is here, and no part of the system: this test.
std::string program() { return fs::read_symlink("/proc/self/exe").string(); }

/// A payload job in a folder of its own.
struct Sample {
  Sample() {
    home = fs::canonical(folder.path()).string();
    for (const char* name : {"/train.py", "/lib/model.py", "/config.json", "/runs/run-1/x"}) write(home + name, name);
    job.stage = {true, {home + "/lib"}, "/var/tmp/stage", false};
    job.payload = {"python3", "train.py", "--config=" + home + "/config.json", "--out", "/usr/share", "lib", "1"};
    inputs.working_dir = home;
    inputs.run_folder = home + "/runs/run-1";
    inputs.run_id = "run-1";
  }
  StagePlan plan() const {
    auto made = plan_stage(job, inputs, "/nowhere/bin/mdsagent");
    REQUIRE(made.ok());
    return *made;
  }

  TemporaryFolder folder;
  std::string home;
  Job job;
  PlanInputs inputs;
};

const StageEntry* find(const std::vector<StageEntry>& entries, const std::string& path) {
  for (const StageEntry& entry : entries) {
    if (entry.path == path) return &entry;
  }
  return nullptr;
}

}  // namespace

TEST_CASE("files that a command names are staged, folders and the system's own only if listed", "[stage]") {
  const Sample sample;
  const auto entries = list_files(sample.plan().sources);
  REQUIRE(entries.ok());
  for (const char* name : {"/train.py", "/config.json", "/lib/model.py"}) {
    INFO(name);
    const StageEntry* entry = find(*entries, sample.home + name);
    REQUIRE(entry);
    CHECK(entry->sha256 == mds::container::sha256_of(name));
    CHECK(entry->bytes == std::string(name).size());
  }
  CHECK_FALSE(find(*entries, "/usr/share"));
  CHECK_FALSE(find(*entries, sample.home + "/runs/run-1/x"));
}

TEST_CASE("ranks get paths as they are on the nodes, and nothing else is changed", "[stage]") {
  const Sample sample;
  for (const bool shares : {true, false}) {
    StagePlan stage = sample.plan();
    stage.shares_run_folder = shares;
    LaunchPlan plan;
    plan.nodes.push_back({0, "n1", {mds::agent::RankSpec{}}});
    mds::agent::RankSpec& rank = plan.nodes[0].ranks[0];
    rank.argv = sample.job.payload;
    rank.env = {{"MDS_RUN_FOLDER", sample.inputs.run_folder}, {"HOME", "/root"}};
    rank.env["DATA"] = sample.home + "/lib/model.py";
    rank.log_path = sample.inputs.run_folder + "/logs/rank-00000.log";
    move_to_nodes(stage, plan);
    const std::string root = "/var/tmp/stage/runs/run-1/root";
    const std::string config = "--config=" + root + sample.home + "/config.json";
    CHECK(rank.argv == std::vector<std::string>{"python3", "train.py", config, "--out", "/usr/share", "lib", "1"});
    CHECK(rank.working_dir == root + sample.home);
    CHECK(rank.env.at("DATA") == root + sample.home + "/lib/model.py");
    CHECK(rank.env.at("HOME") == "/root");
    CHECK(rank.env.at("MDS_STAGED") == root);
    CHECK(rank.env.at("MDS_RUN_FOLDER") == (shares ? "" : root) + sample.inputs.run_folder);
    CHECK(rank.log_path.empty() == !shares);
    CHECK_FALSE(rank.env.count("LD_LIBRARY_PATH"));
  }
}

TEST_CASE("in a container absolute paths are the image's, unless they are staged", "[stage]") {
  Sample sample;
  sample.job.payload = {"/bin/sh", "train.py", "--config=" + sample.home + "/config.json", "/etc/../" + program()};
  sample.job.container.runtime = mds::container::Runtime::bubblewrap;
  sample.job.container.image = sample.home + "/image.sif";
  sample.job.container.sha256 = std::string(64, 'a');
  sample.job.container.binds = {{sample.home + "/lib", "/mnt/lib", true}, {"/scratch", "/mnt/scratch", false}};
  sample.job.container.env = {{"MODEL", sample.home + "/lib/model.py"}, {"HOME", "/tmp"}};
  StagePlan stage = sample.plan();
  const auto entries = list_files(stage.sources);
  REQUIRE(entries.ok());
  CHECK(find(*entries, sample.home + "/train.py"));
  CHECK(find(*entries, sample.home + "/config.json"));
  CHECK_FALSE(find(*entries, program()));
  CHECK(stage.on_node(sample.home + "/lib/x") == "/tmp/mds-staged" + sample.home + "/lib/x");
  CHECK(stage.on_node("/opt/x") == "/opt/x");
  for (const bool shares : {true, false}) {
    stage.shares_run_folder = shares;
    const auto made = job_container(sample.job, sample.inputs.run_folder, &stage);
    if (!made) FAIL(made.error().message);
    const std::string root = "/var/tmp/stage/runs/run-1/root";
    CHECK(made->image == "/var/tmp/stage/images/" + std::string(64, 'a'));
    CHECK(made->working_dir == "/tmp/mds-staged" + sample.home);
    CHECK(made->env.at("MODEL") == "/tmp/mds-staged" + sample.home + "/lib/model.py");
    CHECK(made->env.at("HOME") == "/tmp");
    std::vector<mds::container::Bind> binds = {{root + sample.home + "/lib", "/mnt/lib", true},
                                               {"/scratch", "/mnt/scratch", false},
                                               {root, "/tmp/mds-staged", false}};
    if (shares) binds.push_back({sample.inputs.run_folder, sample.inputs.run_folder, false});
    CHECK(made->binds == binds);
  }
}

TEST_CASE("an image is staged by the digest that the job file demands, or by its own", "[stage]") {
  Sample sample;
  mds::container::Container& container = sample.job.container;
  CHECK(list_image(container)->empty());
  container.runtime = mds::container::Runtime::charliecloud;
  container.image = sample.home + "/image.sqfs";
  write(container.image, "hsqs and more");
  const auto own = list_image(container);
  REQUIRE((own.ok() && own->size() == 1));
  CHECK(own->front().kind == StageEntry::Kind::image);
  CHECK(own->front().sha256 == mds::container::sha256_of("hsqs and more"));
  const auto back = mds::agent::stage_list_from_text(to_text(*own));
  REQUIRE((back.ok() && back->size() == 1));
  CHECK(back->front().kind == StageEntry::Kind::image);
  container.sha256 = std::string(64, 'b');
  const auto other = list_image(container);
  REQUIRE_FALSE(other.ok());
  CHECK(other.error().message.find(own->front().sha256) != std::string::npos);
  CHECK(other.error().message.find(container.sha256) != std::string::npos);
  container.runtime = mds::container::Runtime::podman;  // no squashfs
  CHECK_FALSE(list_image(container).ok());
}

TEST_CASE("a working folder can be staged as a whole, without the runs in it", "[stage]") {
  Sample sample;
  sample.job.stage.files = {sample.home};
  StagePlan stage = sample.plan();
  const auto entries = list_files(stage.sources, sample.home + "/runs");
  REQUIRE(entries.ok());
  CHECK(find(*entries, sample.home + "/lib/model.py"));
  CHECK_FALSE(find(*entries, sample.home + "/runs/run-1/x"));
  CHECK(stage.on_node(sample.inputs.run_folder + "/x") == sample.inputs.run_folder + "/x");  // all nodes see it
  CHECK(stage.on_node(sample.home + "/train.py") == stage.root + sample.home + "/train.py");
}

TEST_CASE("links remain links inside their folder, and are followed out of it", "[stage]") {
  const Sample sample;
  write(sample.home + "/outside.txt", "outside");
  fs::create_symlink("model.py", sample.home + "/lib/same.py");
  fs::create_symlink("../outside.txt", sample.home + "/lib/out.txt");
  fs::create_symlink(sample.home + "/lib/model.py", sample.home + "/lib/absolute.py");
  fs::create_directory(sample.home + "/lib/empty");
  REQUIRE(mkfifo((sample.home + "/lib/pipe").c_str(), 0600) == 0);
  const auto entries = list_files(sample.plan().sources);
  REQUIRE(entries.ok());
  const auto kind = [&](const char* name) { return find(*entries, sample.home + "/lib/" + name)->kind; };
  CHECK(kind("same.py") == StageEntry::Kind::link);
  CHECK(kind("out.txt") == StageEntry::Kind::file);
  CHECK(kind("absolute.py") == StageEntry::Kind::file);
  CHECK(kind("empty") == StageEntry::Kind::folder);
  CHECK_FALSE(find(*entries, sample.home + "/lib/pipe"));
  const auto back = mds::agent::stage_list_from_text(to_text(*entries));
  REQUIRE(back.ok());
  CHECK(back->size() == entries->size());

  fs::create_directory_symlink("/usr/share/doc", sample.home + "/lib/doc");
  const auto refused = list_files(sample.plan().sources);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message.find("/usr/share/doc") != std::string::npos);
}
