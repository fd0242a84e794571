#pragma once

// A vGPU's state as bytes: everything but the contents of its memory and of its images' globals, and what its outline
// says (transfer.h). Written where it is paused and idle; from it and those contents the same vGPU is made elsewhere.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/outcome.h"
#include "server/session.h"

namespace tide {

// Images are large and come separately, in the order in which libraries were loaded.
std::vector<std::byte> write_state(Session& session);
std::vector<ImageBytes> images_of(Session& session);

struct StateOutline {
  std::vector<uint64_t> image_bytes;  // of each image that follows
};

// Reads the outline only, so that the images can be received.
Outcome read_outline(std::span<const std::byte> state, StateOutline* outline);
// Makes everything again in a new session: objects, mapped memory (zero), what was not delivered.
Outcome restore_state(Session& session, std::span<const std::byte> state, const std::vector<ImageBytes>& images);

// After the contents: what variables of images are bound to, whose bytes came along and mean nothing here.
void restore_references(Session& session);

// Where contents have to be copied: mapped memory, then the globals of images.
std::vector<MemoryRange> image_ranges(Session& session);

}  // namespace tide
