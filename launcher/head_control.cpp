#include "launcher/head_control.hpp"

#include <algorithm>
#include <csignal>
#include <ctime>
#include <utility>

#include "launcher/run_folder.hpp"
#include "launcher/stacks.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

constexpr std::chrono::seconds kStacksTimeout{20};  // an agent gives up after 15 s

std::string time_stamp() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &parts);
  return text;
}

}  // namespace

HeadControl::HeadControl(boost::asio::io_context& io, const std::string& run_folder, Hands hands)
    : run_folder_(run_folder), hands_(std::move(hands)), timer_(io) {
  auto server = ControlServer::open(
      io, run_folder, [this](const json& request, ControlReply reply) { this->request(request, std::move(reply)); });
  if (server)
    server_ = std::move(*server);
  else
    hands_.note(server.error().message + "; status, stop and stacks do not work for this run");
}

void HeadControl::request(const json& request, ControlReply reply) {
  const auto command = request.is_object() ? request.find("command") : request.end();
  const std::string name = command != request.end() && command->is_string() ? command->get<std::string>() : "";
  if (name == "status") return reply(hands_.status());
  if (name == "stop") return stop(request, reply);
  if (name == "stacks") return gather_stacks(std::move(reply));
  if (name == "hold") return hold(request, reply);
  reply({{"error", "the run's head knows no command '" + name + "'; is it of another version?"}});
}

void HeadControl::stop(const json& request, const ControlReply& reply) {
  const json how = request.value("how", json("graceful"));
  if (how != "graceful" && how != "now" && how != "requeue") {
    return reply({{"error", "stop: how must be graceful, now or requeue"}});
  }
  reply({{"ok", true}});
  const Event stop{.kind = how == "requeue" ? EventKind::preempt : EventKind::user_stop, .signal = SIGTERM};
  hands_.handle(stop);
  if (how == "now") hands_.handle(stop);  // as for signals: the second one hurries
}

void HeadControl::hold(const json& request, const ControlReply& reply) {
  const json rank = request.value("rank", json());
  if (!rank.is_number_integer()) return reply({{"error", "hold: which rank?"}});
  reply({{"ok", true}});
  hands_.handle({.kind = EventKind::hold, .rank = rank.get<int>()});
}

// --- stacks ---------------------------------------------------------------------------------------------------------

void HeadControl::gather_stacks(ControlReply reply) {
  if (gathering_) return gathering_->replies.push_back(std::move(reply));
  gathering_.emplace();
  gathering_->replies.push_back(std::move(reply));
  ++gathering_id_;
  const std::vector<int> nodes = hands_.joined_nodes();
  gathering_->waiting.insert(nodes.begin(), nodes.end());
  for (const int node : nodes) hands_.ask_for_stacks(node, {{"id", gathering_id_}});
  timer_.expires_after(kStacksTimeout);
  timer_.async_wait([this](boost::system::error_code error) {
    if (!error && gathering_) finish_stacks();
  });
  finish_if_complete();
}

void HeadControl::on_stacks(int node, const json& body) {
  if (!gathering_ || !body.is_object() || body.value("id", json()) != json(gathering_id_)) return;
  if (gathering_->waiting.erase(node) == 0) return;
  if (const auto error = body.find("error"); error != body.end() && error->is_string()) {
    gathering_->errors.push_back("node " + std::to_string(node) + ": " + error->get<std::string>());
  }
  if (const auto ranks = body.find("ranks"); ranks != body.end() && ranks->is_array()) {
    gathering_->ranks.insert(gathering_->ranks.end(), ranks->begin(), ranks->end());
  }
  finish_if_complete();
}

void HeadControl::on_node_lost(int node) {
  if (!gathering_ || gathering_->waiting.erase(node) == 0) return;
  gathering_->missing.push_back(node);
  finish_if_complete();
}

void HeadControl::finish_if_complete() {
  if (gathering_->waiting.empty()) finish_stacks();
}

void HeadControl::finish_stacks() {
  timer_.cancel();
  Gathering done = *std::exchange(gathering_, std::nullopt);
  done.missing.insert(done.missing.end(), done.waiting.begin(), done.waiting.end());
  std::string text = merged_stacks(done.ranks);
  for (const std::string& error : done.errors) text += error + "\n";
  const std::string name = "stacks/" + time_stamp() + "-" + std::to_string(gathering_id_) + ".txt";
  json reply{{"text", text}, {"missing", done.missing}, {"ranks", done.ranks.size()}};
  if (Status s = RunFolder::existing(run_folder_).write(name, text); !s)
    hands_.note(s.error().message);
  else
    reply["file"] = run_folder_ + "/" + name;
  for (const ControlReply& one : done.replies) one(reply);
}

}  // namespace mds::launcher
