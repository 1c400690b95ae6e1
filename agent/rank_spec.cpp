#include "agent/rank_spec.hpp"

#include <limits>

#include <nlohmann/json.hpp>

#include "agent/stage_list.hpp"
#include "agent/stage_store.hpp"
#include "container/sha256.hpp"

namespace mds::agent {
namespace {

using nlohmann::json;

// Reads the fields of one JSON object; remembers the first fault, so that callers check once at the end.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fault("an object is expected");
  }

  template <typename T>
  void integer(const char* name, T& out) {
    const json* value = find(name);
    if (value && integer_fits<T>(*value)) {
      out = value->get<T>();
    } else {
      fault(name, "an integer in range is expected");
    }
  }

  void boolean(const char* name, bool& out) {
    const json* value = find(name);
    if (value && value->is_boolean()) {
      out = value->get<bool>();
    } else {
      fault(name, "true or false is expected");
    }
  }

  void text(const char* name, std::string& out) {
    const json* value = find(name);
    if (value && is_c_string(*value)) {
      out = value->get<std::string>();
    } else {
      fault(name, "a text without NUL is expected");
    }
  }

  void texts(const char* name, std::vector<std::string>& out) {
    list(name, "a list of texts without NUL is expected", out, is_c_string);
  }

  void integers(const char* name, std::vector<int>& out) {
    list(name, "a list of integers >= 0 is expected", out,
         [](const json& value) { return integer_fits<int>(value) && value.get<int>() >= 0; });
  }

  void text_map(const char* name, std::map<std::string, std::string>& out) {
    const json* value = find(name);
    if (!value || !value->is_object()) return fault(name, "an object of texts is expected");
    for (const auto& [key, item] : value->items()) {
      const bool name_is_good = !key.empty() && key.find('=') == std::string::npos && is_c_string(json(key));
      if (!name_is_good || !is_c_string(item)) return fault(name, "variable '" + key + "' cannot be set");
      out[key] = item.get<std::string>();
    }
  }

  const json* array(const char* name) {
    const json* value = find(name);
    if (value && value->is_array()) return value;
    fault(name, "a list is expected");
    return nullptr;
  }

  void fault(const std::string& what) {
    if (!error_) error_ = bad_input(where_ + ": " + what);
  }
  void fault(const char* name, const std::string& what) { fault(std::string(name) + ": " + what); }
  const std::optional<Error>& error() const { return error_; }

 private:
  template <typename T>
  static bool integer_fits(const json& value) {
    if (value.is_number_unsigned()) return value.get<uint64_t>() <= uint64_t(std::numeric_limits<T>::max());
    return value.is_number_integer() && value.get<int64_t>() >= int64_t(std::numeric_limits<T>::min());
  }
  static bool is_c_string(const json& value) {
    return value.is_string() && value.get_ref<const std::string&>().find('\0') == std::string::npos;
  }
  const json* find(const char* name) const {
    if (!object_.is_object()) return nullptr;
    const auto at = object_.find(name);
    return at == object_.end() ? nullptr : &*at;
  }
  template <typename T, typename Check>
  void list(const char* name, const char* expected, std::vector<T>& out, Check check) {
    const json* values = find(name);
    if (!values || !values->is_array()) return fault(name, expected);
    for (const json& value : *values) {
      if (!check(value)) return fault(name, expected);
      out.push_back(value.get<T>());
    }
  }

  const json& object_;
  std::string where_;
  std::optional<Error> error_;
};

using Environment = std::map<std::string, std::string>;

/// What all ranks' own environments share: it travels once.
Environment shared_environment(const std::vector<RankSpec>& ranks) {
  if (ranks.size() < 2) return {};
  Environment shared = ranks[0].env;
  for (const RankSpec& spec : ranks) {
    std::erase_if(shared, [&](const auto& entry) {
      const auto at = spec.env.find(entry.first);
      return at == spec.env.end() || at->second != entry.second;
    });
  }
  return shared;
}

json to_json(const RankSpec& spec, const Environment& shared) {
  Environment own = spec.env;
  std::erase_if(own, [&](const auto& entry) { return shared.count(entry.first) > 0; });
  return {{"rank", spec.rank},
          {"local_rank", spec.local_rank},
          {"argv", spec.argv},
          {"env", std::move(own)},
          {"working_dir", spec.working_dir},
          {"cpus", spec.cpus},
          {"memory_nodes", spec.memory_nodes},
          {"log_path", spec.log_path}};
}

Result<RankSpec> rank_spec_from_json(const json& object, size_t index) {
  Fields fields(object, "ranks[" + std::to_string(index) + "]");
  RankSpec spec;
  fields.integer("rank", spec.rank);
  fields.integer("local_rank", spec.local_rank);
  fields.texts("argv", spec.argv);
  fields.text_map("env", spec.env);
  fields.text("working_dir", spec.working_dir);
  fields.integers("cpus", spec.cpus);
  fields.integers("memory_nodes", spec.memory_nodes);
  fields.text("log_path", spec.log_path);
  if (spec.argv.empty() || spec.argv[0].empty()) fields.fault("argv", "a program is expected");
  if (spec.rank < 0) fields.fault("rank", "must be >= 0");
  if (fields.error()) return *fields.error();
  return spec;
}

json to_json(const StageSpec& stage) {
  return {{"folder", stage.folder}, {"run", stage.run},   {"sha256", stage.sha256},
          {"bytes", stage.bytes},   {"keep", stage.keep}, {"programs", stage.programs}};
}

Result<StageSpec> stage_spec_from_json(const json& object) {
  Fields fields(object, "stage");
  StageSpec stage;
  fields.text("folder", stage.folder);
  fields.text("run", stage.run);
  fields.text("sha256", stage.sha256);
  fields.integer("bytes", stage.bytes);
  fields.boolean("keep", stage.keep);
  fields.text("programs", stage.programs);
  if (!is_stage_path(stage.folder)) fields.fault("folder", "an absolute path is expected");
  if (stage.run.empty() || stage.run.front() == '.' || stage.run.find('/') != std::string::npos) {
    fields.fault("run", "a name is expected");
  }
  if (!container::is_sha256(stage.sha256)) fields.fault("sha256", "a digest is expected");
  if (stage.bytes > kStageListBytesMax) fields.fault("bytes", "too many");
  if (fields.error()) return *fields.error();
  return stage;
}

}  // namespace

json to_json(const NodeStart& start) {
  json ranks = json::array();
  Environment shared = shared_environment(start.ranks);
  for (const RankSpec& spec : start.ranks) ranks.push_back(to_json(spec, shared));
  shared.insert(start.env.begin(), start.env.end());
  json out = {{"attempt", start.attempt},
              {"env", shared},
              {"ranks", std::move(ranks)},
              {"mpi", start.mpi},
              {"forward_output", start.forward_output},
              {"tail_lines", start.tail_lines},
              {"heartbeat_ms", start.heartbeat_ms},
              {"container", container::to_json(start.container)}};
  if (!start.stage.folder.empty()) out["stage"] = to_json(start.stage);
  return out;
}

Result<NodeStart> node_start_from_json(const json& object) {
  Fields fields(object, "start");
  NodeStart start;
  fields.integer("attempt", start.attempt);
  if (object.is_object() && object.contains("mpi")) fields.boolean("mpi", start.mpi);
  fields.boolean("forward_output", start.forward_output);
  fields.integer("tail_lines", start.tail_lines);
  fields.integer("heartbeat_ms", start.heartbeat_ms);
  const json* ranks = fields.array("ranks");
  if (object.is_object() && object.contains("env")) fields.text_map("env", start.env);
  if (object.is_object() && object.contains("container")) {
    auto container = container::container_from_json(object["container"]);
    if (!container) return container.error().within("start");
    start.container = *std::move(container);
  }
  if (object.is_object() && object.contains("stage")) {
    auto stage = stage_spec_from_json(object["stage"]);
    if (!stage) return stage.error().within("start");
    start.stage = *std::move(stage);
  }
  if (start.heartbeat_ms == 0) fields.fault("heartbeat_ms", "must be > 0");
  if (fields.error()) return *fields.error();
  for (size_t i = 0; i < ranks->size(); ++i) {
    auto spec = rank_spec_from_json((*ranks)[i], i);
    if (!spec) return spec.error().within("start");
    for (const RankSpec& other : start.ranks) {
      if (other.rank == spec->rank) return bad_input("start: rank " + std::to_string(spec->rank) + " is there twice");
    }
    spec->env.insert(start.env.begin(), start.env.end());  // insert() keeps what is its own
    start.ranks.push_back(*std::move(spec));
  }
  return start;
}

}  // namespace mds::agent
