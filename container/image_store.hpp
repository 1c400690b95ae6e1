// Images on this node: recognised by content, verified by digest, staged into a private folder once for all ranks.
//
// Invariants
//   I1  A file in the store whose name is a digest has that digest: it was copied and hashed in one pass from one
//       descriptor, and renamed after that. Whoever swaps the original between check and use swaps nothing.
//   I2  The store belongs to the user alone (0700); another's or a linked folder is refused.
//   I3  Of several jobs that stage one image at once, one copies and the others wait for it.
//   I4  What failed half way (full disk, wrong digest, killed) leaves no file under a trusted name, and none at all
//       once any image is staged again.
#pragma once

#include <string>

#include "container/container.hpp"
#include "topology/result.hpp"

namespace mds::container {

enum class ImageKind { folder, sif, squashfs, tar };
const char* to_string(ImageKind kind);

/// By its first bytes; a folder needs a bin/sh. Errors: bad_input ("is no image: ..."), unavailable (cannot be read).
Result<ImageKind> image_kind(const std::string& path);

/// image_kind() of the container's image, if its runtime can take one. Errors: also bad_input (what it needs instead).
Result<ImageKind> image_kind_for(const Container& container);

/// $MDS_IMAGE_STORE, or else /var/tmp/mds-images-<uid>.
std::string default_image_store();

struct StagedImage {
  std::string path;           ///< what the runtime is given
  bool copied = false;        ///< by this call
  uint64_t bytes = 0;         ///< of the image file, 0 for folders
};

/// Makes the container's image ready for its runtime: with a digest it is verified into the store; an archive is
/// unpacked there for the runtimes that need a folder. Without a digest a file or folder is used where it lies. Blocks.
/// Errors: corrupt (another digest: both are named), bad_input (no image, or not one for this runtime), unavailable
/// (unreadable, disk full: with path and bytes), denied (the store is not ours).
Result<StagedImage> stage_image(const Container& container, const std::string& store);

}  // namespace mds::container
