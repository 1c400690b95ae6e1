#include "slurm/script.hpp"

#include <algorithm>
#include <cctype>

namespace mds::slurm {
namespace {

constexpr int64_t kMiB = 1 << 20;

bool is_one_line(const std::string& text) { return text.find_first_of("\r\n") == std::string::npos; }

/// Minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS, or a word such as "UNLIMITED".
bool is_time(const std::string& text) {
  const bool word = std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalpha(c); });
  return word || text.find_first_not_of("0123456789:-") == std::string::npos;
}

/// An option's value is read by sbatch, not by a shell: only white space needs quotes.
std::string option_value(const std::string& value) {
  return value.find_first_of(" \t\"#") == std::string::npos ? value : "\"" + value + "\"";
}

Status check(const BatchScript& script) {
  const std::pair<const char*, const std::string*> lines[] = {
      {"job.name", &script.job_name},         {"job.nodes", &script.nodes},
      {"slurm.partition", &script.partition}, {"slurm.account", &script.account},
      {"slurm.time", &script.time},           {"slurm.array", &script.array},
      {"job.output_dir", &script.output_dir}, {"the working folder", &script.working_dir}};
  for (const auto& [name, value] : lines) {
    if (!is_one_line(*value) || value->find('"') != std::string::npos) {
      return bad_input(std::string(name) + " has a line break or a '\"', which an #SBATCH line cannot carry");
    }
  }
  if (!is_time(script.time))
    return bad_input("slurm.time = \"" + script.time + "\" is no time, such as \"2-00:00:00\"");
  if (script.array.find_first_not_of("0123456789-,:%") != std::string::npos) {
    return bad_input("slurm.array = \"" + script.array + "\" is no list of numbers, such as \"1-8%2\"");
  }
  for (const std::string& option : script.extra) {
    if (!option.starts_with("--") || !is_one_line(option)) {
      return bad_input("slurm.extra: \"" + option.substr(0, 60) + "\" is no option of sbatch, such as \"--qos=high\"");
    }
  }
  for (const std::string& line : script.setup) {
    if (!is_one_line(line)) return bad_input("slurm.setup: one line a text, please");
  }
  return {};
}

/// Collects the #SBATCH lines.
class Options {
 public:
  void add(const std::string& name, const std::string& value) {
    if (!value.empty()) line("--" + name + "=" + option_value(value));
  }
  void line(const std::string& option) { text_ += "#SBATCH " + option + "\n"; }
  void comment(const std::string& sentence) { text_ += "# " + sentence + "\n"; }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string options_text(const BatchScript& script) {
  Options options;
  options.add("job-name", script.job_name);
  options.add("partition", script.partition);
  options.add("account", script.account);
  options.add("time", script.time);
  options.add("array", script.array);
  options.add("nodes", script.nodes);
  options.line("--ntasks-per-node=1");
  if (script.exclusive) options.line("--exclusive");
  if (script.gpus_per_node > 0) options.add("gpus-per-node", std::to_string(script.gpus_per_node));
  options.add("mem", script.memory_bytes > 0 ? std::to_string((script.memory_bytes + kMiB - 1) / kMiB) + "M" : "0");
  options.comment("What mdslaunch prints; a job that is started again goes on in the same file.");
  options.add("output", script.output_dir + "/%x-" + (script.array.empty() ? "%j" : "%A_%a") + ".out");
  options.line("--open-mode=append");
  if (script.signal_before_end_s > 0) {
    options.comment("Before the time limit Slurm signals this shell, whose place mdslaunch takes below: it writes a");
    options.comment(script.requeue ? "checkpoint, has the job queued again, and leaves with exit code 75."
                                   : "checkpoint and leaves with exit code 75.");
    options.line("--signal=B:USR1@" + std::to_string(script.signal_before_end_s));
  }
  options.line(script.requeue ? "--requeue" : "--no-requeue");
  if (script.no_kill) {
    options.comment("A lost node does not end the job: mdslaunch goes on without it, as restart.lost_node says.");
    options.line("--no-kill");
  }
  for (const std::string& option : script.extra) options.line(option);
  return options.text();
}

}  // namespace

std::string quoted(const std::string& word) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) || std::string_view("_-./=:,+@%^").find(c) != std::string::npos;
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

Result<std::string> batch_script(const BatchScript& script) {
  if (Status s = check(script); !s) return s.error();
  std::string text = "#!/bin/bash\n";
  for (const std::string& note : script.notes) text += "# " + note + "\n";
  text += "#\n" + options_text(script) + "\nset -euo pipefail\ncd " + quoted(script.working_dir) + "\n";
  for (const std::string& line : script.setup) text += line + "\n";
  text +=
      "\n# Nodes, GPUs, time limit and restarts come from Slurm. mdslaunch takes the place of this shell, so that "
      "Slurm's\n"
      "# signals reach it.\nexec";
  for (const std::string& word : script.command) text += " " + quoted(word);
  for (const std::string& key : script.seeds_from_array) {
    if (!script.array.empty()) text += " \\\n  --set " + key + "=\"$SLURM_ARRAY_TASK_ID\"";
  }
  return text + "\n";
}

}  // namespace mds::slurm
