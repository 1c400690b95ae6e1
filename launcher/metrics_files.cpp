#include "launcher/metrics_files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include <nlohmann/json.hpp>

namespace mds::launcher {

using nlohmann::json;

namespace {

std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace

MetricsFiles::MetricsFiles(const RunFolder& folder, const MetricsConfig& config)
    : jsonl_path_(folder.file("metrics.jsonl")), tensorboard_folder_(folder.file("tensorboard")), config_(config) {}

MetricsFiles::~MetricsFiles() {
  if (jsonl_fd_ >= 0) close(jsonl_fd_);
}

void MetricsFiles::read_back() {
  std::ifstream file(jsonl_path_);
  for (std::string line; std::getline(file, line);) {
    const json record = json::parse(line, nullptr, /*allow_exceptions=*/false);
    const auto attempt = record.is_object() ? record.find("attempt") : record.end();
    if (attempt == record.end() || !attempt->is_number_unsigned()) continue;
    take(record, attempt->get<uint32_t>());
  }
}

/// What a record means for the history.
std::optional<StepMetrics> MetricsFiles::take(const json& progress, uint32_t attempt) {
  const auto step = progress.find("step");
  if (progress.contains("resumed_from") && step != progress.end() && step->is_number_integer()) {
    history_.resume(attempt, *step);
  }
  std::optional<StepMetrics> metrics = step_metrics_from_json(progress, attempt);
  if (metrics) history_.add(*metrics);
  return metrics;
}

Status MetricsFiles::add(const json& progress, uint32_t attempt, double wall_time) {
  const std::optional<StepMetrics> metrics = take(progress, attempt);
  const bool only_step = metrics && !metrics->validation_loss && !progress.contains("done");
  if (only_step && config_.interval > 1 && metrics->step % config_.interval != 0) return {};
  json line = progress;
  line["attempt"] = attempt;
  line["time"] = wall_time;
  if (Status s = append_line(line); !s) return s;
  return metrics && config_.tensorboard ? append_scalars(*metrics, wall_time) : Status{};
}

Status MetricsFiles::append_line(const json& line) {
  if (jsonl_fd_ < 0) jsonl_fd_ = open(jsonl_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const std::string text = line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  const ssize_t n = jsonl_fd_ < 0 ? -1 : write(jsonl_fd_, text.data(), text.size());
  if (n == static_cast<ssize_t>(text.size())) return {};
  return unavailable("cannot write " + jsonl_path_ + ": " + (n < 0 ? std::strerror(errno) : "the disk is full"));
}

Status MetricsFiles::append_scalars(const StepMetrics& m, double wall_time) {
  if (!tensorboard_ || tensorboard_attempt_ != m.attempt) {
    auto file = TensorboardFile::create(tensorboard_folder_, host_name(), m.attempt, m.step, wall_time);
    if (!file) return file.error();
    tensorboard_ = std::move(*file);
    tensorboard_attempt_ = m.attempt;
  }
  Scalars scalars;
  const auto put = [&](const char* tag, const std::optional<double>& value) {
    if (value) scalars.emplace_back(tag, *value);
  };
  put("loss", m.loss);
  put("validation_loss", m.validation_loss);
  put("lr", m.lr);
  put("grad_norm", m.grad_norm);
  put("pipeline_bubble", m.pipeline_bubble);
  if (m.loss) put("tokens_per_second", m.tokens_per_second());
  return tensorboard_->add(m.step, wall_time, scalars);
}

}  // namespace mds::launcher
