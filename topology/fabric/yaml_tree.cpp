#include "topology/fabric/yaml_tree.hpp"

#include <yaml.h>

#include <memory>
#include <set>

#include "topology/fabric/host_ranges.hpp"

namespace mds::topology {
namespace {

constexpr size_t kYamlBytesMax = size_t{64} << 20;
constexpr int kDepthMax = 64;
constexpr int kNodesMax = 1'000'000;

/// One libyaml event, freed with its scope.
class Event {
 public:
  explicit Event(yaml_parser_t& parser) : parsed_(yaml_parser_parse(&parser, &event_) != 0) {}
  ~Event() {
    if (parsed_) yaml_event_delete(&event_);
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  explicit operator bool() const { return parsed_; }
  const yaml_event_t& operator*() const { return event_; }
  int line() const { return static_cast<int>(event_.start_mark.line) + 1; }

 private:
  yaml_event_t event_{};
  const bool parsed_;
};

class Reader {
 public:
  explicit Reader(std::string_view text) {
    yaml_parser_initialize(&parser_);
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  ~Reader() { yaml_parser_delete(&parser_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  Result<YamlNode> document() {
    while (true) {
      const Event event(parser_);
      if (!event) return syntax_error();
      if ((*event).type == YAML_STREAM_END_EVENT) return bad_input("an empty YAML document");
      if ((*event).type == YAML_DOCUMENT_START_EVENT) break;
    }
    YamlNode root;
    const Event event(parser_);
    if (!event) return syntax_error();
    if (const Status done = value(event, root, 1); !done) return done.error();
    return root;
  }

 private:
  Status value(const Event& event, YamlNode& out, int depth) {
    out.line = event.line();
    if (++nodes_ > kNodesMax) return at_line(out.line, "more than 1,000,000 YAML values");
    if (depth > kDepthMax) return at_line(out.line, "YAML nested more than 64 levels deep");
    switch ((*event).type) {
      case YAML_SCALAR_EVENT:
        return scalar(event, out.scalar);
      case YAML_SEQUENCE_START_EVENT:
        return list(out, depth);
      case YAML_MAPPING_START_EVENT:
        return map(out, depth);
      default:
        return at_line(out.line, "YAML aliases (*name) are not supported: write the value out");
    }
  }

  static Status scalar(const Event& event, std::string& out) {
    const auto& data = (*event).data.scalar;
    out.assign(reinterpret_cast<const char*>(data.value), data.length);
    if (data.style == YAML_PLAIN_SCALAR_STYLE && (out == "~" || out == "null" || out == "Null" || out == "NULL")) {
      out.clear();
    }
    for (const char c : out) {
      if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') {
        return at_line(event.line(), "a control character in a YAML value");
      }
    }
    return {};
  }

  Status list(YamlNode& out, int depth) {
    out.kind = YamlNode::Kind::list;
    while (true) {
      const Event event(parser_);
      if (!event) return syntax_error();
      if ((*event).type == YAML_SEQUENCE_END_EVENT) return {};
      if (const Status done = value(event, out.items.emplace_back(), depth + 1); !done) return done;
    }
  }

  Status map(YamlNode& out, int depth) {
    out.kind = YamlNode::Kind::map;
    std::set<std::string> seen;
    while (true) {
      std::string key;
      {
        const Event event(parser_);
        if (!event) return syntax_error();
        if ((*event).type == YAML_MAPPING_END_EVENT) return {};
        if ((*event).type != YAML_SCALAR_EVENT) return at_line(event.line(), "a key must be a plain name");
        if (const Status done = scalar(event, key); !done) return done;
        if (!seen.insert(key).second) return at_line(event.line(), "the key \"" + key + "\" is given twice");
      }
      const Event event(parser_);
      if (!event) return syntax_error();
      out.fields.emplace_back(std::move(key), YamlNode());
      if (const Status done = value(event, out.fields.back().second, depth + 1); !done) return done;
    }
  }

  Error syntax_error() const {
    const std::string problem = parser_.problem ? parser_.problem : "not YAML";
    return at_line(static_cast<int>(parser_.problem_mark.line) + 1, "not YAML: " + problem);
  }

  yaml_parser_t parser_;
  int nodes_ = 0;
};

}  // namespace

const YamlNode* YamlNode::find(std::string_view key) const {
  for (const auto& [name, value] : fields) {
    if (name == key) return &value;
  }
  return nullptr;
}

Result<YamlNode> read_yaml(std::string_view text) {
  if (text.size() > kYamlBytesMax) return bad_input("larger than 64 MiB");
  return Reader(text).document();
}

Result<std::vector<std::string>> yaml_hosts(const YamlNode& node, size_t& names_left) {
  if (node.kind == YamlNode::Kind::map) return at_line(node.line, "expected a list of names");
  if (node.kind == YamlNode::Kind::scalar) {
    auto hosts = expand_hosts_within(node.scalar, names_left);
    if (!hosts) return at_line(node.line, hosts.error().message);
    return hosts;
  }
  std::vector<std::string> all;
  for (const YamlNode& item : node.items) {
    if (item.kind != YamlNode::Kind::scalar) return at_line(item.line, "expected a name");
    auto hosts = expand_hosts_within(item.scalar, names_left);
    if (!hosts) return at_line(item.line, hosts.error().message);
    std::move(hosts->begin(), hosts->end(), std::back_inserter(all));
  }
  return all;
}

Error at_line(int line, const std::string& what) { return bad_input("line " + std::to_string(line) + ": " + what); }

}  // namespace mds::topology
