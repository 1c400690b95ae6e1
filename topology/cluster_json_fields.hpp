// One JSON object being read, field by field, with its place in the document for errors.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "topology/result.hpp"

namespace mds::topology {

/// One JSON object with its place in the document. The first field that is wrong is kept as the error; getters then
/// return defaults, so that a parser reads as a list of fields.
class Fields {
 public:
  using json = nlohmann::json;
  static constexpr int kIndexMax = 1 << 20;  ///< of CPUs, NUMA nodes and list elements; Linux stops at 8192 CPUs

  Fields(const json& object, std::string where, std::optional<Error>& error)
      : object_(object), where_(std::move(where)), error_(error) {
    if (!object_.is_object()) fail("", "expected an object");
  }

  void get(const char* key, std::string& out, bool required = false) {
    const json* value = find(key, required);
    if (!value) return;
    read_text(*value, key, out);
  }

  void get(const char* key, bool& out) {
    const json* value = find(key, false);
    if (!value) return;
    if (!value->is_boolean()) return fail(key, "expected true or false");
    out = value->get<bool>();
  }

  void get(const char* key, double& out) {
    const json* value = find(key, false);
    if (!value) return;
    if (!value->is_number() || !(value->get<double>() >= 0)) return fail(key, "expected a number >= 0");
    out = value->get<double>();
  }

  void get(const char* key, uint64_t& out) {
    const json* value = find(key, false);
    if (!value) return;
    if (!value->is_number_unsigned()) return fail(key, "expected a whole number >= 0");
    out = value->get<uint64_t>();
  }

  void get(const char* key, int& out, bool required = false, int min = 0) {
    const json* value = find(key, required);
    if (value) read_index(*value, key, min, out);
  }

  void get(const char* key, std::vector<int>& out, bool required = true) {
    const json* value = array(key, required);
    if (!value) return;
    for (size_t i = 0; i < value->size() && !error_; ++i) {
      int number = 0;
      read_index((*value)[i], element(key, i), 0, number);
      out.push_back(number);
    }
  }

  void get(const char* key, std::vector<std::string>& out) {
    const json* value = array(key, false);
    if (!value) return;
    for (size_t i = 0; i < value->size() && !error_; ++i) read_text((*value)[i], element(key, i), out.emplace_back());
  }

  /// One of `names`, whose place among them is the enumerator.
  template <typename Enum, size_t N>
  void get(const char* key, Enum& out, const std::array<const char*, N>& names) {
    std::string text;
    get(key, text, true);
    if (error_) return;
    const auto found = std::find(names.begin(), names.end(), text);
    if (found != names.end()) {
      out = static_cast<Enum>(found - names.begin());
      return;
    }
    std::string known;
    for (const char* name : names) known += (known.empty() ? "" : ", ") + std::string(name);
    fail(key, "\"" + text + "\" is not one of " + known);
  }

  /// One object; `read(fields)` reads it.
  template <typename Read>
  void object(const char* key, Read read) {
    const json* value = find(key, false);
    if (!value) return;
    Fields fields(*value, path(key), error_);
    if (!error_) read(fields);
  }

  /// An array of objects; `read(fields, element)` fills each.
  template <typename T, typename Read>
  void get(const char* key, std::vector<T>& out, bool required, Read read) {
    const json* value = array(key, required);
    if (!value) return;
    for (size_t i = 0; i < value->size() && !error_; ++i) {
      Fields fields((*value)[i], path(element(key, i)), error_);
      if (!error_) read(fields, out.emplace_back());
    }
  }

  bool failed() const { return error_.has_value(); }

  /// The first one counts. An empty key is the object itself.
  void fail(const std::string& key, const std::string& problem) {
    if (error_) return;
    const std::string place = path(key);
    error_ = bad_input(place.empty() ? problem : place + ": " + problem);
  }

 private:
  const json* find(const char* key, bool required) {
    if (error_) return nullptr;
    const auto found = object_.find(key);
    if (found != object_.end()) return &*found;
    if (required) fail(key, "is missing");
    return nullptr;
  }

  const json* array(const char* key, bool required) {
    const json* value = find(key, required);
    if (value && !value->is_array()) return fail(key, "expected an array"), nullptr;
    return value;
  }

  void read_index(const json& value, const std::string& key, int min, int& out) {
    const bool whole = value.is_number_integer();
    // An unsigned number above int64_t's range would wrap: compare it as what it is.
    const bool small = whole && (value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t{kIndexMax}
                                                            : value.get<int64_t>() >= min);
    if (!small) {
      return fail(key, "expected a whole number from " + std::to_string(min) + " to " + std::to_string(kIndexMax));
    }
    out = value.get<int>();
  }

  /// Names end up in terminals, pictures and JSON: only printable ASCII, and not whole books of it.
  void read_text(const json& value, const std::string& key, std::string& out) {
    if (!value.is_string()) return fail(key, "expected a string");
    out = value.get<std::string>();
    const bool printable = std::all_of(out.begin(), out.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
    if (!printable || out.size() > 4096) fail(key, "expected at most 4096 characters of printable ASCII");
  }

  static std::string element(const std::string& key, size_t i) { return key + "[" + std::to_string(i) + "]"; }
  std::string path(const std::string& key) const {
    return where_.empty() ? key : key.empty() ? where_ : where_ + "." + key;
  }

  const json& object_;
  const std::string where_;
  std::optional<Error>& error_;
};

}  // namespace mds::topology
