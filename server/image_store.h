#pragma once

// The server's images by content: files in a directory that all its workers share, named by their SHA-256. So an image
// crosses the network once for each server, and not for each process and vGPU. The oldest in use go when there are too
// many bytes. Nothing here fails a load: what cannot be kept is sent again.
//
// Threads and processes: any number.

#include <cstdint>
#include <string>
#include <vector>

#include "api/library_info.h"
#include "base/hex.h"
#include "base/sha256.h"

namespace tide {

class ImageStore {
 public:
  ImageStore() = default;  // keeps nothing
  ImageStore(std::string directory, uint64_t bytes_most);
  // As the agent tells its workers: TIDE_IMAGE_DIR, TIDE_IMAGE_BYTES.
  static ImageStore from_environment();

  bool keeps(uint64_t bytes) const { return bytes >= kNamedImageBytesLeast && bytes <= bytes_most_; }
  // The first `bytes` of `image`, unless they are there already.
  void keep(const std::vector<std::byte>& image, uint64_t bytes) const;
  // Makes *image `bytes` long and `padding` zeroes. False: it is not there, or not what its name says.
  bool find(const Sha256& name, uint64_t bytes, uint64_t padding, std::vector<std::byte>* image) const;

 private:
  std::string path(const Sha256& name) const { return directory_ + "/" + hex(name.data(), name.size()); }
  void make_room(uint64_t bytes) const;

  std::string directory_;
  uint64_t bytes_most_ = 0;
};

}  // namespace tide
