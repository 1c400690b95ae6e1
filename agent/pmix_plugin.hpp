// PMIx plug-in, libmds_pmix.so: the launcher's side of PMIx, by which ranks of Open MPI 4 and 5 find each other, done
// by the PMIx library itself. A plug-in, so that an agent loads that library (and its threads) for MPI programs only.
// Plain C between the two, as they have C++ libraries of their own.
//
// Where the library listens: on the loopback interface, for this node's ranks only. Fences over all ranks are served;
// groups, spawning and publishing are not.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct MdsPmixWorld {
  const char* name;    ///< of this attempt; unique in the life of the process
  const char* folder;  ///< absolute, of the library's own; the caller removes it in the end
  int size, nodes, node, ranks_per_node;
};

/// Functions are called on a thread of the library.
struct MdsPmixHost {
  void* context;
  /// All ranks of this node are at fence `number`: finish_fence() with the values of all nodes, one after the other, is
  /// awaited.
  void (*at_fence)(void* context, uint64_t number, const char* data, size_t bytes);
  /// It waits for ever to be killed.
  void (*aborted)(void* context, int rank, int code);
};

struct MdsPmixPlugin {
  /// Begins an attempt; the earlier one has ended. Both structs are copied, what they point to must stay until the next
  /// call. nullptr, or what went wrong.
  const char* (*begin)(const MdsPmixWorld* world, const MdsPmixHost* host);
  /// "NAME=value" of a rank of this node, ended by nullptr; the texts and the list are for free(3). nullptr: failure.
  char** (*environment)(int rank);
  void (*finish_fence)(uint64_t number, const char* data, size_t bytes);
};

/// The library's only symbol.
const MdsPmixPlugin* mds_pmix_plugin();
}
