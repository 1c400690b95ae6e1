// Keys and values as text: the resolved job file and what messages and the reference say of a key.
#include "launcher/job_toml.hpp"

#include <type_traits>

#include "launcher/job_nearest.hpp"
#include "launcher/job_schema.hpp"
#include "launcher/job_values.hpp"

namespace mds::launcher {
namespace {

using std::chrono::milliseconds;

bool is_bare_key(const std::string& name) {
  constexpr const char* kBare = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
  return !name.empty() && name.find_first_not_of(kBare) == std::string::npos;
}

template <typename List, typename Format>
std::string bracketed(const List& list, Format format) {
  std::vector<std::string> parts;
  for (const auto& element : list) parts.push_back(format(element));
  return "[" + join_names(parts) + "]";
}

std::string bound(const Key& key, double value) {
  if (key.type == KeyType::duration) return format_duration(milliseconds(static_cast<int64_t>(value * 1000)));
  if (key.type == KeyType::number || key.type == KeyType::numbers) {
    std::string text = format_number(value);
    if (text.size() > 2 && text.substr(text.size() - 2) == ".0") text.resize(text.size() - 2);
    return text;
  }
  return std::to_string(static_cast<int64_t>(value));
}

std::string bounds(const Key& key) {
  if (!key.bounded || key.type == KeyType::size) return "";
  return (key.above_min ? " above " + bound(key, key.min) + ", up to " : " from " + bound(key, key.min) + " to ") +
         bound(key, key.max);
}

std::string counted(const Key& key, const std::string& what) {
  return "a list of " + (key.count == 0 ? "" : std::to_string(key.count) + " ") + what;
}

std::string quoted_choices(const Key& key) {
  std::vector<std::string> words;
  for (const std::string& choice : key.choices) words.push_back(toml_string(choice));
  return join_names(words);
}

std::string plain_type(const Key& key) {
  switch (key.type) {
    case KeyType::boolean:
      return "true or false";
    case KeyType::integer:
      return "an integer" + bounds(key);
    case KeyType::number:
      return "a number" + bounds(key);
    case KeyType::text:
      return "a string";
    case KeyType::choice:
      return "one of " + quoted_choices(key);
    case KeyType::size:
      return "a size such as \"80GiB\"";
    case KeyType::duration:
      return "a time such as \"30s\"" + bounds(key);
    case KeyType::texts:
      return counted(key, "strings") + (key.or_one ? " or one string" : "");
    case KeyType::numbers:
      return counted(key, "numbers") + bounds(key);
    case KeyType::text_table:
      return "a table of strings";
  }
  return "";
}

// Whether the resolved file of `job` says the key at all.
bool applies(const Key& key, const Job& job) {
  const bool cuda = job.device == topology::DeviceKind::cuda;
  if (key.path() == "job.gpus_per_node") return cuda;
  if (key.path() == "job.ranks_per_node") return !cuda;
  if (key.path() == "model.preset") return !job.model_preset.empty();
  if (key.path() == "data.path" || key.path() == "data.weights") return !job.trainer.data.sources.empty();
  if (key.section == "payload") return !job.payload.empty();
  return !find_section(key.section)->trains || job.payload.empty();
}

}  // namespace

std::string toml_string(std::string_view text) {
  constexpr const char* kHex = "0123456789ABCDEF";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += std::string("\\u00") + kHex[byte >> 4] + kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string to_toml(const Key& key, const KeyValue& value) {
  const auto format = [&](const auto& v) -> std::string {
    using T = std::decay_t<decltype(v)>;
    if constexpr (std::is_same_v<T, bool>) {
      return v ? "true" : "false";
    } else if constexpr (std::is_same_v<T, int64_t>) {
      return key.type == KeyType::size ? toml_string(format_size(v)) : std::to_string(v);
    } else if constexpr (std::is_same_v<T, double>) {
      return format_number(v);
    } else if constexpr (std::is_same_v<T, std::string>) {
      return toml_string(v);
    } else if constexpr (std::is_same_v<T, Choice>) {
      return toml_string(key.choices[v.index]);
    } else if constexpr (std::is_same_v<T, milliseconds>) {
      return toml_string(format_duration(v));
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      return bracketed(v, toml_string);
    } else if constexpr (std::is_same_v<T, std::vector<double>>) {
      return bracketed(v, format_number);
    } else {
      std::vector<std::string> members;
      for (const auto& [name, text] : v) {
        members.push_back((is_bare_key(name) ? name : toml_string(name)) + " = " + toml_string(text));
      }
      return members.empty() ? "{}" : "{ " + join_names(members) + " }";
    }
  };
  return std::visit(format, value);
}

KeyValue default_value(const Key& key) {
  static const Job nothing_said;
  return key.slot ? key.slot->load(nothing_said) : key.standard;
}

std::string describe_type(const Key& key) {
  return plain_type(key) + (key.automatic || key.on_request ? " or \"auto\"" : "");
}

std::string describe_default(const Key& key) {
  if (key.required) return "required";
  if (key.automatic) return "\"auto\"";
  return to_toml(key, default_value(key));
}

std::string resolved_toml(const Job& job) {
  std::string out = "# Resolved by mdslaunch " MDS_VERSION ": every key with its final value.\n";
  for (const Section& section : job_sections()) {
    std::string lines;
    for (const Key& key : job_schema()) {
      if (key.section != section.name || !applies(key, job)) continue;
      lines += key.name + " = " + to_toml(key, key.slot ? key.slot->load(job) : key.standard) + "\n";
    }
    if (!lines.empty()) out += "\n[" + section.name + "]\n" + lines;
  }
  return out;
}

}  // namespace mds::launcher
