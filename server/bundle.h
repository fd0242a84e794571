#pragma once

// Takes a bundle (api/bundle.h) apart for the driver below. One thread.

#include <cstddef>
#include <string>
#include <vector>

#include "api/fatbin.h"
#include "server/driver_library.h"

namespace tide {

class OpenedBundle {
 public:
  explicit OpenedBundle(const Driver& driver) : driver_(driver) {}
  ~OpenedBundle();
  OpenedBundle(const OpenedBundle&) = delete;
  OpenedBundle& operator=(const OpenedBundle&) = delete;

  // What to load of an image that may be a bundle; valid while this object and the image live. On failure *message says
  // why. Requires a current context.
  CUresult open(const std::vector<std::byte>& image, const void** loadable, std::string* message);

 private:
  struct Part {
    uint32_t type;
    std::string name;
    const std::byte* data;
    uint64_t bytes;
  };
  CUresult link(const std::vector<Part>& parts, const void** loadable, std::string* message);

  const Driver& driver_;
  CUlinkState link_ = nullptr;
  std::vector<const void*> units_;
  FatbinWrapper wrapper_{};
};

}  // namespace tide
