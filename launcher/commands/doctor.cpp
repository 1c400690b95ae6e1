// mdslaunch doctor
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/commands/sources.hpp"
#include "launcher/doctor_container.hpp"
#include "launcher/run.hpp"
#include "launcher/topo_text.hpp"
#include "topology/doctor/host_checks.hpp"
#include "topology/read/discover.hpp"

namespace mds::launcher {
namespace {

using topology::Finding;

void append(std::vector<Finding>& to, std::vector<Finding> more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

/// This machine and its settings with the job's image, if it has one, or the recordings that the arguments name.
Result<std::vector<Finding>> chosen_findings(const Arguments& arguments, const std::optional<Job>& job) {
  std::vector<std::string> sources = arguments.values("topology");
  for (const std::string& source : arguments.values("input")) sources.push_back(source);
  if (!sources.empty()) {
    const auto cluster = open_sources(sources);
    if (!cluster) return cluster.error();
    return topology::examine(*cluster);
  }
  const auto machine = topology::discover_machine();
  if (!machine) return machine.error();
  std::vector<Finding> findings = topology::examine(*machine);
  append(findings, topology::examine_host(topology::read_host_facts(), *machine));
  const bool contained = job && job->container.runtime != container::Runtime::none;
  append(findings, examine_container_host(read_container_facts(), machine->host, contained));
  if (contained) append(findings, try_job_container(*job, *machine));
  return findings;
}

bool wants_colours() {
  const char* no_color = std::getenv("NO_COLOR");
  return isatty(STDOUT_FILENO) && (no_color == nullptr || *no_color == '\0');
}

}  // namespace

int doctor_command(const Arguments& arguments) {
  std::optional<Job> job;
  if (!arguments.positional.empty()) {
    int exit_code = kExitFinished;
    job = load_job(arguments, exit_code);
    if (!job) return exit_code;
  }
  const Result<std::vector<Finding>> findings = chosen_findings(arguments, job);
  if (!findings) return report_error(findings.error());
  if (arguments.has("json")) {
    std::printf("%s\n", nlohmann::json{{"version", 1}, {"findings", to_json(*findings)}}.dump(2).c_str());
  } else {
    std::fputs(findings_text(*findings, wants_colours()).c_str(), stdout);
  }
  const bool faulty = std::any_of(findings->begin(), findings->end(),
                                  [](const Finding& finding) { return finding.severity == topology::Severity::fault; });
  return faulty ? kExitFailed : kExitFinished;
}

}  // namespace mds::launcher
