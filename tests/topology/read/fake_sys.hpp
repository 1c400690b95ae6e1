// A little sysfs in a temporary folder.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

class FakeSys {
 public:
  using path = std::filesystem::path;

  FakeSys() {
    std::string pattern = std::filesystem::temp_directory_path() / "sys-XXXXXX";
    top_ = mkdtemp(pattern.data());
    std::filesystem::create_directories(root() / "class/net");
  }
  ~FakeSys() { std::filesystem::remove_all(top_); }
  path root() const { return top_ / "sys"; }  // /proc is beside it

  void file(const path& name, const std::string& text) {
    std::filesystem::create_directories((root() / name).parent_path());
    std::ofstream(root() / name) << text << "\n";
  }

  void link(const path& target, const path& name) {
    std::filesystem::create_directories((root() / name).parent_path());
    std::filesystem::create_directory_symlink(root() / target, root() / name);
  }

  /// A PCI function below the bridges `above` ("pci0000:00/0000:00:01.0"), with a bus id that leads to it.
  void pci(const std::string& above, const std::string& bus_id, const std::string& pci_class, int numa,
           const std::string& speed = "", const std::string& width = "") {
    const path folder = path("devices") / above / bus_id;
    file(folder / "class", pci_class);
    file(folder / "vendor", "0x10de");
    file(folder / "device", "0x2335");
    file(folder / "numa_node", std::to_string(numa));
    if (!speed.empty()) {
      file(folder / "current_link_speed", speed);
      file(folder / "max_link_speed", "32.0 GT/s PCIe");
      file(folder / "current_link_width", width);
      file(folder / "max_link_width", "16");
    }
    link(folder, path("bus/pci/devices") / bus_id);
  }

  /// Links `name` to a PCI device, which may have children (virtio) between.
  void device(const path& name, const std::string& bus_id, int numa, const std::string& child = "") {
    const path pci = path("devices/pci0000:00") / bus_id;
    file(pci / "numa_node", std::to_string(numa));
    std::filesystem::create_directories(root() / pci / child);
    link(pci / child, name);
  }

  void interface(const std::string& name, const std::string& state, const std::string& speed, int type = 1) {
    file("class/net/" + name + "/operstate", state);
    file("class/net/" + name + "/type", std::to_string(type));
    if (!speed.empty()) file("class/net/" + name + "/speed", speed);
  }

  void rdma(const std::string& name, const std::string& state, const std::string& rate, int port = 1) {
    const std::string folder = "class/infiniband/" + name + "/ports/" + std::to_string(port);
    file(folder + "/state", state);
    file(folder + "/rate", rate);
  }

 private:
  path top_;
};
