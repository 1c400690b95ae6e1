#include "launcher/job_file.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <tuple>

#include "launcher/job_draft.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/job_toml.hpp"
#include "launcher/job_values.hpp"
#include "launcher/plan_environment.hpp"

namespace mds::launcher {
namespace {

namespace fs = std::filesystem;

// Where a key of that name would be right: "; it belongs to [optimizer]".
std::string rightful_section(const std::string& name) {
  for (const Key& key : job_schema()) {
    if (key.name == name) return "; it belongs to [" + key.section + "]";
  }
  return "";
}

void mark_section_bad(JobDraft& draft, const std::string& section) {
  for (const std::string& name : key_names(section)) draft.bad.insert(section + "." + name);
}

void report_unknown_section(JobDraft& draft, const DocumentMember& member) {
  const std::string shown = member.name.substr(0, 60);
  if (!member.node.table()) {
    const std::string home = rightful_section(member.name);
    for (const Key& key : job_schema()) {
      if (key.name == member.name) draft.bad.insert(key.path());
    }
    const std::string remedy = home.empty() ? did_you_mean(member.name, section_names()) : home;
    return draft.report(member.place, "'" + shown + "' stands outside any section" + remedy);
  }
  const std::string guess = did_you_mean(member.name, section_names());
  mark_section_bad(draft, nearest_name(member.name, section_names()));  // so that its keys are not called missing
  draft.report(member.place, "unknown section [" + shown + "]" +
                                 (guess.empty() ? "; there are " + join_names(section_names()) : guess));
}

void report_unknown_key(JobDraft& draft, const std::string& section, const DocumentMember& member) {
  const std::string path = section + "." + member.name.substr(0, 60);
  std::string remedy = rightful_section(member.name);
  if (remedy.empty()) remedy = did_you_mean(member.name, key_names(section));
  if (remedy.empty()) remedy = "; there are " + join_names(key_names(section));
  draft.report(member.place, "unknown key " + path + remedy);
  const std::string meant = nearest_name(member.name, key_names(section));
  if (!meant.empty()) draft.bad.insert(section + "." + meant);  // so that it is not called missing as well
}

// Checks every key that is in the file; returns the good values in the table's order.
std::vector<std::pair<const Key*, KeyValue>> convert_keys(JobDraft& draft) {
  std::vector<std::pair<const Key*, KeyValue>> values;
  for (const Key& key : job_schema()) {
    const auto found = draft.given.find(key.path());
    if (found == draft.given.end()) continue;
    const DocumentNode& node = found->second->node;
    const bool left_open = (key.automatic || key.on_request) && node.text() && *node.text() == "auto";
    if (left_open) {
      if (key.on_request) draft.open.insert(key.path());
      draft.given.erase(found);
      continue;
    }
    Result<KeyValue> value = convert_value(key, node);
    if (value) {
      values.emplace_back(&key, *std::move(value));
    } else {
      draft.report(key.path(), value.error().message);
    }
  }
  return values;
}

void collect_given(JobDraft& draft, const DocumentTable& document) {
  for (const DocumentMember& section : document) {
    if (!find_section(section.name)) {
      report_unknown_section(draft, section);
      continue;
    }
    draft.sections[section.name] = section.place;
    if (!section.node.table()) {
      draft.report(section.place, "[" + section.name + "] must be a section, not " + kind_of(section.node));
      mark_section_bad(draft, section.name);
      continue;
    }
    for (const DocumentMember& member : *section.node.table()) {
      if (find_key(section.name, member.name)) {
        draft.given[section.name + "." + member.name] = &member;
      } else {
        report_unknown_key(draft, section.name, member);
      }
    }
  }
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

void check_name(JobDraft& draft) {
  constexpr size_t kNameMax = 64;  // it becomes part of a folder's name
  std::string& name = draft.job.name;
  if (!draft.has("job.name")) {
    name = fs::path(draft.file).stem().string().substr(0, kNameMax);
    for (char& c : name) c = is_name_character(c) ? c : '-';
    if (name.empty() || name.front() == '.' || name.front() == '-') name = "job" + name.substr(0, kNameMax - 3);
    return;
  }
  if (draft.is_bad("job.name")) return;
  const bool plain = std::all_of(name.begin(), name.end(), is_name_character);
  if (name.empty() || name.size() > kNameMax || !plain || name.front() == '.' || name.front() == '-') {
    draft.report("job.name",
                 "job.name must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter, digit "
                 "or '_'");
  }
}

void check_folder_and_environment(JobDraft& draft) {
  Job& job = draft.job;
  if (!draft.is_bad("job.output_dir")) {
    std::error_code error;
    job.output_dir = fs::absolute(job.output_dir.empty() ? "." : job.output_dir).lexically_normal().string();
    if (fs::exists(job.output_dir, error) && !fs::is_directory(job.output_dir, error)) {
      draft.report("job.output_dir", "job.output_dir: " + job.output_dir + " is not a folder");
    }
  }
  for (const auto& [name, value] : job.env) {
    if (!is_contract_variable(name)) continue;
    const DocumentMember* member = find_member(*draft.given.at("job.env")->node.table(), name);
    draft.report(member->place, "job.env may not set " + name + ": every rank gets its own from the plan");
  }
}

void sort_by_place(std::vector<JobProblem>& problems) {
  std::stable_sort(problems.begin(), problems.end(), [](const JobProblem& a, const JobProblem& b) {
    return std::make_tuple(a.file == "--set", a.line, a.column) < std::make_tuple(b.file == "--set", b.line, b.column);
  });
}

}  // namespace

JobFileResult parse_job(const std::string& text, const std::string& file, const std::vector<std::string>& overrides,
                        const Surroundings& surroundings) {
  JobDraft draft;
  draft.surroundings = surroundings;
  draft.file = file;
  DocumentTable document;
  draft.problems = parse_document(text, file, document);
  if (!draft.problems.empty()) return {std::nullopt, draft.problems};
  for (const std::string& override : overrides) {
    for (JobProblem& problem : apply_override(override, document)) draft.problems.push_back(std::move(problem));
  }

  collect_given(draft, document);
  const auto values = convert_keys(draft);
  for (const auto& [key, value] : values) {
    if (key->path() == "model.preset") apply_preset(draft, std::get<std::string>(value));
    if (key->slot) key->slot->store(draft.job, value);
  }
  check_name(draft);
  check_folder_and_environment(draft);
  resolve(draft);

  if (!draft.problems.empty()) {
    sort_by_place(draft.problems);
    return {std::nullopt, draft.problems};
  }
  draft.job.resolved_toml = resolved_toml(draft.job);
  return {std::move(draft.job), {}};
}

JobFileResult load_job(const std::string& path, const std::vector<std::string>& overrides,
                       const Surroundings& surroundings) {
  std::error_code error;
  const auto failed = [&](const std::string& why) { return JobFileResult{std::nullopt, {{path, 0, 0, why}}}; };
  if (!fs::exists(path, error)) return failed("there is no such job file");
  if (!fs::is_regular_file(path, error)) return failed("is not a file");
  std::ifstream in(path, std::ios::binary);
  if (!in) return failed("cannot be read (permissions?)");
  std::string text(kJobFileBytesMax + 1, '\0');  // one more, so that parse_document() sees what is too large
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return parse_job(text, path, overrides, surroundings);
}

std::string format(const JobProblem& problem) {
  std::string place = problem.file;
  if (problem.line > 0) place += ":" + std::to_string(problem.line) + ":" + std::to_string(problem.column);
  return place + ": " + problem.message;
}

}  // namespace mds::launcher
