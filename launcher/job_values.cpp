#include "launcher/job_values.hpp"

#include <algorithm>
#include <cmath>

#include "launcher/job_nearest.hpp"

namespace mds::launcher {
namespace {

constexpr size_t kShownMax = 60;  // characters of the user's text that a message repeats

std::string quoted(const std::string& text) {
  return toml_string(text.size() <= kShownMax ? text : text.substr(0, kShownMax) + "...");
}

std::string shown(const DocumentNode& node) {
  if (const std::string* text = node.text()) return "the string " + quoted(*text);
  if (const auto* integer = std::get_if<int64_t>(&node.value)) return "the integer " + std::to_string(*integer);
  if (const auto* number = std::get_if<double>(&node.value)) return "the number " + format_number(*number);
  if (const auto* boolean = std::get_if<bool>(&node.value)) return *boolean ? "true" : "false";
  return kind_of(node);
}

Error wrong_type(const Key& key, const DocumentNode& node) {
  std::string remedy;
  const bool list = key.type == KeyType::texts || key.type == KeyType::numbers;
  if (list && node.text()) remedy = "; write " + key.name + " = [...]";
  if (key.type == KeyType::duration && std::holds_alternative<int64_t>(node.value)) {
    remedy = "; did you mean \"" + std::to_string(std::get<int64_t>(node.value)) + "s\"?";
  }
  return bad_input(key.path() + " must be " + describe_type(key) + ", not " + shown(node) + remedy);
}

Error not_available(const Key& key, const std::string& value, const std::string& remedy) {
  return bad_input("not available yet in this version: " + key.path() + " = " + value + "; " + remedy);
}

Status check_bounds(const Key& key, double number, const std::string& written) {
  const bool low = key.bounded && (key.above_min ? number <= key.min : number < key.min);
  const bool high = key.bounded && number > key.max;
  if (low || high || !std::isfinite(number)) {
    return bad_input(key.path() + " must be " + describe_type(key) + ", not " + written);
  }
  if (key.not_yet_above && number > *key.not_yet_above) {
    return not_available(key, written, "use at most " + std::to_string(static_cast<int64_t>(*key.not_yet_above)));
  }
  return {};
}

Status check_text(const Key& key, const std::string& text) {
  if (text.find('\0') != std::string::npos) return bad_input(key.path() + " must not contain a NUL character");
  return {};
}

Result<KeyValue> convert_choice(const Key& key, const std::string& word) {
  const auto found = std::find(key.choices.begin(), key.choices.end(), word);
  if (found == key.choices.end()) {
    return bad_input(key.path() + " must be " + describe_type(key) + ", not " + quoted(word) +
                     did_you_mean(word, key.choices));
  }
  if (std::find(key.not_yet.begin(), key.not_yet.end(), word) != key.not_yet.end()) {
    std::vector<std::string> available;
    for (const std::string& choice : key.choices) {
      if (std::find(key.not_yet.begin(), key.not_yet.end(), choice) == key.not_yet.end()) available.push_back(choice);
    }
    return not_available(key, toml_string(word), "use " + join_names(available, " or "));
  }
  return KeyValue(Choice{static_cast<int>(found - key.choices.begin()), word});
}

Result<double> convert_number(const Key& key, const DocumentNode& node) {
  double number = 0;
  if (const auto* integer = std::get_if<int64_t>(&node.value)) {
    number = static_cast<double>(*integer);
  } else if (const auto* real = std::get_if<double>(&node.value)) {
    number = *real;
  } else {
    return wrong_type(key, node);
  }
  if (Status status = check_bounds(key, number, format_number(number)); !status) return status.error();
  return number;
}

Result<KeyValue> convert_integer(const Key& key, const DocumentNode& node) {
  const auto* integer = std::get_if<int64_t>(&node.value);
  if (!integer) return wrong_type(key, node);
  Status status = check_bounds(key, static_cast<double>(*integer), std::to_string(*integer));
  if (!status) return status.error();
  return KeyValue(*integer);
}

Result<KeyValue> convert_text(const Key& key, const DocumentNode& node) {
  const bool scalar = !node.list() && !node.table();
  const std::string* text = node.text();
  if (!text && node.place.from_set && scalar) text = &node.raw;  // --set job.name=2026: a name, not a number
  if (!text) return wrong_type(key, node);
  if (key.type == KeyType::choice) return convert_choice(key, *text);
  if (Status status = check_text(key, *text); !status) return status.error();
  return KeyValue(*text);
}

Result<KeyValue> convert_size(const Key& key, const DocumentNode& node) {
  std::optional<int64_t> bytes;
  if (const auto* integer = std::get_if<int64_t>(&node.value)) bytes = *integer;
  if (node.text()) bytes = parse_size(*node.text());
  if (!bytes) return wrong_type(key, node);
  Status status = check_bounds(key, static_cast<double>(*bytes), std::to_string(*bytes));
  if (!status) return status.error();
  return KeyValue(*bytes);
}

Result<KeyValue> convert_duration(const Key& key, const DocumentNode& node) {
  const auto duration = node.text() ? parse_duration(*node.text()) : std::nullopt;
  if (!duration) return wrong_type(key, node);
  Status status = check_bounds(key, static_cast<double>(duration->count()) / 1e3, quoted(*node.text()));
  if (!status) return status.error();
  return KeyValue(*duration);
}

Result<KeyValue> convert_list(const Key& key, const DocumentNode& node) {
  const DocumentList one{node};
  const DocumentList* list = node.list();
  if (!list && key.or_one && node.text()) list = &one;
  if (!list) return wrong_type(key, node);
  if (key.count != 0 && list->size() != key.count) {
    return bad_input(key.path() + " must be " + describe_type(key) + ", not " + std::to_string(list->size()));
  }
  std::vector<std::string> texts;
  std::vector<double> numbers;
  for (const DocumentNode& element : *list) {
    if (key.type == KeyType::numbers) {
      Result<double> number = convert_number(key, element);
      if (!number) return number.error();
      numbers.push_back(*number);
    } else {
      if (!element.text()) return wrong_type(key, element);
      if (Status status = check_text(key, *element.text()); !status) return status.error();
      texts.push_back(*element.text());
    }
  }
  if (key.type == KeyType::numbers) return KeyValue(std::move(numbers));
  return KeyValue(std::move(texts));
}

Result<KeyValue> convert_text_table(const Key& key, const DocumentNode& node) {
  if (!node.table()) return wrong_type(key, node);
  std::map<std::string, std::string> out;
  for (const DocumentMember& member : *node.table()) {
    const DocumentNode& inner = member.node;
    const bool bare_set = inner.place.from_set && !inner.list() && !inner.table() && !inner.raw.empty();
    const std::string* text = inner.text() ? inner.text() : bare_set ? &inner.raw : nullptr;
    const bool name_ok = !member.name.empty() && member.name.find_first_of(std::string("=\0", 2)) == std::string::npos;
    if (!name_ok) return bad_input(key.path() + " has a name that is empty or contains '='");
    if (!text) {
      return bad_input(key.path() + "." + quoted(member.name) + " must be a string, not " + shown(inner) +
                       "; put it in quotes");
    }
    if (Status status = check_text(key, *text); !status) return status.error();
    out[member.name] = *text;
  }
  return KeyValue(std::move(out));
}

Result<KeyValue> convert_by_type(const Key& key, const DocumentNode& node) {
  switch (key.type) {
    case KeyType::boolean:
      if (const bool* value = std::get_if<bool>(&node.value)) return KeyValue(*value);
      return wrong_type(key, node);
    case KeyType::integer:
      return convert_integer(key, node);
    case KeyType::number: {
      Result<double> number = convert_number(key, node);
      if (!number) return number.error();
      return KeyValue(*number);
    }
    case KeyType::text:
    case KeyType::choice:
      return convert_text(key, node);
    case KeyType::size:
      return convert_size(key, node);
    case KeyType::duration:
      return convert_duration(key, node);
    case KeyType::texts:
    case KeyType::numbers:
      return convert_list(key, node);
    case KeyType::text_table:
      return convert_text_table(key, node);
  }
  return internal("a key type is missing here");
}

}  // namespace

Result<KeyValue> convert_value(const Key& key, const DocumentNode& node) {
  if (key.slot) return convert_by_type(key, node);
  const Result<KeyValue> value = convert_by_type(key, node);  // nothing reads such a key yet:
  if (!value) return value.error();                           // its default is all that can be honoured
  const std::string standard = to_toml(key, key.standard);
  const std::string written = to_toml(key, *value);
  if (written != standard) return not_available(key, written, "leave it out");
  return key.standard;
}

}  // namespace mds::launcher
