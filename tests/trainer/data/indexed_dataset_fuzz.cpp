// libFuzzer harness for Megatron's .idx files: whatever opens must be readable to the last token.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "trainer/data/indexed_dataset.hpp"

using namespace mds::trainer;

namespace {

/// A data set whose .idx and .bin are files in memory, linked to by name.
struct MemoryFiles {
  std::string folder = "/tmp/mds-fuzz-XXXXXX";
  int index = ::memfd_create("idx", 0);
  int data = ::memfd_create("bin", 0);

  MemoryFiles() {
    if (::mkdtemp(folder.data()) == nullptr || ::ftruncate(data, 64) != 0) std::abort();
    link(index, ".idx");
    link(data, ".bin");
  }
  ~MemoryFiles() {
    ::unlink((prefix() + ".idx").c_str());
    ::unlink((prefix() + ".bin").c_str());
    ::rmdir(folder.c_str());
  }
  void link(int fd, const std::string& ending) const {
    if (::symlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), (prefix() + ending).c_str()) != 0) std::abort();
  }
  std::string prefix() const { return folder + "/set"; }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const MemoryFiles files;
  if (::ftruncate(files.index, 0) != 0 || ::pwrite(files.index, bytes, size, 0) != static_cast<ssize_t>(size)) return 0;
  const auto set = IndexedDataset::open(files.prefix());
  if (!set) return 0;
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < (*set)->document_count(); ++i) {
    tokens.resize(static_cast<size_t>((*set)->length(i)));
    (*set)->copy(i, 0, (*set)->length(i), tokens.data());
  }
  return 0;
}
