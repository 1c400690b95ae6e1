#include "agent/bootstrap.hpp"

#include <nlohmann/json.hpp>

namespace mds::agent {
namespace {

using nlohmann::json;

Result<std::string> text_field(const json& object, const char* name) {
  const auto at = object.find(name);
  if (at == object.end() || !at->is_string() || at->get_ref<const std::string&>().empty()) {
    return bad_input(std::string("bootstrap: ") + name + ": a text is expected");
  }
  return at->get<std::string>();
}

Result<int64_t> integer_field(const json& object, const char* name, int64_t least, int64_t most) {
  const auto at = object.find(name);
  if (at == object.end() || !at->is_number_integer() || at->get<int64_t>() < least || at->get<int64_t>() > most) {
    return bad_input(std::string("bootstrap: ") + name + ": an integer from " + std::to_string(least) + " to " +
                     std::to_string(most) + " is expected");
  }
  return at->get<int64_t>();
}

}  // namespace

std::string to_line(const Bootstrap& bootstrap) {
  const json object = {{"head_address", bootstrap.head_address},
                       {"head_port", bootstrap.head_port},
                       {"job", job_to_hex(bootstrap.credentials.job)},
                       {"key", bootstrap.credentials.key.hex()},
                       {"node", bootstrap.node},
                       {"run_folder", bootstrap.run_folder},
                       {"discover", bootstrap.discover}};
  return object.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace) + "\n";
}

Result<Bootstrap> bootstrap_from_line(const std::string& line) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return bad_input("bootstrap: one line with a JSON object is expected on standard input");
  const auto address = text_field(object, "head_address");
  const auto port = integer_field(object, "head_port", 1, 65535);
  const auto job_text = text_field(object, "job");
  const auto key_text = text_field(object, "key");
  const auto node = integer_field(object, "node", 0, 1 << 20);
  const auto run_folder = text_field(object, "run_folder");
  for (const auto* field : {&address, &job_text, &key_text, &run_folder}) {
    if (!*field) return field->error();
  }
  for (const auto* field : {&port, &node}) {
    if (!*field) return field->error();
  }
  const auto job = job_from_hex(*job_text);
  if (!job) return job.error().within("bootstrap: job");
  const auto key = JobKey::from_hex(*key_text);
  if (!key) return key.error().within("bootstrap: key");
  const auto discover = object.find("discover");
  if (discover != object.end() && !discover->is_boolean()) {
    return bad_input("bootstrap: discover: true or false is expected");
  }
  return Bootstrap{.head_address = *address,
                   .head_port = static_cast<uint16_t>(*port),
                   .credentials = {*job, *key},
                   .node = static_cast<int>(*node),
                   .run_folder = *run_folder,
                   .discover = discover != object.end() && discover->get<bool>()};
}

}  // namespace mds::agent
