// The one table of job.toml: every key with its type, default, bounds, meaning and place in a Job. The parser, --set,
// the resolved file and the reference all read this table; a key that is not in it does not exist.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "launcher/job.hpp"

namespace mds::launcher {

enum class KeyType {
  boolean,
  integer,
  number,
  text,
  choice,      ///< one of Key::choices
  size,        ///< "80GiB": bytes
  duration,    ///< "30s", "500ms", "2h"
  texts,       ///< list of strings
  numbers,     ///< list of numbers
  text_table,  ///< names to strings
};

/// One of Key::choices: its place in that list (for enums) and its word.
struct Choice {
  int index = 0;
  std::string word;
};

/// A value of a key after its type, choices and bounds were checked. A size is an int64_t in bytes.
using KeyValue = std::variant<bool, int64_t, double, std::string, Choice, std::chrono::milliseconds,
                              std::vector<std::string>, std::vector<double>, std::map<std::string, std::string>>;

/// Where a key is kept in a Job.
struct Slot {
  void (*store)(Job& job, const KeyValue& value) = nullptr;  ///< the value has the key's type
  KeyValue (*load)(const Job& job) = nullptr;                ///< a std::string "auto" where it is left to the run
};

struct Key {
  std::string section;
  std::string name;
  KeyType type = KeyType::text;
  std::string doc;                   ///< one line
  std::vector<std::string> choices;  ///< in the order of the enum that stores them
  std::vector<std::string> not_yet;  ///< choices that this version cannot honour
  double min = 0, max = 0;           ///< bounds of every number (duration: seconds), if `bounded`
  bool bounded = false;
  bool above_min = false;               ///< min itself is not allowed
  std::optional<double> not_yet_above;  ///< larger numbers cannot be honoured by this version
  bool required = false;                ///< for a job that trains
  bool automatic = false;               ///< also takes "auto", which is the default
  bool on_request = false;              ///< also takes "auto", which is not the default
  bool or_one = false;                  ///< a list that may be written as one value
  size_t count = 0;                     ///< exact length of a list; 0: any
  KeyValue standard;                    ///< default of a key without a slot
  std::optional<Slot> slot;             ///< none: this version honours the default only

  std::string path() const { return section + "." + name; }
};

struct Section {
  std::string name;
  std::string doc;
  bool trains = false;  ///< means something to mdstrain only
};

const std::vector<Section>& job_sections();  ///< in the order of the reference
const std::vector<Key>& job_schema();        ///< in the same order; a key comes after those it builds on

const Section* find_section(std::string_view name);
const Key* find_key(std::string_view section, std::string_view name);
std::vector<std::string> section_names();
std::vector<std::string> key_names(std::string_view section);

/// "an integer from 1 to 8", for messages and the reference.
std::string describe_type(const Key& key);
/// What a job file that says nothing gets: TOML, or "required", or "auto".
std::string describe_default(const Key& key);
KeyValue default_value(const Key& key);

/// The value as TOML; parsing it again gives the same value.
std::string to_toml(const Key& key, const KeyValue& value);
std::string toml_string(std::string_view text);

}  // namespace mds::launcher
