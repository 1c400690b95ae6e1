#include "topology/doctor/host_checks.hpp"

#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/timex.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "topology/doctor/machine_checks.hpp"

namespace mds::topology {
namespace {

namespace fs = std::filesystem;
using doctor::amount;
using doctor::Report;

constexpr uint64_t kGiB = uint64_t{1} << 30;

/// The first line of a file, or "" where it cannot be read.
std::string line_of(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::error_code failed;
  std::vector<fs::path> entries;
  for (fs::directory_iterator it(folder, failed), end; !failed && it != end; it.increment(failed)) {
    entries.push_back(it->path());
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

/// "always" of "[always] madvise never".
std::string chosen(const std::string& line) {
  const size_t begin = line.find('['), end = line.find(']', begin);
  return begin == std::string::npos || end == std::string::npos ? line : line.substr(begin + 1, end - begin - 1);
}

bool has_rdma(const Machine& machine) {
  return std::any_of(machine.nics.begin(), machine.nics.end(), [](const Nic& nic) { return nic.rdma; });
}

void check_limits(const HostFacts& facts, Report& report) {
  const Machine& machine = report.machine();
  if (facts.shm_bytes && *facts.shm_bytes < kGiB) {
    report.add(Severity::warning, "shm-small", "/dev/shm",
               amount(*facts.shm_bytes >> 20, "MiB") +
                   " of shared memory: NCCL and data loaders between processes of a node fail or hang when it is full",
               "In a container --shm-size=16g or --ipc=host; else mount -o remount,size=50% /dev/shm.");
  }
  if (facts.memlock_bytes != UINT64_MAX && has_rdma(machine)) {
    report.add(Severity::warning, "memlock-low", "ulimit -l",
               "only " + amount(facts.memlock_bytes >> 10, "KiB") +
                   " of memory may be locked: RDMA adapters cannot register their buffers",
               "memlock unlimited in /etc/security/limits.conf; under Slurm LimitMEMLOCK=infinity for slurmd; in a "
               "container --ulimit memlock=-1.");
  }
  if (facts.open_files < 4096) {
    report.add(Severity::warning, "nofile-low", "ulimit -n",
               "at most " + std::to_string(facts.open_files) +
                   " open files: sockets between many ranks, data files and checkpoints need more",
               "nofile 65536 in /etc/security/limits.conf, or --ulimit nofile=65536 in a container.");
  }
  if (facts.clock_synchronised == false) {
    report.add(Severity::note, "clock-unsynchronised", "clock",
               "the kernel's clock is not synchronised: logs of several hosts do not line up",
               "Start chronyd (or systemd-timesyncd); chronyc tracking shows the offset.");
  }
}

void check_driver(const HostFacts& facts, Report& report) {
  if (!report.machine().gpus.empty()) return;
  std::error_code failed;
  const bool nvidia = fs::exists(facts.root + "/proc/driver/nvidia/version", failed);
  const bool amd = fs::exists(facts.root + "/sys/module/amdgpu", failed);
  if (nvidia || amd) {
    report.add(Severity::warning, "driver-without-gpu", nvidia ? "nvidia" : "amdgpu",
               "the driver is loaded, but no GPU is visible",
               std::string(nvidia ? "nvidia-smi -L" : "rocm-smi") +
                   ": if it lists none, dmesg says why; if it does, CUDA_VISIBLE_DEVICES (ROCR_VISIBLE_DEVICES) hides "
                   "them, or the container was started without them (--gpus all, --nv).");
    return;
  }
  size_t asleep = 0;
  for (const fs::path& device : entries_of(facts.root + "/sys/bus/pci/devices")) {
    const std::string vendor = line_of(device / "vendor"), pci_class = line_of(device / "class");
    const bool accelerator = pci_class.starts_with("0x0302") || pci_class.starts_with("0x1200") ||
                             (pci_class.starts_with("0x0300") && vendor == "0x10de");
    asleep += accelerator && (vendor == "0x10de" || vendor == "0x1002");
  }
  if (asleep == 0) return;
  report.add(Severity::warning, "gpu-without-driver", amount(asleep, "GPU"),
             "on the PCI bus, but no driver for it is loaded",
             "Install the vendor's driver for this kernel (dkms status), or modprobe nvidia (amdgpu).");
}

void check_cpu(const HostFacts& facts, Report& report) {
  std::map<std::string, size_t> governors;
  std::string driver, preference;
  for (const fs::path& cpu : entries_of(facts.root + "/sys/devices/system/cpu")) {
    const std::string governor = line_of(cpu / "cpufreq/scaling_governor");
    if (governor.empty()) continue;
    ++governors[governor];
    driver = line_of(cpu / "cpufreq/scaling_driver");
    preference = line_of(cpu / "cpufreq/energy_performance_preference");
  }
  // With these drivers "powersave" lets the hardware choose, by the preference.
  const bool chooses = driver == "intel_pstate" || driver == "amd-pstate-epp";
  const bool slow = governors["powersave"] > 0 && (!chooses || preference == "power" || preference == "balance_power");
  if (!slow) return;
  report.add(Severity::warning, "cpu-powersave", amount(governors["powersave"], "CPU"),
             "frequency governor powersave" + (chooses ? " with the preference " + preference : std::string()) +
                 ": launches of kernels take longer",
             "cpupower frequency-set -g performance (tuned-adm profile throughput-performance keeps it).");
}

void check_memory(const HostFacts& facts, Report& report) {
  if (chosen(line_of(facts.root + "/sys/kernel/mm/transparent_hugepage/enabled")) == "never") {
    report.add(Severity::note, "hugepages-off", "transparent_hugepage",
               "transparent huge pages are off: large host buffers (offload, checkpoints) cost more",
               "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
  }
  if (line_of(facts.root + "/proc/sys/kernel/numa_balancing") == "1" && report.machine().numa.size() > 1) {
    report.add(Severity::note, "numa-balancing-on", "numa_balancing",
               "the kernel moves pages between NUMA nodes, though ranks are bound to theirs",
               "sysctl kernel.numa_balancing=0");
  }
}

/// True if the bridge sends traffic between the devices below it up to the CPU: bits 2 and 3 of the control register
/// of the Access Control Services capability (PCI Express Base Specification, 7.7.11). Only root can read that far.
bool redirects_peers(const fs::path& device) {
  std::ifstream in(device / "config", std::ios::binary);
  const std::string space{std::istreambuf_iterator<char>(in), {}};
  const auto byte = [&](size_t at) { return at < space.size() ? static_cast<uint8_t>(space[at]) : 0u; };
  constexpr uint32_t kAcs = 0x000d;
  size_t at = 0x100;
  for (int steps = 0; at >= 0x100 && at + 8 <= space.size() && steps < 64; ++steps) {
    const uint32_t id = byte(at) | byte(at + 1) << 8, next = (byte(at + 2) | byte(at + 3) << 8) >> 4;
    if (id == kAcs) return (byte(at + 6) & 0x0c) != 0;
    at = next;
  }
  return false;
}

void check_peer_access(const HostFacts& facts, Report& report) {
  const Machine& machine = report.machine();
  if (machine.gpus.empty() || machine.gpus.size() + machine.nics.size() < 2) return;
  std::vector<std::string> redirecting;
  for (const fs::path& device : entries_of(facts.root + "/sys/bus/pci/devices")) {
    if (line_of(device / "class").starts_with("0x0604") && redirects_peers(device)) {
      redirecting.push_back(device.filename().string());
    }
  }
  if (!redirecting.empty()) {
    report.add(
        Severity::warning, "pci-acs-on", "pci " + redirecting.front(),
        amount(redirecting.size(), "PCI bridge") +
            " with Access Control Services redirect traffic between GPUs and NICs through the CPU",
        "Off in the BIOS (ACS, or with it the IOMMU), or setpci -s BUS-ID ECAP_ACS+0x6.w=0000 at boot. A host of "
        "virtual machines needs it on.");
  }
  bool translates = false;
  for (const fs::path& group : entries_of(facts.root + "/sys/kernel/iommu_groups")) {
    translates |= line_of(group / "type").starts_with("DMA");
  }
  if (!translates) return;
  report.add(Severity::note, "iommu-translates", "iommu",
             "the IOMMU translates every transfer of a device: slower between GPUs and NICs by PCI Express",
             "iommu=pt on the kernel's command line lets devices pass through.");
}

void check_gpu_direct(const HostFacts& facts, Report& report) {
  const Machine& machine = report.machine();
  std::error_code failed;
  const bool nvidia = fs::exists(facts.root + "/proc/driver/nvidia/version", failed);
  if (!nvidia || machine.gpus.empty() || !has_rdma(machine)) return;
  if (fs::exists(facts.root + "/sys/module/nvidia_peermem", failed) ||
      fs::exists(facts.root + "/sys/module/nv_peer_mem", failed)) {
    return;
  }
  report.add(
      Severity::note, "peermem-missing", "nvidia-peermem",
      "the module that lets RDMA adapters read GPU memory is not loaded; without DMA-BUF (kernel 5.12 and the open "
      "driver) traffic takes a copy through the host",
      "modprobe nvidia-peermem, and a line with it in /etc/modules-load.d.");
}

}  // namespace

HostFacts read_host_facts() {
  HostFacts facts;
  struct statvfs shm {};
  if (statvfs("/dev/shm", &shm) == 0) facts.shm_bytes = uint64_t{shm.f_blocks} * shm.f_frsize;
  const auto hard_limit = [](auto resource) {
    rlimit limit{};
    return getrlimit(resource, &limit) == 0 && limit.rlim_max != RLIM_INFINITY ? uint64_t{limit.rlim_max} : UINT64_MAX;
  };
  facts.memlock_bytes = hard_limit(RLIMIT_MEMLOCK);
  facts.open_files = hard_limit(RLIMIT_NOFILE);
  timex clock{};
  const int state = adjtimex(&clock);
  if (state >= 0) facts.clock_synchronised = state != TIME_ERROR && (clock.status & STA_UNSYNC) == 0;
  return facts;
}

std::vector<Finding> examine_host(const HostFacts& facts, const Machine& machine) {
  Report report(machine);
  check_limits(facts, report);
  check_driver(facts, report);
  check_cpu(facts, report);
  check_memory(facts, report);
  check_peer_access(facts, report);
  check_gpu_direct(facts, report);
  return report.take();
}

}  // namespace mds::topology
