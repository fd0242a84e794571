#include "server/state.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/versions.h"
#include "server/blob.h"

namespace tide {
namespace {

constexpr uint32_t kStateVersion = 9;

// Libraries in the order in which they were loaded.
std::vector<uint64_t> library_order(Session& session) {
  std::vector<uint64_t> order;
  for (const auto& [id, object] : session.objects().all()) {
    if (object.kind == ObjectKind::kLibrary) order.push_back(object.key);
  }
  return order;
}

void write_libraries(Session& session, BlobWriter* w) {
  const std::vector<uint64_t> order = library_order(session);
  w->put(uint64_t(order.size()));
  for (const uint64_t number : order) w->put(uint64_t(session.libraries().find(number)->image->size()));
  for (const uint64_t number : order) {
    const Library& library = *session.libraries().find(number);
    w->put(number);
    w->put(library.image_base);
    w->put(library.image_bytes);
    w->put(uint64_t(library.kernels.size()));
    for (const KernelEntry& kernel : library.kernels) w->put_text(kernel.name);
    w->put(uint64_t(library.globals.size()));
    for (const GlobalEntry& global : library.globals) {
      w->put_text(global.name);
      w->put(global.address);
      w->put(global.bytes);
      w->put(uint64_t(global.managed));
    }
  }
}

void write_objects(Session& session, BlobWriter* w) {
  w->put(uint64_t(session.objects().size()));
  for (const auto& [id, object] : session.objects().all()) {
    w->put(object.kind);
    w->put(object.call);
    w->put(object.context);
    w->put(object.stream);
    w->put(object.key);
    w->put_bytes(object.payload);
  }
}

void write_events(Session& session, BlobWriter* w) {
  std::vector<std::pair<uint32_t, double>> recorded;
  for (uint32_t slot = 0; slot < session.events().slots(); ++slot) {
    const Events::Event* event = session.events().find(slot);
    if (event == nullptr || !event->recorded) continue;
    const bool timed = (event->flags & CU_EVENT_DISABLE_TIMING) == 0;
    recorded.emplace_back(slot, timed ? session.events().time_ms(*event) : 0.0);
  }
  w->put(uint64_t(recorded.size()));
  for (const auto& [slot, ms] : recorded) {
    w->put(slot);
    w->put(ms);
  }
}

void write_outbox(Session& session, BlobWriter* w) {
  w->put(uint64_t(session.outbox().entries().size()));
  for (const Outbox::Entry& entry : session.outbox().entries()) {
    w->put(entry.header);
    w->put(entry.word);
    w->put(entry.value);
    const std::byte* from = entry.piece ? entry.piece.data : entry.payload.data();
    w->put_bytes({from, entry.word != 0 ? 0 : entry.header.payload_bytes});
  }
}

void write_stages(Session& session, BlobWriter* w) {
  w->put(uint64_t(session.libraries().stages().size()));
  for (const auto& [number, stage] : session.libraries().stages()) {
    w->put(number);
    w->put(stage.received);
    w->put_bytes(*stage.bytes);
  }
}

Outcome check_version(BlobReader* r) {
  const auto version = r->get<uint32_t>();
  if (!r->ok()) return Outcome::fail("the state is cut short");
  if (version == kStateVersion) return {};
  return Outcome::fail(
      versions_differ({"the source's worker", version}, {"this worker", kStateVersion}, "state of a vGPU"));
}

// What is in one list and not in the other; both ascend.
std::vector<MemoryRange> without(const std::vector<MemoryRange>& ranges, const std::vector<MemoryRange>& others) {
  std::vector<MemoryRange> rest;
  auto other = others.begin();
  for (MemoryRange range : ranges) {
    const uint64_t end = range.address + range.bytes;
    for (; other != others.end() && other->address < end; ++other) {
      const uint64_t other_end = other->address + other->bytes;
      if (other_end <= range.address) continue;
      if (other->address > range.address) rest.push_back({range.address, other->address - range.address});
      range.address = std::min(end, other_end);
      if (other_end > end) break;  // it may lie in the next one, too
    }
    if (range.address < end) rest.push_back({range.address, end - range.address});
  }
  return rest;
}

struct Earlier {
  uint64_t number = 0;
  Library library;
};

Outcome read_libraries(BlobReader* r, const std::vector<ImageBytes>& images, std::vector<Earlier>* libraries) {
  const uint64_t count = r->count(8);
  if (count != images.size()) return Outcome::fail("the state names other images than were sent");
  for (uint64_t i = 0; i < count; ++i) r->get<uint64_t>();
  for (uint64_t i = 0; i < count && r->ok(); ++i) {
    Earlier earlier;
    earlier.number = r->get<uint64_t>();
    earlier.library.image = images[i];
    earlier.library.image_base = r->get<uint64_t>();
    earlier.library.image_bytes = r->get<uint64_t>();
    earlier.library.kernels.resize(r->count(8));
    for (KernelEntry& kernel : earlier.library.kernels) kernel.name = r->get_text();
    earlier.library.globals.resize(r->count(32));
    for (GlobalEntry& global : earlier.library.globals) {
      global.name = r->get_text();
      global.address = r->get<uint64_t>();
      global.bytes = r->get<uint64_t>();
      global.managed = r->get<uint64_t>() != 0;
    }
    libraries->push_back(std::move(earlier));
  }
  return r->ok() ? Outcome() : Outcome::fail("the state is cut short in its libraries");
}

// The addresses that the client knows must be the same here.
Outcome check_library(Session& session, const Earlier& earlier) {
  const Library& library = *session.libraries().find(earlier.number);
  if (library.image_base != earlier.library.image_base) {
    return Outcome::fail(
        format("library %llu lies at another address here", static_cast<unsigned long long>(earlier.number)));
  }
  for (const GlobalEntry& global : earlier.library.globals) {
    GlobalEntry here;
    const CUresult result = session.libraries().global(earlier.number, global.name, &here);
    if (result != CUDA_SUCCESS || here.address != global.address || here.bytes != global.bytes) {
      return Outcome::fail("the variable '" + global.name + "' has another address on the destination's GPU");
    }
  }
  return {};
}

Outcome replay_objects(Session& session, BlobReader* r, const std::vector<Earlier>& libraries) {
  const uint64_t count = r->count(8);
  for (uint64_t i = 0; i < count; ++i) {
    Object object;
    object.kind = r->get<ObjectKind>();
    object.call = r->get<uint16_t>();
    object.context = r->get<uint32_t>();
    object.stream = r->get<uint32_t>();
    object.key = r->get<uint64_t>();
    object.payload = r->get_bytes();
    if (!r->ok()) return Outcome::fail("the state is cut short in its objects");
    const Earlier* earlier = nullptr;
    for (const Earlier& candidate : libraries) {
      if (object.kind == ObjectKind::kLibrary && candidate.number == object.key) earlier = &candidate;
    }
    if (object.kind == ObjectKind::kLibrary && earlier == nullptr) return Outcome::fail("a library's image is missing");
    session.set_image_like(earlier == nullptr ? nullptr : &earlier->library);
    const CUresult result = session.replay(object);
    session.set_image_like(nullptr);
    // What a reference shows may be gone; kernels cannot read it then, here or there.
    if (result != CUDA_SUCCESS && object.kind != ObjectKind::kState && object.kind != ObjectKind::kReference) {
      return Outcome::fail(format("object %llu of kind %u cannot be made here: %s",
                                  static_cast<unsigned long long>(object.key), unsigned(object.kind),
                                  error_text(session.driver(), result).c_str()));
    }
    if (earlier == nullptr) continue;
    session.contexts().use(object.context);
    if (Outcome outcome = check_library(session, *earlier); !outcome.ok()) return outcome;
  }
  return {};
}

// What a move has mapped already stays, if it shall be there.
Outcome read_ranges(Session& session, BlobReader* r) {
  std::vector<MemoryRange> ranges(r->count(sizeof(MemoryRange)));
  for (MemoryRange& range : ranges) range = r->get<MemoryRange>();
  if (!r->ok()) return Outcome::fail("the state is cut short in its memory");
  Memory& memory = session.memory();
  for (const MemoryRange& range : without(memory.ranges(), ranges)) memory.unmap(range.address, range.bytes, 0);
  memory.collect(session.streams());
  for (const MemoryRange& range : without(ranges, memory.ranges())) {
    const CUresult result = memory.map(range.address, range.bytes);
    if (result != CUDA_SUCCESS) return memory.cannot_map(range.bytes, result);
  }
  return {};
}

void read_events(Session& session, BlobReader* r) {
  const uint64_t count = r->count(12);
  for (uint64_t i = 0; i < count && r->ok(); ++i) {
    const auto slot = r->get<uint32_t>();
    const auto ms = r->get<double>();
    Events::Event* event = session.events().find(slot);
    if (event == nullptr) continue;
    event->recorded = true;
    event->virtual_ms = ms;
  }
}

Outcome read_outbox(Session& session, BlobReader* r) {
  const uint64_t count = r->count(8);
  for (uint64_t i = 0; i < count; ++i) {
    Outbox::Entry entry;
    entry.header = r->get<AnswerHeader>();
    entry.word = r->get<uint64_t>();
    entry.value = r->get<uint64_t>();
    entry.payload = r->get_bytes();
    if (!r->ok() || entry.word > sizeof(WorkerPage) - sizeof(Word) || entry.word % sizeof(Word) != 0 ||
        entry.payload.size() > kAnswerPayloadMax) {
      return Outcome::fail("the state is broken in its answers");
    }
    entry.header.payload_bytes = uint32_t(entry.payload.size());
    session.outbox().entries().push_back(std::move(entry));
  }
  return {};
}

Outcome read_stages(Session& session, BlobReader* r) {
  const uint64_t count = r->count(24);
  for (uint64_t i = 0; i < count; ++i) {
    const auto number = r->get<uint64_t>();
    const auto received = r->get<uint64_t>();
    const auto bytes = std::make_shared<std::vector<std::byte>>(r->get_bytes());
    if (!r->ok() || bytes->size() <= kImagePadding) return Outcome::fail("the state is cut short in its stages");
    session.libraries().put_stage(number, {bytes, received});
  }
  return {};
}

}  // namespace

std::vector<std::byte> write_state(Session& session) {
  BlobWriter w;
  w.put(kStateVersion);
  write_libraries(session, &w);
  w.put(session.partial());
  w.put(session.contexts().time_ms());
  const std::vector<MemoryRange> ranges = session.memory().ranges();
  w.put(uint64_t(ranges.size()));
  for (const MemoryRange& range : ranges) w.put(range);
  session.sharing().write(session.events(), &w);
  write_objects(session, &w);
  write_events(session, &w);
  write_outbox(session, &w);
  write_stages(session, &w);
  return w.bytes();
}

std::vector<ImageBytes> images_of(Session& session) {
  std::vector<ImageBytes> images;
  for (const uint64_t number : library_order(session)) images.push_back(session.libraries().find(number)->image);
  return images;
}

Outcome read_outline(std::span<const std::byte> state, StateOutline* outline) {
  BlobReader r(state);
  if (Outcome outcome = check_version(&r); !outcome.ok()) return outcome;
  outline->image_bytes.resize(r.count(8));
  for (uint64_t& bytes : outline->image_bytes) {
    bytes = r.get<uint64_t>();
    if (bytes > 2 * kImageBytesMax) return Outcome::fail("an image is too large");
  }
  return r.ok() ? Outcome() : Outcome::fail("the state is cut short");
}

Outcome restore_state(Session& session, std::span<const std::byte> state, const std::vector<ImageBytes>& images) {
  BlobReader r(state);
  if (Outcome outcome = check_version(&r); !outcome.ok()) return outcome;
  std::vector<Earlier> libraries;
  if (Outcome outcome = read_libraries(&r, images, &libraries); !outcome.ok()) return outcome;
  session.partial() = r.get<uint64_t>();
  session.contexts().set_time(r.get<double>());
  if (Outcome outcome = read_ranges(session, &r); !outcome.ok()) return outcome;
  if (Outcome outcome = session.sharing().restore(&r); !outcome.ok()) return outcome;
  if (Outcome outcome = replay_objects(session, &r, libraries); !outcome.ok()) return outcome;
  session.sharing().forget_restored();
  read_events(session, &r);
  if (Outcome outcome = read_outbox(session, &r); !outcome.ok()) return outcome;
  if (Outcome outcome = read_stages(session, &r); !outcome.ok()) return outcome;
  return r.ok() ? Outcome() : Outcome::fail("the state is cut short");
}

void restore_references(Session& session) {
  std::vector<Object> references;
  for (const auto& [id, object] : session.objects().all()) {
    if (object.kind == ObjectKind::kReference) references.push_back(object);
  }
  for (const Object& object : references) session.replay(object);
}

std::vector<MemoryRange> image_ranges(Session& session) {
  std::vector<MemoryRange> ranges;
  for (const uint64_t number : library_order(session)) {
    const Library& library = *session.libraries().find(number);
    if (library.image_bytes != 0) {
      ranges.push_back({library.image_base, library.image_bytes});
      continue;
    }
    for (const GlobalEntry& global : library.globals) ranges.push_back({global.address, global.bytes});
  }
  return ranges;
}

}  // namespace tide
