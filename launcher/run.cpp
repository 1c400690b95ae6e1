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
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <random>

#include <nlohmann/json.hpp>

#include "agent/mpi_world.hpp"
#include "launcher/backend_address.hpp"
#include "launcher/head.hpp"
#include "launcher/head_subreaper.hpp"
#include "launcher/node_networks.hpp"
#include "launcher/plan.hpp"
#include "launcher/plan_cost.hpp"
#include "launcher/plan_cost_auto.hpp"
#include "launcher/plan_cluster.hpp"
#include "launcher/plan_environment.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/run_record.hpp"
#include "launcher/signals_held.hpp"
#include "launcher/stage_plan.hpp"
#include "launcher/stage_source.hpp"
#include "launcher/view.hpp"
#include "topology/picture/placement_svg.hpp"
#include "topology/placement.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

constexpr std::chrono::seconds kSilenceMin{15};  // without heartbeats: a machine that swaps is slow, not dead
constexpr int kSilenceHeartbeats = 15;

constexpr std::chrono::hours kForever{24 * 365};

constexpr const char* kLocalAddress = "127.0.0.1";
constexpr std::chrono::hours kStageDeadline{2};  // terabytes take their time; what stands still ends for other reasons
constexpr std::chrono::seconds kRemoteAgentsDeadline{90};  // a remote login alone may take many seconds

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
  PlanInputs inputs;
  std::string address = kLocalAddress;  ///< that the head listens on
  topology::Cluster cluster{};          ///< with the local back end; else the agents bring it
  LaunchPlan plan{};
  std::optional<LoggedRun> earlier{};   ///< of a run that is resumed
  bool shares_run_folder = true;        ///< with every node
  std::optional<StagePlan> stage{};     ///< what is sent to the nodes, if anything is
  std::vector<agent::StageEntry> stage_entries{};
  std::optional<StageSource> stage_source{};
  AgentCopy agent_copy{};
  std::unique_ptr<NodeNetworks> networks{};  ///< of virtual nodes (job.netns)
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

/// Are the job's machines others than this one? Then agents come first and bring what the plan is made of.
bool gathers(const Job& job) { return job.backend != Backend::local; }

/// The list is final once the launcher has written what ranks read: with a run folder that the nodes do not see, that
/// is sent, too.
Status finish_stage(const Job& job, Prepared& run, View& view) {
  std::vector<std::string> written;
  if (!run.shares_run_folder && job.payload.empty()) written.push_back(run.folder.file("trainer.json"));
  for (const auto& [name, content] : run.plan.files) {
    if (!run.shares_run_folder) written.push_back(run.folder.file(name));
  }
  auto more = list_files(written);
  if (!more) return more.error();
  std::vector<agent::StageEntry> entries = std::move(run.stage_entries);
  entries.insert(entries.end(), more->begin(), more->end());
  const std::vector<agent::StageEntry> folders = list_folders(*run.stage);
  entries.insert(entries.end(), folders.begin(), folders.end());
  const std::string programs = run.stage->node_root + std::filesystem::path(run.agent_program).parent_path().string();
  run.stage_source.emplace(job.stage, run.inputs.run_id, programs, entries);
  view.news("staging " + std::to_string(run.stage_source->files()) + " files, " +
            human_count(static_cast<double>(run.stage_source->bytes())) + "B, to " + job.stage.folder +
            (job.nodes > 1 ? " on each node" : " on the node") +
            (run.stage->image.empty() ? "" : "; the image only where it is not yet"));
  return {};
}

/// What agents have said about the run folder, against what the job needs of it. Errors: bad_input.
Status check_sharing(const Job& job, const std::vector<int>& blind_nodes, Prepared& run) {
  run.shares_run_folder = blind_nodes.empty();
  if (run.shares_run_folder) return {};
  const std::string node = "node " + std::to_string(blind_nodes.front()) + " (" +
                           job.node_names[static_cast<size_t>(blind_nodes.front())] + ") does not see the run folder " +
                           run.folder.path();
  const bool contained = job.container.runtime != container::Runtime::none;  // then the run folder is bound
  if (!job.payload.empty() && (job.stage.enabled || !contained)) return {};   // it may need nothing of it
  if (!job.stage.enabled) {
    return bad_input(node + ": put job.output_dir, and all that the job names, on a file system that the nodes share, "
                            "or have it sent to them: stage.enabled = true");
  }
  const trainer::CheckpointConfig& checkpoint = job.trainer.checkpoint;
  if (checkpoint.interval > 0 || checkpoint.at_end) {
    return bad_input(node + ", where ranks write checkpoints: put job.output_dir on a file system that the nodes "
                            "share, or write none (checkpoint.interval = 0 and checkpoint.at_end = false)");
  }
  return {};
}

/// The plan for the machines that are known by now, with which every key that says "auto" can be settled.
Status decide(Job& job, Prepared& run) {
  Result<Job> settled = settle_layout(job, run.cluster);
  if (!settled) return settled.error();
  job = *std::move(settled);
  PlanInputs inputs = run.inputs;
  if (run.stage) {
    run.stage->shares_run_folder = run.shares_run_folder;
    inputs.stage = &*run.stage;
  }
  Result<LaunchPlan> plan = make_plan(job, run.cluster, inputs);
  if (!plan) return plan.error();
  run.plan = *std::move(plan);
  if (run.stage || run.shares_run_folder) return {};
  for (PlannedNode& node : run.plan.nodes) {
    for (agent::RankSpec& rank : node.ranks) rank.log_path.clear();  // the head writes it
  }
  return {};
}

/// Two runs of one Slurm job, which share the id, may begin in the same second.
RunFolder new_folder(const Job& job, const std::string& run_id) {
  std::time_t at = std::time(nullptr);
  RunFolder folder = RunFolder::named(job.output_dir, job.name, at, run_id);
  std::error_code error;
  while (std::filesystem::exists(folder.path(), error)) {
    folder = RunFolder::named(job.output_dir, job.name, ++at, run_id);
  }
  return folder;
}

Result<Prepared> prepare(Job& job, const RunOptions& options) {
  if (job.backend == Backend::slurm && job.node_names.empty()) {
    return bad_input("job.backend = \"slurm\" needs a Slurm job around it: `mdslaunch submit` makes one; or run "
                     "mdslaunch under salloc or in an sbatch script");
  }
  Result<std::string> agent_program = program(options.agent_program, "mdsagent");
  if (!agent_program) return agent_program.error();
  PlanInputs inputs;
  if (job.payload.empty()) {
    Result<std::string> trainer_program = program(options.trainer_program, "mdstrain");
    if (!trainer_program) return trainer_program.error();
    inputs.trainer_program = *trainer_program;
  }
  const bool resumes = !options.resume.empty();
  RunFolder folder = resumes ? RunFolder::existing(options.resume)
                             : new_folder(job, options.run_id.empty() ? random_id() : options.run_id);
  inputs.run_folder = folder.path();
  inputs.run_id = folder.id();
  inputs.base_env = inherited_environment();
  std::error_code ec;
  inputs.working_dir = std::filesystem::current_path(ec).string();
  Prepared run{std::move(folder), std::move(*agent_program), std::move(inputs)};
  if (job.stage.enabled) {
    auto stage = plan_stage(job, run.inputs, run.agent_program);
    if (!stage) return stage.error();
    run.stage = *std::move(stage);
    // Every file is read for its digest before agents are there: they would take that silence for the end of the head.
    auto entries = list_files(run.stage->sources, job.output_dir);
    if (!entries) return entries.error();
    run.stage_entries = *std::move(entries);
    auto image = list_image(job.container);
    if (!image) return image.error();
    for (const agent::StageEntry& entry : *image) {
      job.container.sha256 = entry.sha256;
      run.stage_entries.push_back(entry);
    }
  }
  if (gathers(job)) {
    if (job.stage.enabled) {
      auto copy = agent_copy(job, run.agent_program);
      if (!copy) return copy.error();
      run.agent_copy = *std::move(copy);
    }
    Result<std::string> address = head_address(job);
    if (!address) return address.error();
    run.address = *std::move(address);
  } else {
    Result<topology::Cluster> cluster = job_cluster(job);
    if (!cluster) return cluster.error();
    run.cluster = *std::move(cluster);
    if (Status s = decide(job, run); !s) return s.error();
  }
  if (!resumes) return run;
  const std::string log = run.folder.file("events.jsonl");
  if (is_being_written(log)) return bad_input(run.folder.path() + " is in progress; it cannot be resumed");
  Result<LoggedRun> earlier = read_event_log(log);
  if (!earlier) return earlier.error();
  run.earlier = std::move(*earlier);
  return run;
}

bool has_finished(const LoggedRun& earlier) {
  const Supervisor supervisor = replay(earlier);
  return supervisor.state().state == State::ended && supervisor.state().exit_code == kExitFinished;
}

/// What was asked for, and what ranks read.
Status write_down(const Job& job, const Prepared& run) {
  const RunFolder& folder = run.folder;
  if (run.earlier) unlink(folder.file("report.json").c_str());  // it says how the run ended, which it has not any more
  if (Status s = folder.write("job.toml", job.resolved_toml); !s) return s;
  if (job.payload.empty()) {
    trainer::TrainerConfig config = job.trainer;
    config.checkpoint.folder = folder.file("checkpoints");
    if (run.stage) config = on_nodes(*run.stage, config);
    if (Status s = folder.write("trainer.json", trainer::to_json(config).dump(1) + "\n"); !s) return s;
  }
  for (const auto& [name, content] : run.plan.files) {
    std::error_code ignored;  // the write below says what is wrong
    std::filesystem::create_directories(std::filesystem::path(folder.file(name)).parent_path(), ignored);
    if (Status s = folder.write(name, content); !s) return s;
  }
  return folder.link_latest();
}

/// What was decided, for people and tools. With thousands of ranks it takes a while, and no rank waits for it.
Status write_plan(const Job& job, const Prepared& run) {
  const RunFolder& folder = run.folder;
  if (Status s = folder.write("plan.json", to_json(run.plan, job, run.cluster).dump(1) + "\n"); !s) return s;
  return folder.write("placement.svg", topology::placement_svg(run.cluster, run.plan.placement, run.plan.grid));
}

SupervisorConfig supervisor_config(const Job& job, const RunOptions& options, const Prepared& run) {
  SupervisorConfig supervisor;
  supervisor.nodes = job.nodes;
  for (const topology::RankPlacement& rank : run.plan.placement.ranks) supervisor.node_of_rank.push_back(rank.node);
  supervisor.restart = job.restart;
  supervisor.hang_timeout = job.health.hang_timeout;
  supervisor.runs_trainer = job.payload.empty();
  supervisor.kill_rank = options.kill_rank;
  supervisor.preempt_drain = options.preempt_drain;
  if (options.debug) {
    supervisor.hang_timeout = kForever;
    supervisor.restart.max_restarts = 0;
  }
  if (job.stage.enabled) supervisor.start_deadline = kStageDeadline;
  if (gathers(job)) supervisor.agents_deadline = kRemoteAgentsDeadline;
  return supervisor;
}

/// Reads `run` when an attempt begins: it must outlive the head.
std::function<agent::NodeStart(int, uint32_t, int)> node_starts(const Job& job, const RunOptions& options,
                                                                    const Prepared& run) {
  const auto heartbeat_ms = static_cast<uint32_t>(job.health.heartbeat.count());
  return [&run, heartbeat_ms, is_payload = !job.payload.empty(), names = job.node_names, debug = options.debug,
          seed = std::random_device{}()](int node, uint32_t attempt, int free_port) {
    const int first = run.plan.placement.ranks.front().node;
    const MasterPlace master = run.networks
                                   ? MasterPlace{NodeNetworks::address(first), free_port}
                                   : master_place(run.cluster, first, names, free_port, seed + attempt);
    agent::NodeStart start = node_start(run.plan, node, attempt, master.address, master.port);
    start.forward_output = is_payload || !run.shares_run_folder;  // mdstrain's output goes to its log files only
    if (run.stage_source) start.stage = run.stage_source->spec();
    start.heartbeat_ms = heartbeat_ms;
    if (debug) debug_ranks(*debug, start.ranks);
    return start;
  };
}

HeadOptions head_options(const Job& job, const RunOptions& options, const Prepared& run) {
  HeadOptions head;
  head.supervisor = supervisor_config(job, options, run);
  head.backend = job.backend;
  head.backend_options = {run.agent_program, run.folder.path(), job.node_names,
                          job.components,    job.ssh_config,    job.mpirun, run.agent_copy, run.networks.get()};
  head.address = run.address;
  head.web = {static_cast<uint16_t>(job.metrics.web_port), static_cast<uint16_t>(job.metrics.prometheus_port),
              job.name};
  head.steps = job.payload.empty() ? job.trainer.training.steps : 0;
  head.utilization_per_token = [&job, &run] { return utilization_per_token(job, run.cluster); };
  head.earlier = run.earlier;
  head.preempt_on_term = options.preempt_on_term;
  head.silence_limit = std::max<std::chrono::milliseconds>(kSilenceMin, kSilenceHeartbeats * job.health.heartbeat);
  if (options.debug) head.silence_limit = kForever;
  head.stage_part = [&run](const json& ask) {
    return run.stage_source ? run.stage_source->part(ask) : json{{"error", "nothing is staged"}};
  };
  head.gather = gathers(job);
  head.gpus = job.device == topology::DeviceKind::cuda;  // a CPU job does not wait for the GPU library
  head.node_start = node_starts(job, options, run);
  return head;
}

/// Brings the agents up and makes the plan of what they have found. On an error `exit_code` says with which to end, and
/// `missing` which node did not come (-1: none in particular).
Result<std::unique_ptr<Head>> gather(Job& job, const RunOptions& options, Prepared& run, int& exit_code, int& missing) {
  exit_code = kExitNoAgents;
  auto head = Head::open(head_options(job, options, run), {});
  if (!head) {
    if (head.error().code == ErrorCode::bad_input) exit_code = kExitBadInput;
    return head;
  }
  auto machines = (*head)->gather();
  if (!machines) {
    if ((*head)->exit_signal() != 0) exit_code = 128 + (*head)->exit_signal();
    missing = (*head)->missing_node();
    return machines.error();
  }
  run.cluster.nodes = *std::move(machines);
  if (Status s = check_sharing(job, (*head)->blind_nodes(), run); !s) {
    exit_code = kExitBadInput;
    return s.error();
  }
  if (Status s = decide(job, run); !s) {
    exit_code = exit_code_of(s.error());
    return s.error();
  }
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

/// How to get at this run. The page's address opens it to whoever reads it, so it goes to a terminal, not into a log
/// that others may read.
void tell_ways_in(const HeadWeb& web, const Prepared& run, View& view) {
  for (const std::string& problem : web.problems()) view.warning(problem);
  if (!web.page_address().empty()) {
    const bool terminal = isatty(STDOUT_FILENO) != 0;
    view.news("web page " + (terminal ? web.page_address() : "at the address in " + run.folder.file("web.url")));
  }
  if (!run.networks) return;
  view.news("each node has a network of its own; cut node N off: nsenter --net --target " + std::to_string(getpid()) +
            " ip link set nodeN down");
}

std::string host_of(const Job& job, int node) {
  return node >= 0 && node < static_cast<int>(job.node_names.size()) ? job.node_names[static_cast<size_t>(node)] : "";
}

}  // namespace

RunEnd run_job(const Job& asked, const RunOptions& options) {
  Job job = asked;  // "auto" is settled on the way
  // Phase 1: prepare, and with the local back end decide. Nothing is written or started before it is known that the job
  // can be placed.
  Result<Prepared> run = prepare(job, options);
  if (!run) return {fail(run.error(), exit_code_of(run.error()))};
  if (run->earlier && has_finished(*run->earlier)) {
    std::fprintf(stderr, "mdslaunch: %s has finished already\n", run->folder.path().c_str());
    return {kExitFinished};
  }
  if (job.netns) {
    auto networks = NodeNetworks::make(job.nodes);
    if (!networks) return {fail(networks.error(), kExitNoAgents)};
    run->networks = *std::move(networks);
    run->address = NodeNetworks::kHead;
  }

  // Phase 2: the run folder. Who stops reading what is shown, or a limit on file sizes, is no reason to stop: writing
  // fails and the run goes on.
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
  if (Status s = run->earlier ? Status{} : run->folder.make(); !s) return {fail(s.error(), kExitBadInput)};

  // Phase 3, on several machines: agents come up, bring their machines, and the plan is made of those.
  Subreaper subreaper;
  std::unique_ptr<Head> head;
  std::future<Status> plan_written;
  const auto leave = [&](const Error& error, int exit_code, const std::string& lost_host = "") {
    if (plan_written.valid()) plan_written.wait();
    const SignalsHeld held;
    head.reset();
    subreaper.end_all();
    return RunEnd{fail(error, exit_code), run->folder.path(), lost_host};
  };
  if (gathers(job)) {
    int exit_code = 0, missing = -1;
    Result<std::unique_ptr<Head>> gathered = gather(job, options, *run, exit_code, missing);
    if (!gathered) return leave(gathered.error(), exit_code, options.goes_on_without ? host_of(job, missing) : "");
    head = *std::move(gathered);
  }

  // Phase 4: the plan is final. From here on every end leaves a report in the run folder.
  if (Status s = write_down(job, *run); !s) return leave(s.error(), kExitBadInput);
  RunReport report = begin_report(job, options, *run);
  View view(view_options(job, options));
  const std::string layout = report.runs_trainer ? layout_text(run->plan.grid) : "";
  view.begin({report.name, report.folder, report.ranks, report.nodes, layout, report.steps, job.restart.max_restarts,
              report.shown_folder, utilization_per_token(job, run->cluster)});
  RunRecord record(job, run->folder, view, report);
  if (!run->shares_run_folder) record.write_rank_logs();
  if (run->stage) {
    if (Status s = finish_stage(job, *run, view); !s) return leave(s.error(), kExitBadInput);
  }

  // Phase 5: ranks, attempts, until the supervisor says that the run has ended.
  plan_written = std::async(std::launch::async, write_plan, std::cref(job), std::cref(*run));
  if (head) {
    const Status settled =
        head->settle(supervisor_config(job, options, *run), node_starts(job, options, *run), record.observer());
    if (!settled) return leave(settled.error(), kExitNoAgents);
  } else {
    Result<std::unique_ptr<Head>> opened = Head::open(head_options(job, options, *run), record.observer());
    if (!opened) {
      return leave(opened.error(), opened.error().code == ErrorCode::bad_input ? kExitBadInput : kExitNoAgents);
    }
    head = *std::move(opened);
  }
  tell_ways_in(head->web(), *run, view);
  const int exit_code = head->run();
  if (const Status written = plan_written.get(); !written) view.warning(written.error().message);
  const double seconds = std::chrono::duration<double>(head->now()).count();
  const std::string lost_host = host_of(job, head->state().lost_node);

  // Phase 6: nothing of the run is left, whatever its ranks did; then the report.
  const SignalsHeld held;
  head.reset();
  subreaper.end_all();
  agent::remove_mpi_folders(run->inputs.run_id);
  record.finish(seconds);
  return {exit_code, run->folder.path(), job.restart.lost_node == LostNode::go_on ? lost_host : ""};
}

}  // namespace mds::launcher
