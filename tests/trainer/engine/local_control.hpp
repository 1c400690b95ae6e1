// RankControl for ranks that are threads of one process: exchanges through memory, keeps what was reported.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent/rank_control.hpp"

namespace mds::trainer {

/// What the ranks of one attempt share.
class LocalExchange {
 public:
  std::vector<std::string> exchange(const std::string& name, int index, int count, const std::string& value) {
    std::unique_lock lock(mutex_);
    auto& slots = values_[name];
    slots[index] = value;
    changed_.notify_all();
    changed_.wait(lock, [&] { return static_cast<int>(slots.size()) == count; });
    std::vector<std::string> result;
    for (const auto& [i, text] : slots) result.push_back(text);
    return result;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::map<int, std::string>> values_;
};

class LocalControl : public agent::RankControl {
 public:
  explicit LocalControl(LocalExchange& exchange) : exchange_(exchange) {}

  void beat(uint64_t step) override { beats.push_back(step); }
  Status progress(const nlohmann::json& body) override {
    reports.push_back(body);
    return {};
  }
  Result<std::vector<std::string>> exchange(const std::string& name, int index, int count,
                                            const std::string& value) override {
    auto values = exchange_.exchange(name, index, count, value);
    if (tamper) tamper(name, values);
    return values;
  }
  agent::RankRequests poll() override { return std::exchange(requests, {}); }

  std::vector<uint64_t> beats;
  std::vector<nlohmann::json> reports;
  agent::RankRequests requests;
  std::function<void(const std::string& name, std::vector<std::string>& values)> tamper;

 private:
  LocalExchange& exchange_;
};

}  // namespace mds::trainer
