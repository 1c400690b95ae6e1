// mdstrain: one rank of a training job.
#include <sched.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include "agent/rank_control.hpp"
#include "topology/rank_grid.hpp"
#include "topology/result.hpp"
#include "trainer/comm/groups.hpp"
#include "trainer/config.hpp"
#include "trainer/device.hpp"
#include "trainer/engine/training.hpp"

namespace mds::trainer {
namespace {

constexpr char kUsage[] =
    "usage: mdstrain --config FILE\n"
    "\n"
    "Trains one rank of a job as trainer.json says. mdslaunch starts it; by hand it runs a job of one rank:\n"
    "\n"
    "  --config FILE   the trainer.json of a run folder\n"
    "  --help          this text\n"
    "  --version       the version\n"
    "\n"
    "Environment: RANK, WORLD_SIZE, LOCAL_RANK, OMP_NUM_THREADS, MDS_HOST_ADDRESS (peers connect to it),\n"
    "MDS_CONNECT_TIMEOUT (seconds to wait for all peers; 60).\n"
    "Exit codes: 0 finished or stopped on request, 1 failed, 2 bad input, 3 does not fit.\n";

struct CommandLine {
  enum class Action { train, help, version } action = Action::train;
  std::string config;
};

Result<CommandLine> parse_command_line(int argc, char** argv) {
  CommandLine line;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--help" || word == "-h") return CommandLine{CommandLine::Action::help, ""};
    if (word == "--version") return CommandLine{CommandLine::Action::version, ""};
    if (word.rfind("--config=", 0) == 0) {
      line.config = word.substr(9);
    } else if (word == "--config" && i + 1 < argc) {
      line.config = argv[++i];
    } else {
      return bad_input("unknown or incomplete argument '" + word + "'; try mdstrain --help");
    }
  }
  if (line.config.empty()) return bad_input("--config FILE is missing; try mdstrain --help");
  return line;
}

Result<TrainerConfig> read_config(const std::string& path) {
  std::ifstream file(path);
  if (!file) return bad_input(path + ": cannot be opened");
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (json.is_discarded()) return bad_input(path + ": not valid JSON");
  auto config = trainer_config_from_json(json);
  if (!config) return config.error().within(path);
  const auto problems = check(*config);
  if (!problems.empty()) return bad_input(path + ": " + problems[0].key + ": " + problems[0].message);
  return config;
}

struct Environment {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  std::string host_address = "127.0.0.1";
  int connect_timeout_s = 60;  ///< for all peers to be there; under a debugger it takes longer
};

/// A count in an environment variable, or `otherwise` where it is not set.
Result<int> read_count(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  if (!text || !*text) return otherwise;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (*end || value < 0 || value > 1'000'000) return bad_input(std::string(name) + "='" + text + "' is not a count");
  return static_cast<int>(value);
}

Result<Environment> read_environment() {
  Environment environment;
  auto rank = read_count("RANK", 0), world_size = read_count("WORLD_SIZE", 1), local_rank = read_count("LOCAL_RANK", 0);
  auto timeout = read_count("MDS_CONNECT_TIMEOUT", environment.connect_timeout_s);
  for (const auto* value : {&rank, &world_size, &local_rank, &timeout}) {
    if (!*value) return value->error();
  }
  if (const char* host = std::getenv("MDS_HOST_ADDRESS"); host && *host) environment.host_address = host;
  environment.rank = *rank;
  environment.world_size = *world_size;
  environment.local_rank = *local_rank;
  environment.connect_timeout_s = *timeout;
  if (*rank >= *world_size) return bad_input("RANK must be below WORLD_SIZE");
  return environment;
}

/// OMP_NUM_THREADS, or one thread for each core that this process is bound to.
Status set_threads() {
  cpu_set_t bound;
  const int cores = ::sched_getaffinity(0, sizeof bound, &bound) == 0 ? CPU_COUNT(&bound) : 1;
  auto threads = read_count("OMP_NUM_THREADS", cores);
  if (!threads) return threads.error();
  at::set_num_threads(*threads > 0 ? *threads : cores);
  at::set_num_interop_threads(1);
  return {};
}

Result<topology::RankGrid> make_grid(const ParallelConfig& parallel, const Environment& environment) {
  auto grid = topology::RankGrid::make(parallel.tensor, parallel.context, parallel.data, parallel.pipeline,
                                       parallel.order);
  if (!grid) return grid;
  if (grid->world_size() != environment.world_size) {
    return bad_input("the job is laid out for " + std::to_string(grid->world_size()) + " ranks, but WORLD_SIZE is " +
                     std::to_string(environment.world_size));
  }
  return grid;
}

Status train(const CommandLine& line) {
  // Phase 1: what to do. Nothing outside this process is touched yet.
  auto config = read_config(line.config);
  if (!config) return config.error();
  auto environment = read_environment();
  if (!environment) return environment.error();
  auto grid = make_grid(config->parallel, *environment);
  if (!grid) return grid.error();
  if (Status status = set_threads(); !status) return status;

  // Phase 2: the agent, then the device, which must be chosen before LibTorch looks for one.
  auto control = agent::RankControl::from_environment();
  if (!control) return control.error();
  auto device = open_device(config->cuda, environment->local_rank, config->training.deterministic);
  if (!device) return device.error();

  // Phase 3: the peers. Beyond this point every rank makes the same collective calls.
  const ConnectOptions peers{environment->host_address, std::chrono::seconds(environment->connect_timeout_s)};
  const GroupOptions options{peers, device->cuda, config->model.tie_word_embeddings};
  auto groups = make_groups(*grid, environment->rank, **control, options);
  if (!groups) return groups.error();

  // Phase 4: data, model, weights; then the steps. Autograd is not used: no tensor needs its bookkeeping.
  const c10::InferenceMode no_autograd;
  const bool by_hand = !std::getenv("MDS_CONTROL_FD");
  TrainingContext context{*config, *grid, environment->rank, *groups, **control, *device, std::nullopt, {}, by_hand};
  if (environment->rank == 0) context.say = [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); };
  auto training = Training::prepare(context);
  if (!training) return training.error();
  auto outcome = (*training)->run();
  if (!outcome) return outcome.error();
  return {};
}

int exit_code(const Error& error) {
  switch (error.code) {
    case ErrorCode::bad_input:
    case ErrorCode::corrupt: return 2;
    case ErrorCode::infeasible: return 3;
    default: return 1;
  }
}

int run(int argc, char** argv) {
  auto line = parse_command_line(argc, argv);
  Status status;
  if (!line) {
    status = line.error();
  } else if (line->action == CommandLine::Action::help) {
    std::fputs(kUsage, stdout);
  } else if (line->action == CommandLine::Action::version) {
    std::puts("mdstrain " MDS_VERSION);
  } else {
    try {
      status = train(*line);
    } catch (const c10::Error& error) {
      status = unavailable(error.what_without_backtrace());
    } catch (const std::exception& error) {
      status = internal(error.what());
    }
  }
  if (status) return 0;
  std::fprintf(stderr, "mdstrain: error: %s\n", status.error().message.c_str());
  return exit_code(status.error());
}

}  // namespace
}  // namespace mds::trainer

int main(int argc, char** argv) { return mds::trainer::run(argc, argv); }
