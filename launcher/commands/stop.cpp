// mdslaunch stop [RUN]
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/control.hpp"
#include "launcher/event_log.hpp"
#include "launcher/run.hpp"

namespace mds::launcher {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kReportWait{10};  // between the head's end and its report

/// The head closes its socket before it has written the report.
json await_report(const RunFolder& folder) {
  const auto deadline = std::chrono::steady_clock::now() + kReportWait;
  while (true) {
    std::ifstream file(folder.file("report.json"));
    const json report = json::parse(file, nullptr, /*allow_exceptions=*/false);
    if (report.is_object() || std::chrono::steady_clock::now() > deadline) return report;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

}  // namespace

int stop_command(const Arguments& arguments) {
  const std::string run = arguments.positional.empty() ? "" : arguments.positional[0];
  const auto folder = RunFolder::find(run, output_dir_of(arguments));
  if (!folder) return report_error(folder.error());
  if (arguments.has("now") && arguments.has("requeue")) {
    return report_error(bad_input("stop: --now leaves no time for the checkpoint that --requeue is about"));
  }
  auto client = ControlClient::connect(*folder);
  if (!client) {
    if (is_being_written(folder->file("events.jsonl"))) return report_error(client.error());
    std::printf("%s is not in progress\n", folder->id().c_str());
    return kExitFinished;
  }
  const std::string how = arguments.has("now") ? "now" : arguments.has("requeue") ? "requeue" : "graceful";
  const auto reply = (*client)->ask({{"command", "stop"}, {"how", how}});
  if (!reply) return report_error(reply.error());
  std::printf("stopping %s\n", folder->id().c_str());
  std::fflush(stdout);
  while (!(*client)->wait_for_end(3600)) {
  }
  const json report = await_report(*folder);
  const std::string outcome = report.is_object() ? report.value("outcome", "ended") : "ended without a report";
  const std::string checkpoint = report.is_object() && report["checkpoint"].is_string() ? report["checkpoint"] : "";
  std::printf("%s%s\n", outcome.c_str(), checkpoint.empty() ? "" : (", newest checkpoint " + checkpoint).c_str());
  return kExitFinished;
}

}  // namespace mds::launcher
