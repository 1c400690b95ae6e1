#include "launcher/head_web.hpp"

#include <unistd.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "agent/credentials.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/web_page.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

constexpr const char* kLoopback = "127.0.0.1";

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// Takes as long whatever is wrong with it, so that a token cannot be found out piece by piece.
bool begins_with_token(const std::string& path, const std::string& token) {
  if (path.size() < token.size() + 1) return false;
  unsigned differs = static_cast<unsigned char>(path[0] ^ '/');
  for (size_t i = 0; i < token.size(); ++i) differs |= static_cast<unsigned char>(path[i + 1] ^ token[i]);
  return differs == 0;
}

std::string file_text(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

HeadWeb::HeadWeb(boost::asio::io_context& io, const std::string& run_folder, WebOptions options,
                 std::function<json()> status)
    : run_folder_(run_folder),
      run_(run_folder.substr(run_folder.rfind('/') + 1)),
      options_(std::move(options)),
      status_(std::move(status)),
      start_time_(wall_time()) {
  if (options_.page_port != 0) {
    read_back();
    open_page(io);
  }
  if (options_.prometheus_port != 0) open_prometheus(io);
}

HeadWeb::~HeadWeb() {
  if (!address_.empty()) unlink((run_folder_ + "/web.url").c_str());
}

/// A run that is resumed: the curves go on from what metrics.jsonl has.
void HeadWeb::read_back() {
  std::ifstream file(run_folder_ + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const json record = json::parse(line, nullptr, /*allow_exceptions=*/false);
    const auto attempt = record.is_object() ? record.find("attempt") : record.end();
    if (attempt == record.end() || !attempt->is_number_unsigned()) continue;
    if (const auto metrics = step_metrics_from_json(record, attempt->get<uint32_t>())) curves_.add(*metrics);
  }
}

void HeadWeb::open_page(boost::asio::io_context& io) {
  const auto fresh = agent::make_credentials();  // of which the key is as good a token as any
  if (!fresh) return problems_.push_back(fresh.error().message);
  token_ = fresh->key.hex().substr(0, 32);
  auto server = WebServer::open(io, kLoopback, options_.page_port, [this](const std::string& path) {
    if (begins_with_token(path, token_)) return page(path.substr(token_.size() + 1));
    return WebReply{403, "text/plain; charset=utf-8", "the address with its token: mdslaunch status\n"};
  });
  if (!server) return problems_.push_back("no web page: " + server.error().message + " (metrics.web_port)");
  page_server_ = std::move(*server);
  address_ = "http://" + std::string(kLoopback) + ":" + std::to_string(options_.page_port) + "/" + token_ + "/";
  const Status written = RunFolder::existing(run_folder_).write("web.url", address_ + "\n");
  if (!written) problems_.push_back(written.error().message);
}

void HeadWeb::open_prometheus(boost::asio::io_context& io) {
  auto server = WebServer::open(io, kLoopback, options_.prometheus_port, [this](const std::string& path) {
    if (path != "/metrics") return WebReply{404, "text/plain; charset=utf-8", "/metrics\n"};
    return WebReply{200, "text/plain; version=0.0.4; charset=utf-8",
                    prometheus_text(counters_, status_(), options_.job, run_, start_time_)};
  });
  if (!server) {
    return problems_.push_back("no Prometheus: " + server.error().message + " (metrics.prometheus_port)");
  }
  prometheus_server_ = std::move(*server);
}

WebReply HeadWeb::page(const std::string& path) const {
  if (path == "/") return {200, "text/html; charset=utf-8", web_page_html()};
  if (path == "/data") {
    const json data{{"job", options_.job}, {"run", run_}, {"status", status_()}, {"curves", curves_.to_json()}};
    return {200, "application/json", data.dump(-1, ' ', false, json::error_handler_t::replace)};
  }
  if (path == "/placement.svg") return {200, "image/svg+xml", file_text(run_folder_ + "/placement.svg")};
  return {404, "text/plain; charset=utf-8", "not here\n"};
}

void HeadWeb::on_event(const Event& event, const Effects& effects) {
  if (event.kind == EventKind::checkpoint) counters_.on_checkpoint(wall_time());
  for (const Effect& effect : effects) {
    if (effect.kind == EffectKind::report_cause) counters_.on_failure();
  }
}

void HeadWeb::on_metrics(const StepMetrics& metrics) {
  counters_.on_metrics(metrics);
  curves_.add(metrics);
}

}  // namespace mds::launcher
