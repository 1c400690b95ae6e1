// Resolving [container]: what can be known of it before a node is asked.
#include <filesystem>

#include "container/container.hpp"
#include "launcher/job_draft.hpp"

namespace mds::launcher {

void resolve_container(JobDraft& draft) {
  namespace fs = std::filesystem;
  Job& job = draft.job;
  container::Container& container = job.container;
  if (draft.is_bad("container.runtime")) return;
  if (container.runtime == container::Runtime::none) {
    if (!container.image.empty()) {
      draft.report("container.image", "container.image is given, but container.runtime = \"none\": say \"auto\"");
    }
    return;
  }
  if (container.image.empty()) {
    return draft.report("container.runtime", "container.image is missing: the path of an image file or folder");
  }
  container.image = draft.located("container.image", container.image).lexically_normal().string();
  if (container.image.size() > 1 && container.image.back() == '/') container.image.pop_back();
  for (const std::string& text : job.container_binds) {
    auto bind = container::bind_from_text(text);
    if (!bind) {
      draft.report("container.binds", "container.binds: " + bind.error().message);
      continue;
    }
    bind->source = draft.located("container.binds", bind->source).lexically_normal().string();
    container.binds.push_back(*bind);
  }
  if (draft.any_bad({"container.binds", "container.image", "container.sha256"})) return;
  if (Status fine = container::check(container, {}); !fine) {
    const std::string key = fine.error().message.rfind("bind", 0) == 0 ? "container.binds" : "container.image";
    draft.report(key, key + ": " + fine.error().message);
  }
}

}  // namespace mds::launcher
