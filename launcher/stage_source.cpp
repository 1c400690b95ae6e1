#include "launcher/stage_source.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>

#include <nlohmann/json.hpp>

#include "agent/unique_fd.hpp"
#include "container/sha256.hpp"

namespace mds::launcher {

using agent::kStagePartBytes;
using nlohmann::json;

StageSource::StageSource(const StageConfig& config, const std::string& run, const std::string& programs,
                         const std::vector<agent::StageEntry>& entries)
    : list_(agent::to_text(entries)),
      spec_{config.folder, run, container::sha256_of(list_), list_.size(), config.keep, programs} {
  for (const agent::StageEntry& entry : entries) {
    if (entry.sha256.empty()) continue;
    if (paths_.emplace(entry.sha256, entry.path).second) bytes_ += entry.bytes;
  }
}

json StageSource::part(const json& ask) const {
  const json sha256 = ask.value("sha256", json()), offset = ask.value("offset", json());
  json answer = {{"sha256", sha256}, {"offset", offset}};
  const auto fail = [&](const std::string& what) {
    answer["error"] = "the launcher's machine: " + what;
    return answer;
  };
  if (!sha256.is_string() || !offset.is_number_unsigned()) return fail("a file and a place in it are expected");
  const auto from = offset.get<uint64_t>();
  if (sha256 == spec_.sha256) {
    if (from >= list_.size()) return fail("the list of files is shorter");
    const std::string part = list_.substr(from, kStagePartBytes);
    answer["bytes"] = json::binary({part.begin(), part.end()});
    return answer;
  }
  const auto path = paths_.find(sha256.get<std::string>());
  if (path == paths_.end()) return fail("no such file is staged");
  const agent::UniqueFd file(open(path->second.c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<uint8_t> bytes(kStagePartBytes);
  const ssize_t n = file ? pread(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(from)) : -1;
  if (n < 0) return fail("cannot read " + path->second + ": " + std::strerror(errno));
  if (n == 0) return fail(path->second + " has become shorter since the job began");
  bytes.resize(static_cast<size_t>(n));
  answer["bytes"] = json::binary(std::move(bytes));
  return answer;
}

Result<AgentCopy> agent_copy(const Job& job, const std::string& agent_program) {
  auto digest = container::digest_of_file(agent_program);
  if (!digest) return digest.error();
  std::random_device random;
  char name[40];
  std::snprintf(name, sizeof name, ".agent-%08x%08x", random(), random());
  return AgentCopy{job.stage.folder + name, digest->sha256};
}

}  // namespace mds::launcher
