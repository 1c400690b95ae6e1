// mdsstack PID...: the native stacks of processes, as one JSON array on standard output. Started by mdsagent; a program
// of its own, so that what it reads in foreign memory can hurt nobody else, and the agent needs no library for it.
//
//   [{"pid": 7, "name": "python3", "threads": [{"tid": 7, "name": "python3", "frames": ["poll (libc.so.6)", ...]}]}]
//   or {"pid": 7, "error": "..."}
//
// Each thread is stopped while its own stack is read (well under a millisecond), then goes on.
#include <cxxabi.h>
#include <dirent.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <sys/types.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace {

using nlohmann::json;

constexpr size_t kFramesMax = 64;
constexpr size_t kNameBytesMax = 200;  // templates of LibTorch fill pages

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string demangled(const char* symbol) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(symbol, nullptr, nullptr, &status), std::free);
  std::string name = status == 0 && text ? text.get() : symbol;
  if (name.size() > kNameBytesMax) name = name.substr(0, kNameBytesMax - 3) + "...";
  return name;
}

/// Names of code addresses. Ranks run the same programs: what was looked up for one (a walk through the whole symbol
/// table) is kept for the others.
class Names {
 public:
  std::string of(Dwfl* dwfl, Dwarf_Addr address) {
    Dwfl_Module* module = dwfl_addrmodule(dwfl, address);
    if (!module) return "?";
    Dwarf_Addr begin = 0;
    const char* path = dwfl_module_info(module, nullptr, &begin, nullptr, nullptr, nullptr, nullptr, nullptr);
    const std::string where = path ? path : "";
    auto [at, is_new] = known_.try_emplace({where, address - begin});
    if (is_new) {
      const char* symbol = dwfl_module_addrname(module, address);
      at->second = (symbol ? demangled(symbol) : "?") + " (" + file_name(where) + ")";
    }
    return at->second;
  }

 private:
  std::map<std::pair<std::string, Dwarf_Addr>, std::string> known_;
};

struct Walk {
  Names& names;
  Dwfl* dwfl;
  json frames = json::array();
};

int on_frame(Dwfl_Frame* frame, void* context) {
  Walk& walk = *static_cast<Walk*>(context);
  Dwarf_Addr address = 0;
  bool interrupted = false;
  if (!dwfl_frame_pc(frame, &address, &interrupted)) return DWARF_CB_ABORT;
  // A return address may belong to the next function already: the call is just before it.
  walk.frames.push_back(walk.names.of(walk.dwfl, interrupted ? address : address - 1));
  return walk.frames.size() < kFramesMax ? DWARF_CB_OK : DWARF_CB_ABORT;
}

/// Debug information would be looked for on disk and on the network: symbol tables have to do.
int no_debuginfo(Dwfl_Module*, void**, const char*, Dwarf_Addr, const char*, const char*, GElf_Word, char**) {
  return -1;
}

pid_t reading = 0;  // the process whose files are looked for: libdw's callback does not say

/// The program and its libraries as that process sees them: it may be in a container.
int find_in_its_root(Dwfl_Module* module, void** data, const char* name, Dwarf_Addr base, char** path, Elf** elf) {
  if (name[0] == '/') {
    const std::string file = "/proc/" + std::to_string(reading) + "/root" + name;
    if (const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC); fd >= 0) return *path = strdup(file.c_str()), fd;
  }
  return dwfl_linux_proc_find_elf(module, data, name, base, path, elf);
}

std::vector<pid_t> threads_of(pid_t pid) {
  std::vector<pid_t> threads;
  DIR* folder = opendir(("/proc/" + std::to_string(pid) + "/task").c_str());
  if (!folder) return threads;
  while (const dirent* entry = readdir(folder)) {
    if (const pid_t tid = std::atoi(entry->d_name); tid > 0) threads.push_back(tid);
  }
  closedir(folder);
  std::sort(threads.begin(), threads.end());
  return threads;
}

json stacks_of(pid_t pid, Names& names) {
  reading = pid;
  const std::string proc = "/proc/" + std::to_string(pid);
  json process{{"pid", pid}, {"name", first_line(proc + "/comm")}};
  static const Dwfl_Callbacks callbacks{.find_elf = find_in_its_root,
                                        .find_debuginfo = no_debuginfo,
                                        .section_address = dwfl_offline_section_address,
                                        .debuginfo_path = nullptr};
  const std::unique_ptr<Dwfl, void (*)(Dwfl*)> dwfl(dwfl_begin(&callbacks), dwfl_end);
  int error = dwfl ? dwfl_linux_proc_report(dwfl.get(), pid) : -1;
  if (error == 0) error = dwfl_report_end(dwfl.get(), nullptr, nullptr);
  if (error == 0) error = dwfl_linux_proc_attach(dwfl.get(), pid, /*assume_ptrace_stopped=*/false);
  if (error != 0) {
    process["error"] = error > 0 ? strerror(error) : dwfl_errmsg(-1);
    return process;
  }
  json& threads = process["threads"] = json::array();
  for (const pid_t tid : threads_of(pid)) {
    Walk walk{names, dwfl.get()};
    dwfl_getthread_frames(dwfl.get(), tid, on_frame, &walk);  // what was walked before an error counts
    json thread{{"tid", tid}, {"name", first_line(proc + "/task/" + std::to_string(tid) + "/comm")}};
    if (walk.frames.empty()) thread["error"] = dwfl_errmsg(-1);
    thread["frames"] = std::move(walk.frames);
    threads.push_back(std::move(thread));
  }
  return process;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: mdsstack PID...\nPrints the native stacks of processes as JSON; mdsagent starts it.\n", stderr);
    return 2;
  }
  Names names;
  json all = json::array();
  for (int i = 1; i < argc; ++i) {
    const pid_t pid = std::atoi(argv[i]);
    if (pid > 0) all.push_back(stacks_of(pid, names));
  }
  const std::string text = all.dump(-1, ' ', false, json::error_handler_t::replace);
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0 ? 0 : 1;
}
