#include "launcher/run.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include <nlohmann/json.hpp>

#include "launcher/head.hpp"
#include "launcher/head_subreaper.hpp"
#include "launcher/plan.hpp"
#include "launcher/plan_cluster.hpp"
#include "launcher/plan_environment.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/run_record.hpp"
#include "launcher/view.hpp"
#include "topology/placement.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

constexpr const char* kLocalAddress = "127.0.0.1";

int fail(const Error& error, int exit_code) {
  std::fprintf(stderr, "mdslaunch: %s\n", error.message.c_str());
  return exit_code;
}

int exit_code_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::infeasible: return kExitInfeasible;
    case ErrorCode::internal: return kExitFailed;
    default: return kExitBadInput;
  }
}

// --- what the run is made of ----------------------------------------------------------------------------------------

/// A rank's program and the machines: all that must be known before anything is written or started.
struct Prepared {
  RunFolder folder;
  std::string agent_program;
  topology::Cluster cluster;
  LaunchPlan plan;
};

std::string random_id() {
  std::random_device random;
  char text[16];
  std::snprintf(text, sizeof text, "%06x", random() & 0xffffffu);
  return text;
}

Result<std::string> program(const std::string& given, const std::string& name) {
  return given.empty() ? program_beside_us(name) : Result<std::string>(given);
}

Result<Prepared> prepare(const Job& job, const RunOptions& options) {
  Result<std::string> agent_program = program(options.agent_program, "mdsagent");
  if (!agent_program) return agent_program.error();
  PlanInputs inputs;
  if (job.payload.empty()) {
    Result<std::string> trainer_program = program(options.trainer_program, "mdstrain");
    if (!trainer_program) return trainer_program.error();
    inputs.trainer_program = *trainer_program;
  }
  Result<topology::Cluster> cluster = job_cluster(job);
  if (!cluster) return cluster.error();
  RunFolder folder = RunFolder::named(job.output_dir, job.name, std::time(nullptr), random_id());
  inputs.run_folder = folder.path();
  inputs.run_id = folder.id();
  inputs.base_env = inherited_environment();
  std::error_code ec;
  inputs.working_dir = std::filesystem::current_path(ec).string();
  Result<LaunchPlan> plan = make_plan(job, *cluster, inputs);
  if (!plan) return plan.error();
  return Prepared{std::move(folder), std::move(*agent_program), std::move(*cluster), std::move(*plan)};
}

/// The run folder with everything that was asked for and decided.
Status write_down(const Job& job, const Prepared& run) {
  const RunFolder& folder = run.folder;
  if (Status s = folder.make(); !s) return s;
  if (Status s = folder.write("job.toml", job.resolved_toml); !s) return s;
  if (Status s = folder.write("plan.json", to_json(run.plan, job, run.cluster).dump(1) + "\n"); !s) return s;
  if (job.payload.empty()) {
    trainer::TrainerConfig config = job.trainer;
    config.checkpoint.folder = folder.file("checkpoints");
    if (Status s = folder.write("trainer.json", trainer::to_json(config).dump(1) + "\n"); !s) return s;
  }
  const std::string svg = topology::placement_svg(run.cluster, run.plan.placement, run.plan.grid);
  if (Status s = folder.write("placement.svg", svg); !s) return s;
  return folder.link_latest();
}

HeadOptions head_options(const Job& job, const RunOptions& options, const Prepared& run) {
  HeadOptions head;
  head.supervisor.nodes = job.nodes;
  for (const topology::RankPlacement& rank : run.plan.placement.ranks) {
    head.supervisor.node_of_rank.push_back(rank.node);
  }
  head.supervisor.restart = job.restart;
  head.supervisor.hang_timeout = job.health.hang_timeout;
  head.supervisor.runs_trainer = job.payload.empty();
  head.supervisor.kill_rank = options.kill_rank;
  head.backend = job.backend;
  head.backend_options = {run.agent_program, run.folder.path()};
  head.address = kLocalAddress;
  const auto heartbeat_ms = static_cast<uint32_t>(job.health.heartbeat.count());
  head.node_start = [&plan = run.plan, heartbeat_ms, is_payload = !job.payload.empty()](int node, uint32_t attempt,
                                                                                       int master_port) {
    agent::NodeStart start = node_start(plan, node, attempt, kLocalAddress, master_port);
    start.forward_output = is_payload;  // mdstrain's output goes to its log files only
    start.heartbeat_ms = heartbeat_ms;
    return start;
  };
  return head;
}

// --- what people see ------------------------------------------------------------------------------------------------

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // nobody reads any more: the run matters more than its display
    text.remove_prefix(static_cast<size_t>(n));
  }
}

int terminal_columns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

bool is_set(const char* variable, const char* value = nullptr) {
  const char* found = std::getenv(variable);
  return found && *found && (!value || std::string_view(found) == value);
}

ViewOptions view_options(const Job& job, const RunOptions& options) {
  ViewOptions view;
  view.json = options.json;
  view.terminal = isatty(STDOUT_FILENO) && !is_set("TERM", "dumb");
  view.color = view.terminal && !is_set("NO_COLOR");
  view.raw_output = !job.payload.empty();
  view.width = terminal_columns;
  view.out = [](std::string_view text) { write_all(STDOUT_FILENO, text); };
  view.err = [](std::string_view text) { write_all(STDERR_FILENO, text); };
  return view;
}

/// "tensor 2 x data 2"; only axes that divide anything.
std::string layout_text(const topology::RankGrid& grid) {
  std::string text;
  const auto axis = [&](const char* name, topology::Axis a) {
    if (grid.size(a) > 1) text += (text.empty() ? "" : " x ") + std::string(name) + " " + std::to_string(grid.size(a));
  };
  axis("tensor", topology::Axis::tensor);
  axis("context", topology::Axis::context);
  axis("pipeline", topology::Axis::pipeline);
  axis("data", topology::Axis::data);
  return text;
}

/// The word that this program was started by.
std::string program_as_typed() {
  std::ifstream words("/proc/self/cmdline");
  std::string word;
  return std::getline(words, word, '\0') && !word.empty() ? word : "mdslaunch";
}

/// A path below the working folder without that folder.
std::string as_seen_from_here(const std::string& path) {
  std::error_code ec;
  const std::string here = std::filesystem::current_path(ec).string() + "/";
  return !ec && path.rfind(here, 0) == 0 ? path.substr(here.size()) : path;
}

RunReport begin_report(const Job& job, const RunOptions& options, const Prepared& run) {
  RunReport report;
  report.name = job.name;
  report.run = run.folder.id();
  report.folder = run.folder.path();
  report.shown_folder = as_seen_from_here(report.folder);
  const trainer::DataConfig& data = job.trainer.data;
  const bool reads_text = data.format == trainer::DataFormat::text || data.format == trainer::DataFormat::jsonl;
  if (reads_text && data.tokenizer == "bytes") report.loss_unit = "nats per byte";
  report.program = program_as_typed();
  report.job_argument = options.job_argument;
  report.runs_trainer = job.payload.empty();
  report.tensorboard = report.runs_trainer && job.metrics.tensorboard;
  report.kill_asked = options.kill_rank.has_value();
  report.ranks = run.plan.grid.world_size();
  report.nodes = job.nodes;
  report.steps = report.runs_trainer ? job.trainer.training.steps : 0;
  report.started = std::time(nullptr);
  return report;
}

}  // namespace

int run_job(const Job& job, const RunOptions& options) {
  // Phase 1: decide. Nothing is written or started before it is known that the job can be placed.
  Result<Prepared> run = prepare(job, options);
  if (!run) return fail(run.error(), exit_code_of(run.error()));

  // Phase 2: the run folder. From here on every end leaves a report in it.
  // Who stops reading what is shown, or a limit on file sizes, is no reason to stop: writing fails and the run goes on.
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
  if (Status s = write_down(job, *run); !s) return fail(s.error(), kExitBadInput);
  RunReport report = begin_report(job, options, *run);
  View view(view_options(job, options));
  const std::string layout = report.runs_trainer ? layout_text(run->plan.grid) : "";
  view.begin({report.name, report.folder, report.ranks, report.nodes, layout, report.steps, job.restart.max_restarts,
              report.shown_folder});
  RunRecord record(job, run->folder, view, report);

  // Phase 3: agents, ranks, attempts, until the supervisor says that the run has ended.
  Subreaper subreaper;
  int exit_code = kExitNoAgents;
  double seconds = 0;
  {
    Result<std::unique_ptr<Head>> head = Head::open(head_options(job, options, *run), record.observer());
    if (!head) {
      return fail(head.error(), head.error().code == ErrorCode::bad_input ? kExitBadInput : kExitNoAgents);
    }
    exit_code = (*head)->run();
    seconds = std::chrono::duration<double>((*head)->now()).count();
  }

  // Phase 4: nothing of the run is left, whatever its ranks did; then the report.
  subreaper.end_all();
  record.finish(seconds);
  return exit_code;
}

}  // namespace mds::launcher
