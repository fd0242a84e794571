#pragma once

// The object table: the commands that made what exists now, in the order in which they came. Executing them again on
// another GPU makes the vGPU again, but for its memory's contents. What has ended is not in it. One thread.

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "transport/frame.h"

namespace tide {

enum class ObjectKind : uint16_t {
  kContext = 1,
  kStream,
  kEvent,
  kLibrary,
  kState,
  kArray,
  kTexture,
  kHost,
  kReference
};

struct Object {
  ObjectKind kind = ObjectKind::kState;
  uint16_t call = 0;
  uint32_t context = 0;
  uint32_t stream = kNoStream;
  uint64_t key = 0;      // its number within its kind; of kState: nothing
  uint64_t library = 0;  // kState, kReference: ends with this library (0: none)
  std::vector<std::byte> payload;
};

class Objects {
 public:
  void add(ObjectKind kind, uint64_t key, const CommandHeader& header, std::span<const std::byte> payload);
  // A command that changed the state of something; an equal one before it is not needed any more.
  void keep(const CommandHeader& header, std::span<const std::byte> payload, uint64_t library);
  // What a variable of a library is bound to; an earlier binding of it is not needed any more.
  void bind(uint64_t key, const CommandHeader& header, std::span<const std::byte> payload, uint64_t library);
  void end(ObjectKind kind, uint64_t key);
  // All that was made in it, and itself.
  void end_context(uint32_t number);
  // Itself, the states of its kernels, and what its variables are bound to.
  void end_library(uint64_t number);

  const std::map<uint64_t, Object>& all() const { return objects_; }  // by order
  size_t size() const { return objects_.size(); }

 private:
  template <class Predicate>
  void erase_if(Predicate predicate);

  uint64_t next_ = 1;
  std::map<uint64_t, Object> objects_;
  std::map<std::pair<ObjectKind, uint64_t>, uint64_t> by_key_;
};

}  // namespace tide
