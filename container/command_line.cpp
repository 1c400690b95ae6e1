#include "container/command_line.hpp"

#include <algorithm>

namespace mds::container {
namespace {

using Arguments = std::vector<std::string>;

// For runtimes that set nothing themselves. Home is where programs may write: Open MPI 5 does not start without one.
constexpr const char* kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr const char* kHome = "/tmp";

void add(Arguments& to, std::initializer_list<std::string> more) { to.insert(to.end(), more); }

/// One field of a CSV record, as apptainer and podman read --mount: in quotes where it has a comma, quote or blank.
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n\r ") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + '"';
}

std::string mount_record(const Bind& bind, const char* read_only) {
  std::string record = "type=bind," + csv_field("source=" + bind.source);
  record += "," + csv_field("destination=" + bind.target);
  return bind.read_only ? record + "," + read_only : record;
}

/// enroot takes a line of fstab with colons for the blanks between the fields.
std::string fstab_line(const Bind& bind) {
  const auto escaped = [](const std::string& path) {
    std::string text;
    for (const char c : path) text += c == ' ' ? "\\040" : c == '\\' ? "\\134" : std::string(1, c);
    return text;
  };
  return escaped(bind.source) + ":" + escaped(bind.target) + ":none:x-create=auto,rbind" +
         (bind.read_only ? ",ro" : "");
}

Arguments apptainer(const Container& container, const Host& host) {
  Arguments line{host.runtime_program, "--silent"};
  line.insert(line.end(), container.runtime_options.begin(), container.runtime_options.end());
  // --userns: without set-uid, so that ranks can enter. The host's /dev (GPUs, InfiniBand, /dev/shm), /proc and /sys
  // are mounted by default; home and working folder are not wanted unless bound.
  add(line, {"exec", "--userns", "--cleanenv", "--no-home", "--no-mount", "cwd,tmp,bind-paths"});
  if (container.gpus) add(line, {"--nv"});
  // /tmp inside is memory, as under the other runtimes; the root folder becomes writable in memory when asked.
  add(line, {"--scratch", "/tmp"});
  if (!container.read_only) add(line, {"--writable-tmpfs"});
  for (const Bind& bind : container.binds) add(line, {"--mount", mount_record(bind, "ro")});
  if (!container.working_dir.empty()) add(line, {"--pwd", container.working_dir});
  add(line, {container.image});
  return line;
}

/// podman with what goes before its command. Its records are in a store of ours unless the job names another: its own
/// is on a disk, which it waits for several times at every start and end, and often below a home folder on a network.
Arguments podman_itself(const Container& container, const Host& host) {
  Arguments line{host.runtime_program};
  const bool named = std::any_of(container.runtime_options.begin(), container.runtime_options.end(),
                                 [](const std::string& word) {
                                   return word.starts_with("--root") || word.starts_with("--runroot") ||
                                          word.starts_with("--tmpdir");
                                 });
  if (!host.store.empty() && !named) {
    add(line, {"--root", host.store + "/root", "--runroot", host.store + "/run", "--tmpdir", host.store + "/tmp",
               "--storage-driver", "vfs"});
  }
  line.insert(line.end(), container.runtime_options.begin(), container.runtime_options.end());
  return line;
}

Arguments podman(const Container& container, const Host& host) {
  Arguments line = podman_itself(container, host);
  // No seccomp filter: it would take time to compile and bind the first process alone, as ranks enter from outside.
  add(line, {"run", "--interactive", "--rm", "--name", host.name, "--network=host", "--pid=host", "--ipc=host",
             "--uts=host", "--security-opt=label=disable", "--security-opt=seccomp=unconfined", "--log-driver=none",
             "--no-hosts"});
  // podman asks for limits of its own otherwise, and fails where it may not have them. Ranks have the agent's anyway.
  if (host.files_max) {
    const std::string files = std::to_string(host.files_max);
    add(line, {"--ulimit", "nofile=" + files + ":" + files});
  }
  if (host.processes_max) {
    const std::string processes = std::to_string(host.processes_max);
    add(line, {"--ulimit", "nproc=" + processes + ":" + processes});
  }
  if (container.gpus && host.has_cdi) add(line, {"--device", "nvidia.com/gpu=all"});
  for (const std::string& device : host.devices) add(line, {"--device", device});
  if (container.read_only) add(line, {"--read-only"});
  for (const Bind& bind : container.binds) add(line, {"--mount", mount_record(bind, "ro=true")});
  if (!container.working_dir.empty()) add(line, {"--workdir", container.working_dir});
  // Never an overlay: its mount would outlive a killed podman.
  add(line, {"--rootfs", container.image});
  return line;
}

Arguments charliecloud(const Container& container, const Host& host) {
  Arguments line{host.runtime_program};
  line.insert(line.end(), container.runtime_options.begin(), container.runtime_options.end());
  add(line, {"--unset-env=*", std::string("--set-env=PATH=") + kPath, std::string("--set-env=HOME=") + kHome,
             "--private-tmp"});
  if (!container.read_only) add(line, {"--write"});
  for (const Bind& bind : container.binds) add(line, {"--bind", bind.source + ":" + bind.target});
  if (!container.working_dir.empty()) add(line, {"--cd", container.working_dir});
  add(line, {container.image, "--"});
  return line;
}

Arguments enroot(const Container& container, const Host& host) {
  Arguments line{host.runtime_program, "start"};
  line.insert(line.end(), container.runtime_options.begin(), container.runtime_options.end());
  if (!container.read_only) add(line, {"--rw"});
  for (const Bind& bind : container.binds) add(line, {"--mount", fstab_line(bind)});
  add(line, {container.image});
  return line;
}

Arguments bubblewrap(const Container& container, const Host& host) {
  Arguments line{host.runtime_program};
  line.insert(line.end(), container.runtime_options.begin(), container.runtime_options.end());
  // --die-with-parent: plain bwrap leaves its payload behind. The namespaces of network, PIDs and IPC stay the host's.
  add(line, {"--die-with-parent", "--clearenv", "--setenv", "PATH", kPath, "--setenv", "HOME", kHome});
  add(line, {container.read_only ? "--ro-bind" : "--bind", container.image, "/"});
  add(line, {"--dev-bind", "/dev", "/dev", "--proc", "/proc", "--ro-bind", "/sys", "/sys", "--tmpfs", "/tmp"});
  for (const Bind& bind : container.binds) {
    add(line, {bind.read_only ? "--ro-bind" : "--bind", bind.source, bind.target});
  }
  if (!container.working_dir.empty()) add(line, {"--chdir", container.working_dir});
  add(line, {"--"});
  return line;
}

Arguments runtime_arguments(const Container& container, const Host& host) {
  switch (container.runtime) {
    case Runtime::apptainer: return apptainer(container, host);
    case Runtime::podman: return podman(container, host);
    case Runtime::charliecloud: return charliecloud(container, host);
    case Runtime::enroot: return enroot(container, host);
    case Runtime::bubblewrap: return bubblewrap(container, host);
    case Runtime::none:
    case Runtime::automatic: break;
  }
  return {};
}

}  // namespace

Arguments command_line(const Container& container, const Host& host, const Arguments& program) {
  Arguments line = runtime_arguments(container, host);
  line.insert(line.end(), program.begin(), program.end());
  return line;
}

Arguments cleanup_command_line(const Container& container, const Host& host) {
  if (container.runtime != Runtime::podman) return {};
  Arguments line = podman_itself(container, host);
  add(line, {"rm", "--force", "--ignore", "--time", "0", host.name});
  return line;
}

std::string shell_text(const Arguments& arguments) {
  std::string text;
  for (const std::string& argument : arguments) {
    if (!text.empty()) text += ' ';
    const bool plain = !argument.empty() && std::all_of(argument.begin(), argument.end(), [](unsigned char c) {
      return std::isalnum(c) || std::string_view("_-+=:,./@%").find(static_cast<char>(c)) != std::string_view::npos;
    });
    if (plain) {
      text += argument;
      continue;
    }
    text += '\'';
    for (const char c : argument) text += c == '\'' ? "'\\''" : std::string(1, c);
    text += '\'';
  }
  return text;
}

}  // namespace mds::container
