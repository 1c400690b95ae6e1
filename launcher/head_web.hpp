// Head web: the web page of a run and its figures for Prometheus. Both are off unless the job file names a port, listen
// on loopback only, and change nothing. The page's address holds a token that is made for the run: who does not know it
// gets nothing. It stands in <run>/web.url (0600) while the run is in progress.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launcher/prometheus.hpp"
#include "launcher/run_curves.hpp"
#include "launcher/supervisor.hpp"
#include "launcher/web_server.hpp"

namespace mds::launcher {

struct WebOptions {
  uint16_t page_port = 0;        ///< 0: none
  uint16_t prometheus_port = 0;  ///< 0: none
  std::string job;               ///< its name
};

/// Threads: the head's only.
class HeadWeb {
 public:
  /// `status` is called for each request. A port that cannot be had is among problems() and no error: the run goes on.
  HeadWeb(boost::asio::io_context& io, const std::string& run_folder, WebOptions options,
          std::function<nlohmann::json()> status);
  HeadWeb(const HeadWeb&) = delete;
  HeadWeb& operator=(const HeadWeb&) = delete;
  ~HeadWeb();

  void on_event(const Event& event, const Effects& effects);
  void on_metrics(const StepMetrics& metrics);

  const std::string& page_address() const { return address_; }  ///< empty: there is none
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  void read_back();
  void open_page(boost::asio::io_context& io);
  void open_prometheus(boost::asio::io_context& io);
  WebReply page(const std::string& path) const;

  std::string run_folder_, run_, token_, address_;
  WebOptions options_;
  std::function<nlohmann::json()> status_;
  double start_time_;
  RunCurves curves_;
  RunCounters counters_;
  std::vector<std::string> problems_;
  std::unique_ptr<WebServer> page_server_, prometheus_server_;
};

}  // namespace mds::launcher
