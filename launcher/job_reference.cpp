// The part of docs/reference.md that describes job.toml, from the table that the parser uses.
#include "launcher/job_file.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/job_schema.hpp"

namespace mds::launcher {
namespace {

// A '|' would end the cell of a table.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

std::string availability(const Key& key) {
  if (!key.slot) return " *Not available yet: this version takes the default only.*";
  if (key.not_yet_above) {
    return " *Not available yet: above " + std::to_string(static_cast<int64_t>(*key.not_yet_above)) + ".*";
  }
  if (!key.not_yet.empty()) return " *Not available yet: " + join_names(key.not_yet) + ".*";
  return "";
}

std::string default_cell(const Key& key) {
  const std::string text = describe_default(key);
  const bool nothing = text == "\"\"" || text == "[]" || text == "{}";
  if (nothing) return "";
  return text == "required" ? text : "`" + text + "`";
}

}  // namespace

std::string job_reference_markdown() {
  std::string out =
      "## The job file\n\n"
      "TOML. Unknown keys, wrong types and impossible combinations are errors with line and column, all of them "
      "reported "
      "in one run. Sizes are written \"80GiB\", times \"30s\". `--set section.key=value` overrides any key.\n\n";
  for (const Section& section : job_sections()) {
    out += "### `[" + section.name + "]`\n\n" + section.doc +
           (section.trains ? " For jobs that train with mdstrain." : "") +
           "\n\n| Key | Value | Default | Meaning |\n|---|---|---|---|\n";
    for (const Key& key : job_schema()) {
      if (key.section != section.name) continue;
      out += "| `" + key.name + "` | " + cell(describe_type(key)) + " | " + cell(default_cell(key)) + " | " +
             cell(key.doc + availability(key)) + " |\n";
    }
    if (section.name == "model") {
      out += "\nPresets: " + join_names(trainer::model_preset_names()) + ".\n";
    }
    out += "\n";
  }
  return out;
}

}  // namespace mds::launcher
