#include "server/streams.h"

#include <algorithm>
#include <span>
#include <utility>

#include "server/peer_fetcher.h"

namespace tide {

Streams::Streams(Parts parts) : parts_(std::move(parts)), slots_(kStreamSlots), events_told_(kEventSlots) {}

CUresult Streams::create(uint32_t slot, uint32_t context, uint32_t flags, int32_t priority) {
  if (slot >= kStreamSlots || slots_[slot].live) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = parts_.contexts.use(context); result != CUDA_SUCCESS) return result;
  CUstream handle = nullptr;
  const CUresult result = parts_.driver.cuStreamCreateWithPriority(&handle, flags & CU_STREAM_NON_BLOCKING, priority);
  if (result != CUDA_SUCCESS) return result;
  slots_[slot].live = true;
  slots_[slot].legacy = false;
  slots_[slot].handle = handle;
  slots_[slot].context = context;
  return CUDA_SUCCESS;
}

CUresult Streams::add_legacy(uint32_t slot, uint32_t context) {
  if (slot >= kStreamSlots || slots_[slot].live) return CUDA_ERROR_INVALID_VALUE;
  slots_[slot].live = true;
  slots_[slot].legacy = true;
  slots_[slot].handle = CU_STREAM_LEGACY;
  slots_[slot].context = context;
  return CUDA_SUCCESS;
}

CUresult Streams::destroy(uint32_t slot) {
  if (slot >= kStreamSlots || !slots_[slot].live || slots_[slot].legacy) return CUDA_ERROR_INVALID_HANDLE;
  Slot& s = slots_[slot];
  parts_.contexts.use(s.context);
  if (s.dirty) mark(slot, Pending::Kind::kMarker, 0, {});
  s.live = false;
  return parts_.driver.cuStreamDestroy_v2(s.handle);
}

void Streams::forget_context(uint32_t context) {
  for (Slot& s : slots_) {
    if (!s.live || s.context != context) continue;
    if (!s.legacy) parts_.driver.cuStreamDestroy_v2(s.handle);
    s.live = false;
  }
  for (CUevent marker : markers_[context]) parts_.driver.cuEventDestroy_v2(marker);
  markers_.erase(context);
}

CUresult Streams::enter(uint32_t slot, CUstream* stream) {
  if (slot >= kStreamSlots || !slots_[slot].live) return CUDA_ERROR_INVALID_HANDLE;
  const Slot& s = slots_[slot];
  if (s.diverted && s.elsewhere == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  // A marker on the legacy stream waits for the blocking streams of its context too. Put right behind its work it
  // waits for nothing more than the work did; put later it would join streams that the program keeps apart.
  for (size_t i = 0; i < dirty_.size();) {
    const uint32_t other = dirty_[i];
    if (other != slot && slots_[other].legacy) {
      mark(other, Pending::Kind::kMarker, 0, {});  // which takes it off the list
    } else {
      ++i;
    }
  }
  *stream = s.diverted ? s.elsewhere : s.handle;
  return parts_.contexts.use(s.context);
}

void Streams::divert(uint32_t slot, CUstream to) {
  if (slot >= kStreamSlots) return;
  slots_[slot].diverted = true;
  slots_[slot].elsewhere = to;
}

void Streams::restore(uint32_t slot) {
  if (slot >= kStreamSlots) return;
  Slot& s = slots_[slot];
  s.diverted = false;
  if (s.live) worked(slot, s.sequence);  // a marker says that what was captured is over, as far as the slot goes
}

void Streams::worked(uint32_t slot, uint64_t sequence) {
  Slot& s = slots_[slot];
  s.sequence = std::max(s.sequence, sequence);
  // What is captured is in its graph: nobody may have to wait for the launch.
  if (s.diverted) return tell_progress(slot, sequence);
  if (!s.dirty) {
    s.dirty = true;
    dirty_.push_back(slot);
  }
  const bool much = s.unmarked_bytes >= kBytesPerMarker;
  copied_ |= much;
  if (++s.unmarked >= kCommandsPerMarker || much) mark(slot, Pending::Kind::kMarker, 0, {});
}

bool Streams::copies(uint32_t slot, uint64_t bytes) {
  return slot < kStreamSlots && (slots_[slot].unmarked_bytes += bytes) >= kBytesPerMarker;
}

void Streams::deliver(uint32_t slot, const AnswerHeader& header, Staging::Piece piece, PackMode pack) {
  Pending pending;
  pending.kind = Pending::Kind::kData;
  pending.pack = pack;
  pending.sequence = header.sequence;
  pending.header = header;
  pending.piece = piece;
  activate(slot);
  slots_[slot].pending.push_back(pending);
}

void Streams::release(uint32_t slot, Staging::Piece piece) {
  Pending pending;
  pending.kind = Pending::Kind::kRelease;
  pending.piece = piece;
  activate(slot);
  slots_[slot].pending.push_back(pending);
}

void Streams::fetch(uint32_t slot, uint64_t sequence, std::shared_ptr<const Fetch> fetch) {
  if (slots_[slot].dirty) mark(slot, Pending::Kind::kMarker, 0, {});
  Pending pending;
  pending.kind = Pending::Kind::kFetch;
  pending.sequence = sequence;
  pending.fetch = std::move(fetch);
  activate(slot);
  slots_[slot].pending.push_back(std::move(pending));
}

void Streams::record_event(uint32_t slot, uint32_t event, uint64_t sequence, SharedRecord shared) {
  Slot& s = slots_[slot];
  s.sequence = std::max(s.sequence, sequence);
  mark(slot, Pending::Kind::kEvent, event, std::move(shared));
}

void Streams::mark(uint32_t slot, Pending::Kind kind, uint32_t event, SharedRecord shared) {
  Slot& s = slots_[slot];
  parts_.contexts.use(s.context);
  Pending pending;
  pending.kind = kind;
  pending.sequence = s.sequence;
  pending.event = event;
  pending.shared = std::move(shared);
  pending.marker = failed_ ? nullptr : take_marker(s.context);
  if (pending.marker != nullptr) {
    const CUresult result = parts_.driver.cuEventRecord(pending.marker, s.handle);
    if (result != CUDA_SUCCESS) {
      markers_[s.context].push_back(pending.marker);
      pending.marker = nullptr;
      parts_.raise(result, s.sequence);
    }
  }
  activate(slot);
  s.pending.push_back(std::move(pending));
  s.unmarked = 0;
  s.unmarked_bytes = 0;
  if (s.dirty) {
    s.dirty = false;
    dirty_.erase(std::find(dirty_.begin(), dirty_.end(), slot));
  }
}

void Streams::mark_all() {
  while (!dirty_.empty()) mark(dirty_.back(), Pending::Kind::kMarker, 0, {});
}

void Streams::activate(uint32_t slot) {
  if (slots_[slot].pending.empty()) active_.push_back(slot);
}

CUevent Streams::take_marker(uint32_t context) {
  std::vector<CUevent>& free = markers_[context];
  if (!free.empty()) {
    const CUevent marker = free.back();
    free.pop_back();
    return marker;
  }
  CUevent marker = nullptr;
  const CUresult result = parts_.driver.cuEventCreate(&marker, CU_EVENT_DISABLE_TIMING);
  if (result == CUDA_SUCCESS) return marker;
  parts_.raise(result, 0);
  return nullptr;
}

bool Streams::poll() {
  bool any = false;
  if (failed_) mark_all();
  for (size_t i = 0; i < active_.size();) {
    const uint32_t slot = active_[i];
    any |= poll_slot(slot);
    if (slots_[slot].pending.empty()) {
      active_[i] = active_.back();
      active_.pop_back();
    } else {
      ++i;
    }
  }
  return any;
}

bool Streams::poll_slot(uint32_t slot) {
  Slot& s = slots_[slot];
  bool any = false;
  while (!s.pending.empty()) {
    size_t marked = 0;
    while (marked < s.pending.size() && !s.pending[marked].tells()) ++marked;
    if (marked == s.pending.size() && !failed_) return any;
    bool failed = failed_;
    if (!failed) {
      const CUresult result = query(s.pending[marked]);
      if (result == CUDA_ERROR_NOT_READY) return any;
      if (result != CUDA_SUCCESS) {
        failed = true;
        parts_.raise(result, s.pending.front().sequence);
      }
    }
    for (size_t n = std::min(marked + 1, s.pending.size()); n > 0; --n) {
      finish(slot, s.pending.front(), failed);
      s.pending.pop_front();
    }
    any = true;
  }
  return any;
}

CUresult Streams::query(const Pending& pending) const {
  if (pending.fetch != nullptr)
    return pending.fetch->over.load(std::memory_order_acquire) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  return pending.marker == nullptr ? CUDA_SUCCESS : parts_.driver.cuEventQuery(pending.marker);
}

void Streams::tell_fetch(const Pending& pending, bool failed) {
  FetchAnswer answer;
  answer.state = FetchState::kFailed;
  if (!failed) answer = pending.fetch->answer;
  AnswerHeader header;
  header.kind = uint16_t(AnswerKind::kData);
  header.sequence = pending.sequence;
  parts_.outbox.record(header, std::as_bytes(std::span(&answer, 1)));
}

void Streams::finish(uint32_t slot, Pending& pending, bool failed) {
  Slot& s = slots_[slot];
  if (pending.tells()) ++completed_;
  switch (pending.kind) {
    case Pending::Kind::kData:
      if (failed) {
        parts_.staging.give_back(pending.piece);
      } else {
        parts_.outbox.data(pending.header, pending.piece, pending.pack);
      }
      return;
    case Pending::Kind::kRelease:
      parts_.staging.give_back(pending.piece);
      return;
    case Pending::Kind::kFetch:
      return tell_fetch(pending, failed);
    case Pending::Kind::kEvent:
      if (pending.shared.event != nullptr) {
        pending.shared.event->complete(pending.shared.number);
      } else {
        tell_event(pending.event, pending.sequence);
      }
      [[fallthrough]];
    case Pending::Kind::kMarker:
      tell_progress(slot, pending.sequence);
      if (pending.marker != nullptr) markers_[s.context].push_back(pending.marker);
      return;
  }
}

void Streams::tell_event(uint32_t event, uint64_t sequence) {
  if (event >= kEventSlots || sequence <= events_told_[event]) return;
  events_told_[event] = sequence;
  parts_.outbox.word(event_word(event), sequence);
}

void Streams::tell_progress(uint32_t slot, uint64_t sequence) {
  if (slot >= kStreamSlots || sequence <= slots_[slot].reported) return;
  slots_[slot].reported = sequence;
  parts_.outbox.word(progress_word(slot), sequence);
}

bool Streams::done_before(uint64_t sequence) const {
  const auto older = [this, sequence](uint32_t slot) {
    const Slot& s = slots_[slot];
    for (const Pending& pending : s.pending) {
      if (pending.sequence != 0 && pending.sequence < sequence) return true;
    }
    return s.dirty && s.sequence < sequence;
  };
  return std::none_of(active_.begin(), active_.end(), older) && std::none_of(dirty_.begin(), dirty_.end(), older);
}

bool Streams::idle(uint32_t context) const {
  const auto in = [this, context](uint32_t slot) { return slots_[slot].context == context; };
  return std::none_of(active_.begin(), active_.end(), in) && std::none_of(dirty_.begin(), dirty_.end(), in);
}

bool Streams::computes() const {
  return std::any_of(active_.begin(), active_.end(), [this](uint32_t slot) {
    const std::deque<Pending>& pending = slots_[slot].pending;
    return !pending.empty() && pending.front().kind != Pending::Kind::kFetch;
  });
}

void Streams::fail_all() { failed_ = true; }

void Streams::reached(uint64_t sequence) {
  if (!failed_) return;
  for (uint32_t slot = 0; slot < kStreamSlots; ++slot) {
    if (slots_[slot].live) tell_progress(slot, sequence);
  }
}

}  // namespace tide
