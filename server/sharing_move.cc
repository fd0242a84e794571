// What processes share, in a move.

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "server/sharing.h"
#include "transport/wait.h"

namespace tide {
namespace {

constexpr uint32_t kNoSlot = ~0u;
constexpr size_t kPostsMax = 65536;
constexpr uint64_t kRestoreNs = 30'000'000'000;  // the others' time to come so far
constexpr uint32_t kLookEveryUs = 200;

Outcome cut_short() { return Outcome::fail("the state is cut short in what processes share"); }

}  // namespace

void Sharing::name_event(SharedEvent& event) { event.set_maker({self_.low, self_.high, next_event_++}); }

bool Sharing::has_ended(const SessionId& session) const {
  return std::find(ended_.begin(), ended_.end(), session) != ended_.end();
}

// Each once, whether it is named, mapped or both.
std::vector<std::shared_ptr<Physical>> Sharing::imported() const {
  std::vector<std::shared_ptr<Physical>> all = memory_.mapped_physicals();
  for (const auto& [name, physical] : physicals_) {
    if (std::find(all.begin(), all.end(), physical) == all.end()) all.push_back(physical);
  }
  return all;
}

const char* Sharing::move_obstacle() const {
  static constexpr const char* kOrphan = "it uses memory or events of a process that has ended (CUDA IPC)";
  for (const auto& physical : imported()) {
    if (physical->charged != 0) return "it has memory that was made for sharing with other processes (cuMemCreate)";
    const auto nameless = [](const Physical::Part& part) { return part.name == 0; };
    if (std::any_of(physical->parts.begin(), physical->parts.end(), nameless))
      return "it has memory of another process that was made for sharing (cuMemCreate)";
    if (has_ended({physical->owner_low, physical->owner_high})) return kOrphan;
  }
  for (const auto& weak : opened_) {
    const auto event = weak.lock();
    if (event != nullptr && has_ended({event->maker().low, event->maker().high})) return kOrphan;
  }
  return nullptr;
}

void Sharing::write(Events& events, BlobWriter* to) const {
  const auto pieces = memory_.shared_pieces();
  to->put(uint64_t(pieces.size()));
  for (const Memory::SharedPiece& piece : pieces) to->put(piece);
  std::vector<std::pair<uint32_t, SharedEvent*>> pages;
  for (uint32_t slot = 0; slot < events.slots(); ++slot) {
    const Events::Event* event = events.find(slot);
    if (event != nullptr && event->shared != nullptr) pages.emplace_back(slot, event->shared.get());
  }
  to->put(next_event_);
  to->put(uint64_t(pages.size()));
  for (const auto& [slot, page] : pages) {
    to->put(slot);
    to->put(page->maker());
    to->put(page->last());
  }
  to->put(uint64_t(shared_.size()));
  for (const auto& [name, shared] : shared_) {
    const SharedEvent* const event = shared.event.get();
    const auto page =
        std::find_if(pages.begin(), pages.end(), [event](const auto& known) { return known.second == event; });
    to->put(name);
    to->put(shared.address);
    to->put(shared.bytes);
    to->put(page == pages.end() ? kNoSlot : page->first);
  }
  const auto all = imported();
  to->put(uint64_t(all.size()));
  for (const auto& physical : all) {
    to->put(SessionId{physical->owner_low, physical->owner_high});
    to->put(memory_.address_of(physical.get()));
    to->put(uint64_t(physical->parts.size()));
    for (const Physical::Part& part : physical->parts) to->put(part.bytes), to->put(part.name);
    std::vector<uint64_t> names;
    for (const auto& [name, named] : physicals_) {
      if (named == physical) names.push_back(name);
    }
    to->put(uint64_t(names.size()));
    for (const uint64_t name : names) to->put(name);
  }
}

Outcome Sharing::restore_pieces(BlobReader* from) {
  const uint64_t count = from->count(sizeof(Memory::SharedPiece));
  for (uint64_t i = 0; i < count && from->ok(); ++i) {
    const auto piece = from->get<Memory::SharedPiece>();
    Physical::Part part;
    if (!memory_.name_piece(piece) || !memory_.find_piece(piece.name, &part))
      return Outcome::fail("memory that other processes have is not here as they have it");
    // The first export may have to wait for work (Sharing::prepare), and now there is none.
    const int fd = memory_.export_part(part);
    if (fd < 0) return Outcome::fail("memory that other processes have cannot be shared with them here");
    close(fd);
  }
  return from->ok() ? Outcome() : cut_short();
}

Outcome Sharing::restore_names(BlobReader* from) {
  const uint64_t count = from->count(28);
  for (uint64_t i = 0; i < count && from->ok(); ++i) {
    const auto name = from->get<uint64_t>();
    Shared shared;
    shared.address = from->get<uint64_t>();
    shared.bytes = from->get<uint64_t>();
    shared.event = restored_event(from->get<uint32_t>());
    if (shared.bytes != 0 || shared.event != nullptr) shared_[name] = std::move(shared);
  }
  return from->ok() ? Outcome() : cut_short();
}

std::shared_ptr<SharedEvent> Sharing::restored_event(uint32_t slot) const {
  const auto found = restored_events_.find(slot);
  return found == restored_events_.end() ? nullptr : found->second;
}

Outcome Sharing::restore_event(uint32_t slot, const SharedEvent::Maker& maker, uint64_t begun) {
  const SessionId owner{maker.low, maker.high};
  std::shared_ptr<SharedEvent> page;
  if (owner == self_) {
    page = find_event(maker.number);  // several slots may have one that was opened here, too
    const bool fresh = page == nullptr;
    if (fresh) page = SharedEvent::make();
    if (page == nullptr) return Outcome::fail("there is no memory for a shared event");
    if (fresh) page->set_maker(maker), page->set_complete(begun), watch(page);
  } else {
    int fd = -1;
    uint64_t bytes = 0;
    if (Outcome outcome = wait_for({owner, maker.number, SharedBy::kEvent}, &fd, &bytes); !outcome.ok()) return outcome;
    page = SharedEvent::open(fd);
    if (page == nullptr) return Outcome::fail("an event of another process cannot be opened here");
    opened_.push_back(page);
    watch(page);
  }
  restored_events_[slot] = std::move(page);
  return {};
}

Outcome Sharing::restore_import(const Import& import) {
  std::vector<int> fds;
  Outcome outcome;
  for (size_t i = 0; i < import.pieces.size() && outcome.ok(); ++i) {
    int fd = -1;
    uint64_t bytes = 0;
    outcome = wait_for({import.owner, import.pieces[i], SharedBy::kPiece}, &fd, &bytes);
    if (outcome.ok()) fds.push_back(fd);
    if (outcome.ok() && bytes != import.bytes[i]) outcome = Outcome::fail("shared memory is not what it was");
  }
  std::shared_ptr<Physical> physical;
  if (outcome.ok()) physical = memory_.import_physical(fds, import.bytes);
  for (const int fd : fds) close(fd);
  if (!outcome.ok()) return outcome;
  if (physical == nullptr) return Outcome::fail("another process's memory cannot be imported here");
  physical->owner_low = import.owner.low, physical->owner_high = import.owner.high;
  for (size_t i = 0; i < import.pieces.size(); ++i) physical->parts[i].name = import.pieces[i];
  for (const uint64_t name : import.names) physicals_[name] = physical;
  const bool mapped = import.address == 0 || memory_.map_physical(import.address, physical) == CUDA_SUCCESS;
  return mapped ? Outcome() : Outcome::fail("another process's memory cannot be mapped where it was");
}

Outcome Sharing::restore(BlobReader* from) {
  if (Outcome outcome = restore_pieces(from); !outcome.ok()) return outcome;
  struct Page {
    uint32_t slot = 0;
    SharedEvent::Maker maker;
    uint64_t begun = 0;
  };
  next_event_ = from->get<uint64_t>();
  std::vector<Page> pages(from->count(36));
  for (Page& page : pages) {
    page.slot = from->get<uint32_t>();
    page.maker = from->get<SharedEvent::Maker>();
    page.begun = from->get<uint64_t>();
  }
  // What is one's own first: who waits here answers, too.
  const auto ours = [this](const Page& page) { return SessionId{page.maker.low, page.maker.high} == self_; };
  std::stable_partition(pages.begin(), pages.end(), ours);
  for (const Page& page : pages) {
    if (!from->ok()) return cut_short();
    if (Outcome outcome = restore_event(page.slot, page.maker, page.begun); !outcome.ok()) return outcome;
  }
  if (Outcome outcome = restore_names(from); !outcome.ok()) return outcome;
  const uint64_t count = from->count(24);
  for (uint64_t i = 0; i < count && from->ok(); ++i) {
    Import import;
    import.owner = from->get<SessionId>();
    import.address = from->get<uint64_t>();
    import.bytes.resize(from->count(16));
    for (uint64_t& bytes : import.bytes) bytes = from->get<uint64_t>(), import.pieces.push_back(from->get<uint64_t>());
    import.names.resize(from->count(8));
    for (uint64_t& name : import.names) name = from->get<uint64_t>();
    if (!from->ok()) return cut_short();
    if (Outcome outcome = restore_import(import); !outcome.ok()) return outcome;
  }
  return from->ok() ? Outcome() : cut_short();
}

// One descriptor of another session, whose worker may still be receiving.
Outcome Sharing::wait_for(const SharedName& what, int* fd, uint64_t* bytes) {
  CUresult result = ask(what);
  for (const uint64_t end = now_ns() + kRestoreNs; result == CUDA_ERROR_NOT_READY; result = ask(what)) {
    take_posts();
    if (posts_end_ || now_ns() > end) break;
    sleep_us(kLookEveryUs);
  }
  if (result == CUDA_ERROR_INVALID_HANDLE)
    return Outcome::fail("memory or an event of another process is there no more: that one has ended, or freed it");
  const bool fits = result == CUDA_SUCCESS && question_.fds.size() == 1;
  if (fits) *fd = std::exchange(question_.fds[0], -1), *bytes = question_.bytes[0];
  if (fits) question_.fds.clear();
  close_question();
  return fits ? Outcome() : Outcome::fail("another process's memory or event cannot be had here");
}

void Sharing::post(ControlMessage* message) {
  const bool ours = message->type == ControlType::kAskShared || message->type == ControlType::kSharedAnswer ||
                    message->type == ControlType::kSessionEnded;
  const std::lock_guard lock(posts_mu_);
  if (!ours || posts_.size() >= kPostsMax) return;
  posts_.push_back(*message);
  std::fill(std::begin(message->fds), std::end(message->fds), -1);
}

void Sharing::take_posts() {
  std::deque<ControlMessage> posts;
  {
    const std::lock_guard lock(posts_mu_);
    posts.swap(posts_);
  }
  for (ControlMessage& message : posts) {
    take(&message);
    for (const int fd : message.fds) {
      if (fd >= 0) close(fd);
    }
  }
}

void Sharing::take(ControlMessage* message) {
  const auto* shared = message->as<ControlShared>();
  const auto* gone = message->as<SessionId>();
  if (message->type == ControlType::kAskShared && shared != nullptr) return asked(*shared);
  if (message->type == ControlType::kSharedAnswer) return answered(message);
  if (message->type == ControlType::kSessionEnded && gone != nullptr) ended(*gone);
}

}  // namespace tide
