#include "transport/verbs/carrier.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/hex.h"
#include "base/log.h"
#include "transport/rdma.h"
#include "transport/verbs.h"

namespace tide {
namespace {

constexpr uint64_t kMailboxBytes = uint64_t(kVerbsSlots) * kVerbsSlotBytes;
constexpr uint32_t kReceives = kVerbsSlots + 4;  // hello, ping, two of credits alone: never more are unread
constexpr uint32_t kSends = 256;                 // requests under way: two for a parcel
constexpr uint32_t kSignalEvery = 32;            // requests for one completion
constexpr uint32_t kSignalBytes = 256u << 10;    // or bytes
// Bytes under way: 400 Gbit/s for 20 us, and less than what switches and software drop packets for.
constexpr uint32_t kBytesMax = 1u << 20;
// Of both rings, the messages, and the device's own queues.
constexpr uint64_t kLockedBytes = 2 * kCommandRingBytes + 2 * kMailboxBytes + (512u << 10);
constexpr size_t kKnownMax = 128;  // registered pieces of memory besides the rings
constexpr uint64_t kReceiveId = 0;
constexpr int kWritable = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
constexpr int kReadOnly = 0;

static_assert(kCommandRingBytes == kAnswerRingBytes);
static_assert(sizeof(ParcelHeader) + kParcelEntriesMax * sizeof(ParcelEntry) <= kVerbsSlotBytes);
static_assert(kVerbsInlineBytes <= kVerbsSlotBytes);
static_assert(kSignalEvery + 2 * kVerbsSlots + 4 <= kSends);

uint64_t offset_in(const std::byte* base, const std::byte* at) {
  return reinterpret_cast<uint64_t>(at) - reinterpret_cast<uint64_t>(base);
}

}  // namespace

std::string VerbsAddress::text() const { return hex(reinterpret_cast<const uint8_t*>(this), sizeof *this); }

Outcome VerbsAddress::parse(const std::string& text, VerbsAddress* address) {
  uint8_t bytes[sizeof *address];
  if (!parse_hex(text, bytes, sizeof bytes)) return Outcome::fail("the worker's RDMA address is malformed");
  memcpy(address, bytes, sizeof bytes);
  return address->check();
}

Outcome VerbsAddress::check() const {
  const VerbsAddress ours;
  if (magic != ours.magic || (version == ours.version && connection == 0))
    return Outcome::fail("the far side's RDMA address is malformed");
  if (version != ours.version) {
    return Outcome::fail(
        format("the far side's verbs transport is of version %u, this one of %u; use one version of "
               "Tidepool on both sides",
               version, ours.version));
  }
  return {};
}

// One or two chained requests, and where their bytes are.
class VerbsCarrier::Work {
 public:
  // A write to the far side; its parts are added next.
  void begin(ibv_wr_opcode opcode, uint64_t remote, uint32_t key) {
    ibv_send_wr& request = requests_[count_];
    if (count_ > 0) requests_[count_ - 1].next = &request;
    request.sg_list = parts_[count_++];
    request.opcode = opcode;
    request.wr.rdma.remote_addr = remote;
    request.wr.rdma.rkey = key;
  }
  void add(const void* bytes, uint64_t n, uint32_t key) {
    ibv_sge& part = parts_[count_ - 1][last().num_sge++];
    part = {.addr = reinterpret_cast<uint64_t>(bytes), .length = uint32_t(n), .lkey = key};
    bytes_ += uint32_t(n);
  }
  // The processor copies the bytes into the request.
  void copy_in() { last().send_flags |= IBV_SEND_INLINE; }
  ibv_send_wr& last() { return requests_[count_ - 1]; }
  ibv_send_wr* first() { return requests_; }
  uint32_t count() const { return count_; }
  uint32_t bytes() const { return bytes_; }

 private:
  ibv_send_wr requests_[2] = {};
  ibv_sge parts_[2][2];
  uint32_t count_ = 0, bytes_ = 0;
};

Outcome VerbsCarrier::open(Region region, Side own, int lifeline) {
  own_ = own;
  lifeline_ = lifeline;
  while (connection_ == 0) {
    if (getrandom(&connection_, sizeof connection_, 0) != sizeof connection_) return Outcome::fail("no random bytes");
  }
  in_ring_ = own == Side::kClient ? region.answers() : region.commands();
  out_ring_ = own == Side::kClient ? region.commands() : region.answers();
  VerbsWish wish;
  Outcome outcome = VerbsWish::from_environment(&wish);
  if (!outcome.ok()) return outcome;
  const Memlock memlock = Memlock::now();
  if (!memlock.has_room(kLockedBytes))
    return Outcome::fail("verbs: " + memlock.too_little_for("a connection", kLockedBytes));
  uint8_t near[16];
  const bool has_address = gid_of_socket(lifeline, near);
  const QueuePairSizes sizes{.sends = kSends, .receives = kReceives, .inline_bytes = kVerbsInlineBytes, .events = true};
  outcome = QueuePair::open(wish, has_address ? near : nullptr, sizes, &pair_);
  if (outcome.ok()) outcome = open_memory();
  if (outcome.ok()) outcome = open_events();
  for (uint32_t i = 0; outcome.ok() && i < kReceives; ++i) {
    if (!pair_->post_receive(kReceiveId)) outcome = Outcome::fail("verbs: cannot post receives");
  }
  return outcome;
}

// The far side may write what it owns and nothing else: its ring in our copy, and our mailbox. The pages with the
// cursors are not registered.
Outcome VerbsCarrier::open_memory() {
  // Shared, so that a fork of the program leaves the pages here.
  void* pool = mmap(nullptr, 2 * kMailboxBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (pool == MAP_FAILED) return Outcome::fail("no memory for messages");
  pool_ = static_cast<std::byte*>(pool);
  Outcome outcome = pair_->add_memory(in_ring_, kCommandRingBytes, kWritable, &in_memory_);
  if (outcome.ok()) outcome = pair_->add_memory(out_ring_, kCommandRingBytes, kReadOnly, &out_memory_);
  if (outcome.ok()) outcome = pair_->add_memory(pool_, kMailboxBytes, kWritable, &mailbox_memory_);
  if (outcome.ok()) outcome = pair_->add_memory(pool_ + kMailboxBytes, kMailboxBytes, kReadOnly, &slots_memory_);
  return outcome;
}

// One descriptor for all that may come: the worker sleeps while the client's address is on its way, too.
Outcome VerbsCarrier::open_events() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  const auto add = [&](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    return epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0;
  };
  const bool good =
      epoll_ >= 0 && add(pair_->fd()) && add(pair_->device_fd()) && (own_ == Side::kClient || add(lifeline_));
  return good ? Outcome{} : Outcome::fail(format("verbs: cannot sleep: %s", strerror(errno)));
}

VerbsCarrier::~VerbsCarrier() {
  pair_.reset();
  if (pool_ != nullptr) munmap(pool_, 2 * kMailboxBytes);
  if (epoll_ >= 0) close(epoll_);
}

void VerbsCarrier::release() {
  fail("it was given back");
  known_.clear();
  left_.clear();
  pair_.reset();
}

// Another connection's worth stays free.
void VerbsCarrier::know_memory(const std::byte* base, uint64_t bytes, bool written) {
  drop_left();
  if (pair_ == nullptr || known_.size() >= kKnownMax || !Memlock::now().has_room(bytes + kLockedBytes)) return;
  Known known{base, bytes, nullptr, written};
  const Outcome outcome =
      pair_->add_memory(const_cast<std::byte*>(base), bytes, written ? kWritable : kReadOnly, &known.memory);
  if (outcome.ok()) {
    known_.push_back(known);
    log(LogLevel::kDebug, "verbs: copies of %llu KiB of memory are sent from where they lie",
        static_cast<unsigned long long>(bytes >> 10));
  } else {
    log(LogLevel::kDebug, "verbs: copies go through the ring: %s", outcome.message().c_str());
  }
}

void VerbsCarrier::forget_memory(const std::byte* base) {
  const auto found = std::find_if(known_.begin(), known_.end(), [&](const Known& each) { return each.base == base; });
  if (found == known_.end()) return;
  left_.push_back({found->memory, posted_.requests});
  known_.erase(found);
  drop_left();
  if (!left_.empty()) idle();  // asks for a completion: else what was given back stays pinned until much more is sent
}

// What was sent may be sent again until its completion has come, though the far side has it: as it was, from these
// pages.
void VerbsCarrier::drop_left() {
  std::erase_if(left_, [this](const Left& each) {
    const bool over = int32_t(completed_.requests - each.posted) >= 0;
    if (over) pair_->drop_memory(each.memory);
    return over;
  });
}

const VerbsCarrier::Known* VerbsCarrier::find_known(const std::byte* at, uint64_t bytes) const {
  for (const Known& each : known_) {
    const uint64_t offset = offset_in(each.base, at);
    if (offset < each.bytes && bytes <= each.bytes - offset) return &each;
  }
  return nullptr;
}

RemotePlace VerbsCarrier::place_for(const std::byte* to, uint64_t bytes) const {
  const Known* known = find_known(to, bytes);
  if (known == nullptr || !known->written) return {};
  return {reinterpret_cast<uint64_t>(to), known->memory->rkey, connection_};
}

// Where the ring's bytes of a parcel can be sent from: from where they lie, if that is registered. Else they are copied
// into the ring, where their place is free.
const std::byte* VerbsCarrier::sendable(const Parcel& parcel, uint32_t* key) {
  const uint64_t bytes = parcel.header.ring_bytes;
  *key = out_memory_->lkey;
  if (offset_in(out_ring_, parcel.ring) < kCommandRingBytes) return parcel.ring;
  if (const Known* known = find_known(parcel.ring, bytes); known != nullptr) {
    *key = known->memory->lkey;
    return parcel.ring;
  }
  std::byte* place = out_ring_ + parcel.header.ring_begin % kCommandRingBytes;
  memcpy(place, parcel.ring, bytes);
  return place;
}

VerbsAddress VerbsCarrier::address() const {
  const QueuePairAddress pair = pair_->address();
  VerbsAddress address;
  address.lid = pair.lid;
  address.queue_pair = pair.number;
  address.sequence = pair.sequence;
  address.mtu = pair.mtu;
  address.connection = connection_;
  address.ring_key = in_memory_->rkey;
  address.mailbox_key = mailbox_memory_->rkey;
  address.ring_address = reinterpret_cast<uint64_t>(in_ring_);
  address.mailbox_address = reinterpret_cast<uint64_t>(pool_);
  memcpy(address.gid, pair.gid, sizeof address.gid);
  return address;
}

Outcome VerbsCarrier::join(const VerbsAddress& far) {
  far_ = far;
  QueuePairAddress pair{far.queue_pair, far.sequence, far.mtu, far.lid, {}};
  memcpy(pair.gid, far.gid, sizeof pair.gid);
  return pair_->connect(pair);
}

Outcome VerbsCarrier::listen(Region region, int lifeline, std::string* data) {
  const Outcome outcome = open(region, Side::kWorker, lifeline);
  if (outcome.ok()) *data = address().text();
  return outcome;
}

// We can receive before the worker learns of us, so its hello finds us ready; we send nothing before that.
Outcome VerbsCarrier::connect(Region region, int lifeline, const std::string& data) {
  VerbsAddress far;
  Outcome outcome = VerbsAddress::parse(data, &far);
  if (outcome.ok()) outcome = open(region, Side::kClient, lifeline);
  if (outcome.ok()) outcome = join(far);
  if (!outcome.ok()) return outcome;
  const VerbsAddress ours = address();
  if (::send(lifeline, &ours, sizeof ours, MSG_NOSIGNAL) != ssize_t(sizeof ours)) {
    return Outcome::fail(format("cannot tell the worker this side's RDMA address: %s", strerror(errno)));
  }
  return {};
}

// The worker's: reads what has come of the client's address, and connects when it is whole.
bool VerbsCarrier::hear_client() {
  auto* at = reinterpret_cast<std::byte*>(&heard_) + heard_bytes_;
  const ssize_t n = recv(lifeline_, at, sizeof heard_ - heard_bytes_, MSG_DONTWAIT);
  if (n <= 0) {
    if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) fail("the client ended");
    return false;
  }
  heard_bytes_ += size_t(n);
  if (heard_bytes_ < sizeof heard_) return true;
  epoll_ctl(epoll_, EPOLL_CTL_DEL, lifeline_, nullptr);
  Outcome outcome = heard_.check();
  if (outcome.ok()) outcome = join(heard_);
  if (!outcome.ok()) {
    log(LogLevel::kWarning, "verbs: %s", outcome.message().c_str());
    fail("the client's side cannot be reached");
    return true;
  }
  greeted_ = true;
  say(VerbsMessage::kHello);
  return true;
}

void VerbsCarrier::fail(const char* why) {
  if (failure_ == nullptr) failure_ = why;
}

bool VerbsCarrier::poll() {
  if (completion_ < completion_count_) return true;
  completion_ = 0;
  completion_count_ = pair_->poll(completions_, kCompletionsAtOnce);
  if (completion_count_ >= 0) return completion_count_ > 0;
  completion_count_ = 0;
  fail("the device's completion queue is broken");
  return false;
}

// What tells of no completion: the device's own events, and a device that is gone.
void VerbsCarrier::look_at_descriptors() {
  epoll_event events[3];
  const int count = epoll_wait(epoll_, events, 3, 0);
  if (count < 0 && errno != EINTR) fail("cannot sleep");
  for (int i = 0; i < count; ++i) {
    if (events[i].data.fd == lifeline_) continue;  // hear_client() reads its end
    const bool gone = (events[i].events & (EPOLLERR | EPOLLHUP)) != 0;
    const char* why = gone ? kDeviceGone : events[i].data.fd == pair_->device_fd() ? pair_->take_events() : nullptr;
    if (why != nullptr) fail(why);
  }
}

bool VerbsCarrier::progress(Replica* replica) {
  bool moved = own_ == Side::kWorker && !greeted_ && failure_ == nullptr && hear_client();
  for (int i = 0; i < int(kReceives) && failure_ == nullptr && poll(); ++i) {
    moved |= handle(completions_[completion_++], replica);
  }
  if (!left_.empty()) drop_left();
  // Else they travel with the next parcel.
  if (owed_ >= kVerbsSlots / 2 && greeted_ && failure_ == nullptr && has_room()) say(VerbsMessage::kCredits);
  return moved;
}

bool VerbsCarrier::handle(const ibv_wc& completion, Replica* replica) {
  if (completion.status != IBV_WC_SUCCESS) {
    fail(Verbs::get().wc_status_str(completion.status));
    return true;
  }
  if ((completion.opcode & IBV_WC_RECV) == 0) {
    completed_ = Progress::of(completion.wr_id);
    return false;
  }
  if (completion.opcode != IBV_WC_RECV_RDMA_WITH_IMM || !pair_->post_receive(kReceiveId)) {
    fail("a message that is none of ours");
    return true;
  }
  return hear(ntohl(completion.imm_data), completion.byte_len, replica);
}

bool VerbsCarrier::hear(uint32_t immediate, uint32_t bytes, Replica* replica) {
  const uint32_t credits = immediate & 0xffff;
  if (credits > kVerbsSlots - credits_) {
    fail("the far side gives back more slots than it has");
    return true;
  }
  credits_ += credits;
  switch (VerbsMessage(immediate >> 16)) {
    case VerbsMessage::kHello:
      if (own_ == Side::kClient && !greeted_) {
        greeted_ = true;
        return true;
      }
      break;
    case VerbsMessage::kParcel:
      if (greeted_) {
        deliver(bytes, replica);
        return true;
      }
      break;
    case VerbsMessage::kCredits:
      return true;
    case VerbsMessage::kPing:
      if (!may_ping()) break;
      say(VerbsMessage::kPong);
      return true;
    case VerbsMessage::kPong:
      ++pongs_;
      return true;
  }
  fail("a malformed message");
  return true;
}

void VerbsCarrier::deliver(uint32_t bytes, Replica* replica) {
  if (bytes < sizeof(ParcelHeader) || bytes > kVerbsSlotBytes) return fail("a malformed message");
  // A copy: the far side could write the slot while it is being looked at.
  memcpy(message_, pool_ + applied_ % kVerbsSlots * kVerbsSlotBytes, bytes);
  ParcelHeader header;
  memcpy(&header, message_, sizeof header);
  const uint64_t head_bytes = sizeof header + header.entry_count * sizeof(ParcelEntry);
  const bool in_place = bytes == head_bytes;  // the ring bytes, if any, came before
  if (!in_place && bytes != head_bytes + header.ring_bytes) return fail("a malformed message");
  const auto* entries = reinterpret_cast<const ParcelEntry*>(message_ + sizeof header);
  const char* refused = replica->apply(header, entries, in_place ? nullptr : message_ + head_bytes);
  if (refused != nullptr) return fail(refused);
  if ((header.flags & kParcelLanded) != 0 && !std::exchange(landed_, true))
    log(LogLevel::kDebug, "verbs: copies from the GPU come to where they belong");
  ++applied_;
  // It had credit for so many only, and what it sends beyond overwrites what nobody has read.
  if (++owed_ > kVerbsSlots) fail("the far side sends more than it has slots for");
}

bool VerbsCarrier::has_room() const {
  return posted_.requests - completed_.requests + 4 <= kSends && posted_.bytes - completed_.bytes < kBytesMax;
}

// A completion of one piece of work stands for all before it.
void VerbsCarrier::post(Work* work, bool must_signal) {
  posted_.requests += work->count();
  posted_.bytes += work->bytes();
  if (must_signal || posted_.requests - signalled_.requests >= kSignalEvery ||
      posted_.bytes - signalled_.bytes >= kSignalBytes) {
    signalled_ = posted_;
    work->last().send_flags |= IBV_SEND_SIGNALED;
    work->last().wr_id = signalled_.id();
  }
  if (!pair_->post(work->first())) fail("cannot send");
}

void VerbsCarrier::post_message(Work* work, VerbsMessage kind, bool must_signal) {
  work->last().imm_data = htonl(uint32_t(kind) << 16 | owed_);
  owed_ = 0;
  post(work, must_signal);
}

// A message of an immediate only.
void VerbsCarrier::say(VerbsMessage kind) {
  Work work;
  work.begin(IBV_WR_RDMA_WRITE_WITH_IMM, far_.mailbox_address, far_.mailbox_key);
  post_message(&work, kind, false);
}

void VerbsCarrier::send(const Parcel& parcel) {
  const uint64_t slot = sent_ % kVerbsSlots * kVerbsSlotBytes;
  const uint64_t head_bytes = parcel.head_bytes(), ring_bytes = parcel.header.ring_bytes;
  const uint64_t most = pair_->inline_bytes();
  const bool together = ring_bytes > 0 && !parcel.to && head_bytes + ring_bytes <= most;
  Work work;
  if (ring_bytes > 0 && !together) {
    const uint64_t at = far_.ring_address + parcel.header.ring_begin % kCommandRingBytes;
    work.begin(IBV_WR_RDMA_WRITE, parcel.to ? parcel.to.address : at, parcel.to ? parcel.to.key : far_.ring_key);
    uint32_t key = 0;
    const std::byte* from = sendable(parcel, &key);
    work.add(from, ring_bytes, key);
    if (ring_bytes <= most) work.copy_in();
  }
  work.begin(IBV_WR_RDMA_WRITE_WITH_IMM, far_.mailbox_address + slot, far_.mailbox_key);
  if (head_bytes <= most) {
    work.add(&parcel.header, head_bytes, 0);
    work.copy_in();
  } else {
    std::byte* copy = pool_ + kMailboxBytes + slot;
    memcpy(copy, &parcel.header, head_bytes);
    work.add(copy, head_bytes, slots_memory_->lkey);
  }
  if (together) work.add(parcel.ring, ring_bytes, 0);
  ++sent_;
  --credits_;
  post_message(&work, VerbsMessage::kParcel, false);
}

// Asks for a completion of what has none yet: an empty write.
bool VerbsCarrier::idle() {
  if (completed_.requests == posted_.requests || failure_ != nullptr) return true;
  if (signalled_.requests != posted_.requests && has_room()) {
    Work work;
    work.begin(IBV_WR_RDMA_WRITE, far_.mailbox_address, far_.mailbox_key);
    post(&work, true);
  }
  return false;
}

bool VerbsCarrier::arm() {
  if (!pair_->ask_for_event()) fail("the device gives no events");
  look_at_descriptors();
  return failure_ == nullptr && !poll();
}

Outcome verbs_connect(Region region, int lifeline, const std::string& data, std::unique_ptr<Carrier>* carrier) {
  auto made = std::make_unique<VerbsCarrier>();
  const Outcome outcome = made->connect(region, lifeline, data);
  if (outcome.ok()) *carrier = std::move(made);
  return outcome;
}

Outcome verbs_listen(Region region, int lifeline, std::string* data, std::unique_ptr<Carrier>* carrier) {
  auto made = std::make_unique<VerbsCarrier>();
  const Outcome outcome = made->listen(region, lifeline, data);
  if (outcome.ok()) *carrier = std::move(made);
  return outcome;
}

Outcome verbs_usable() {
  VerbsWish wish;
  const Outcome outcome = VerbsWish::from_environment(&wish);
  VerbsPort port;
  return outcome.ok() ? port.open(wish) : outcome;
}

}  // namespace tide
