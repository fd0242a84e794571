#include "server/objects.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace tide {
namespace {

Object make(ObjectKind kind, uint64_t key, const CommandHeader& header, std::span<const std::byte> payload) {
  Object object;
  object.kind = kind;
  object.call = header.call;
  object.context = header.context;
  object.stream = header.stream;
  object.key = key;
  object.payload.assign(payload.begin(), payload.end());
  return object;
}

}  // namespace

void Objects::add(ObjectKind kind, uint64_t key, const CommandHeader& header, std::span<const std::byte> payload) {
  by_key_[{kind, key}] = next_;
  objects_[next_++] = make(kind, key, header, payload);
}

void Objects::keep(const CommandHeader& header, std::span<const std::byte> payload, uint64_t library) {
  Object object = make(ObjectKind::kState, 0, header, payload);
  object.library = library;
  erase_if([&](const Object& other) {
    return other.kind == ObjectKind::kState && other.call == object.call && other.context == object.context &&
           other.payload == object.payload;
  });
  objects_[next_++] = std::move(object);
}

void Objects::bind(uint64_t key, const CommandHeader& header, std::span<const std::byte> payload, uint64_t library) {
  end(ObjectKind::kReference, key);
  add(ObjectKind::kReference, key, header, payload);
  std::prev(objects_.end())->second.library = library;
}

void Objects::end(ObjectKind kind, uint64_t key) {
  const auto found = by_key_.find({kind, key});
  if (found == by_key_.end()) return;
  objects_.erase(found->second);
  by_key_.erase(found);
}

void Objects::end_context(uint32_t number) {
  erase_if([number](const Object& object) {
    return object.context == number && object.kind != ObjectKind::kLibrary && object.kind != ObjectKind::kContext;
  });
  end(ObjectKind::kContext, number);
}

void Objects::end_library(uint64_t number) {
  erase_if([number](const Object& object) {
    return (object.kind == ObjectKind::kState || object.kind == ObjectKind::kReference) && object.library == number;
  });
  end(ObjectKind::kLibrary, number);
}

template <class Predicate>
void Objects::erase_if(Predicate predicate) {
  for (auto it = objects_.begin(); it != objects_.end();) {
    if (!predicate(it->second)) {
      ++it;
      continue;
    }
    if (it->second.kind != ObjectKind::kState) by_key_.erase({it->second.kind, it->second.key});
    it = objects_.erase(it);
  }
}

}  // namespace tide
