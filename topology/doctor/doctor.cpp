#include "topology/doctor/doctor.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "topology/doctor/machine_checks.hpp"

namespace mds::topology {

const char* to_string(Severity severity) {
  switch (severity) {
    case Severity::note:
      return "note";
    case Severity::warning:
      return "warning";
    case Severity::fault:
      return "fault";
  }
  return "?";
}

std::vector<Finding> examine(const Machine& machine) {
  doctor::Report report(machine);
  doctor::check_gpus(report);
  doctor::check_gpu_links(report);
  doctor::check_pci_links(report);
  doctor::check_nics(report);
  doctor::check_ways_to_nics(report);
  doctor::check_memory_nodes(report);
  doctor::check_source(report);
  auto findings = report.take();
  std::stable_sort(findings.begin(), findings.end(), [](auto& a, auto& b) { return a.severity > b.severity; });
  return findings;
}

nlohmann::json to_json(const std::vector<Finding>& findings) {
  auto list = nlohmann::json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"severity", to_string(finding.severity)},
                    {"code", finding.code},
                    {"host", finding.host},
                    {"subject", finding.subject},
                    {"message", finding.message},
                    {"remedy", finding.remedy}});
  }
  return list;
}

}  // namespace mds::topology
