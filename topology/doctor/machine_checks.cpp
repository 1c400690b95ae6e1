#include "topology/doctor/machine_checks.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sstream>
#include <utility>

namespace mds::topology::doctor {

void Report::add(Severity severity, std::string code, std::string subject, std::string message, std::string remedy) {
  findings_.push_back(
      {severity, std::move(code), machine_.host, std::move(subject), std::move(message), std::move(remedy)});
}

std::string gpu_subject(const Machine& machine, size_t gpu) {
  const Gpu& it = machine.gpus[gpu];
  return "gpu " + std::to_string(it.index) + (it.bus_id.empty() ? "" : " (" + it.bus_id + ")");
}

std::string nic_subject(const Machine& machine, size_t nic) {
  const Nic& it = machine.nics[nic];
  const std::string port = it.port > 1 ? " port " + std::to_string(it.port) : "";
  if (it.name.empty()) return "nic " + it.bus_id + port;
  return "nic " + it.name + port + (it.bus_id.empty() ? "" : " (" + it.bus_id + ")");
}

std::string pci_subject(const Machine& machine, size_t device) { return "pci " + machine.pci[device].bus_id; }

std::string gpus_subject(const Machine& machine, const std::vector<int>& gpus) {
  if (gpus.size() == 1) return gpu_subject(machine, static_cast<size_t>(gpus[0]));
  std::vector<int> indices;
  for (const int gpu : gpus) indices.push_back(machine.gpus[static_cast<size_t>(gpu)].index);
  return "gpus " + number_ranges(std::move(indices));
}

bool names_gpu(const std::string& subject, int index) {
  if (!subject.starts_with("gpus ")) return false;
  std::istringstream list(subject.substr(5));
  for (int first = 0; list >> first;) {
    int last = first;
    if (list.peek() == '-') list.get(), list >> last;
    if (index >= first && index <= last) return true;
    if (list.get() != ',') return false;
  }
  return false;
}

std::string number_ranges(std::vector<int> numbers) {
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  std::string text;
  for (size_t begin = 0; begin < numbers.size();) {
    size_t end = begin;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) ++end;
    if (begin > 0) text += ",";
    text += std::to_string(numbers[begin]);
    if (end > begin) text.append("-").append(std::to_string(numbers[end]));
    begin = end + 1;
  }
  return text;
}

std::string amount(size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string figure(double value) {
  char text[32];
  const bool whole = std::abs(value - std::round(value)) < 0.05;
  std::snprintf(text, sizeof text, whole ? "%.0f" : "%.1f", value);
  return text;
}

void check_source(Report& report) {
  const Machine& machine = report.machine();
  for (const std::string& note : machine.notes) {
    report.add(Severity::note, "discovery", "source", note,
               "Where it matters, add another source of the same machine (--input may be repeated).");
  }
  if (machine.cores.empty()) {
    report.add(Severity::note, "cores-unknown", "source",
               "the source does not say which cores the machine has, so that nothing can be placed on it",
               "Add a source that has them, --input once more for the same host (lstopo FILE.xml), or run this on the "
               "machine itself.");
  }
}

bool is_fast(const Nic& nic) { return nic.rdma || nic.gbps >= 10; }

}  // namespace mds::topology::doctor
