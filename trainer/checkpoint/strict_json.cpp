#include "trainer/checkpoint/strict_json.hpp"

#include <set>
#include <stdexcept>
#include <vector>

namespace mds::trainer {

using Json = nlohmann::json;

std::string quoted(const std::string& text) {
  constexpr size_t kShownMax = 200;
  return Json(text.size() > kShownMax ? text.substr(0, kShownMax) + "..." : text)
      .dump(-1, ' ', true, Json::error_handler_t::replace);
}

Result<Json> parse_strictly(const std::string& what, std::span<const std::byte> bytes, int depth_max) {
  std::vector<std::set<std::string>> keys;
  const auto on_event = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > depth_max) throw std::runtime_error("is nested too deeply");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get_ref<const std::string&>()).second) {
      throw std::runtime_error("has the key " + quoted(value.get_ref<const std::string&>()) + " twice");
    }
    return true;
  };
  const char* begin = reinterpret_cast<const char*>(bytes.data());
  try {
    return Json::parse(begin, begin + bytes.size(), on_event);
  } catch (const Json::exception&) {
    return corrupt(what + " is not valid JSON");
  } catch (const std::exception& problem) {
    return corrupt(what + " " + problem.what());
  }
}

}  // namespace mds::trainer
