#include "transport/sim.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "transport/carrier.h"
#include "transport/door.h"
#include "transport/replica_link.h"

namespace tide {
namespace {

constexpr size_t kSettingsMax = 64;
constexpr uint64_t kQueueNs = 2'000'000;  // so far ahead of the wire may a sender be

// On the socket before every parcel. Both ends are on one host and share the clock.
struct SimFrame {
  uint64_t due_ns = 0;
  uint32_t head_bytes = 0;  // of header and entries
  uint32_t ring_bytes = 0;
};
static_assert(sizeof(SimFrame) == 16);

constexpr size_t kFrameBytesMax =
    sizeof(SimFrame) + sizeof(ParcelHeader) + kParcelEntriesMax * sizeof(ParcelEntry) + kParcelRingBytes;

bool is_possible(const SimFrame& frame) {
  constexpr size_t kHeadBytesMax = sizeof(ParcelHeader) + kParcelEntriesMax * sizeof(ParcelEntry);
  return frame.head_bytes >= sizeof(ParcelHeader) && frame.head_bytes <= kHeadBytesMax &&
         frame.ring_bytes <= kParcelRingBytes;
}

class SimCarrier : public Carrier {
 public:
  // Of a connected socket, or, with `listening`, of a listener whose first connection it takes.
  SimCarrier(const SimSettings& settings, int socket, bool listening);
  ~SimCarrier() override;

  const char* name() const override { return "sim"; }
  bool progress(Replica* replica) override;
  bool lends() const override { return true; }
  bool lands() const override { return true; }
  bool may_send() override;
  void send(const Parcel& parcel) override;
  bool idle() override { return out_done_ == out_.size(); }
  uint64_t applied() const override { return applied_; }
  bool arm() override;
  int fd() const override { return epoll_; }
  uint32_t due_us() override;
  const char* failure() const override { return failure_; }

 private:
  void watch(int socket);
  bool accept_one();
  bool write_out();
  bool read_in();
  bool apply_due(Replica* replica);
  bool next_frame(SimFrame* frame) const;
  bool is_whole(const SimFrame& frame) const;
  uint64_t due_of(uint64_t bytes);

  const SimSettings settings_;
  int epoll_, socket_, listener_;
  const char* failure_ = nullptr;
  bool cannot_write_ = false;
  std::vector<std::byte> out_, in_;
  size_t out_done_ = 0, in_done_ = 0;
  uint64_t depart_ns_ = 0, last_due_ns_ = 0, sent_ = 0, applied_ = 0, random_;
};

SimCarrier::SimCarrier(const SimSettings& settings, int socket, bool listening)
    : settings_(settings),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      socket_(listening ? -1 : socket),
      listener_(listening ? socket : -1),
      random_(settings.seed) {
  watch(socket);
}

SimCarrier::~SimCarrier() {
  for (int fd : {epoll_, socket_, listener_}) {
    if (fd >= 0) close(fd);
  }
}

void SimCarrier::watch(int socket) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event);
}

bool SimCarrier::accept_one() {
  if (listener_ < 0) return false;
  socket_ = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (socket_ < 0) return false;
  watch(socket_);
  close(listener_);
  listener_ = -1;
  return true;
}

uint64_t SimCarrier::due_of(uint64_t bytes) {
  const uint64_t wire_ns = settings_.gbit <= 0 ? 0 : uint64_t(double(bytes) * 8 / settings_.gbit);
  depart_ns_ = std::max(depart_ns_, now_ns()) + wire_ns;
  random_ = random_ * 6364136223846793005 + 1442695040888963407;
  const uint64_t jitter_ns = settings_.jitter_us == 0 ? 0 : (random_ >> 33) % (uint64_t(settings_.jitter_us) * 1000);
  last_due_ns_ = std::max(last_due_ns_, depart_ns_ + uint64_t(settings_.rtt_us) * 500 + jitter_ns);
  return last_due_ns_;
}

bool SimCarrier::may_send() {
  return failure_ == nullptr && !cannot_write_ && socket_ >= 0 && out_done_ == out_.size() &&
         depart_ns_ < now_ns() + kQueueNs;
}

void SimCarrier::send(const Parcel& parcel) {
  const uint64_t bytes = parcel.head_bytes() + parcel.header.ring_bytes;
  const SimFrame frame{due_of(bytes), uint32_t(parcel.head_bytes()), parcel.header.ring_bytes};
  sent_ += bytes;
  if (settings_.drop_after_bytes != 0 && sent_ > settings_.drop_after_bytes) {
    shutdown(socket_, SHUT_RDWR);
    failure_ = "the simulated network dropped it";
    return;
  }
  out_.clear();
  out_done_ = 0;
  const auto add = [&](const void* data, size_t n) {
    const auto* at = static_cast<const std::byte*>(data);
    out_.insert(out_.end(), at, at + n);
  };
  add(&frame, sizeof frame);
  add(&parcel.header, frame.head_bytes);
  if (frame.ring_bytes != 0) add(parcel.ring, frame.ring_bytes);
  write_out();
}

bool SimCarrier::write_out() {
  bool moved = false;
  while (failure_ == nullptr && out_done_ < out_.size()) {
    const ssize_t n = ::send(socket_, out_.data() + out_done_, out_.size() - out_done_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (n < 0) {  // what has come before is still to be read
      cannot_write_ = true;
      out_done_ = out_.size();
      break;
    }
    out_done_ += size_t(n);
    moved = true;
  }
  return moved;
}

bool SimCarrier::next_frame(SimFrame* frame) const {
  if (in_.size() - in_done_ < sizeof *frame) return false;
  memcpy(frame, in_.data() + in_done_, sizeof *frame);
  return true;
}

bool SimCarrier::is_whole(const SimFrame& frame) const {
  return in_.size() - in_done_ - sizeof frame >= uint64_t(frame.head_bytes) + frame.ring_bytes;
}

bool SimCarrier::read_in() {
  // Bounded: what is not due yet may wait in the socket too.
  if (in_.size() - in_done_ >= 64 * kFrameBytesMax) return false;
  if (in_done_ > kFrameBytesMax) {
    in_.erase(in_.begin(), in_.begin() + long(in_done_));
    in_done_ = 0;
  }
  const size_t before = in_.size();
  in_.resize(before + kFrameBytesMax);
  const ssize_t n = recv(socket_, in_.data() + before, kFrameBytesMax, MSG_DONTWAIT);
  in_.resize(before + size_t(std::max<ssize_t>(n, 0)));
  if (n == 0) failure_ = "the far side closed it";
  if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) failure_ = "cannot read from the socket";
  return n > 0;
}

bool SimCarrier::apply_due(Replica* replica) {
  bool moved = false;
  SimFrame frame;
  while (failure_ == nullptr && next_frame(&frame)) {
    if (!is_possible(frame)) {  // before it is waited for
      failure_ = "a frame is malformed";
      break;
    }
    if (!is_whole(frame) || frame.due_ns > now_ns()) break;
    const std::byte* at = in_.data() + in_done_ + sizeof frame;
    ParcelHeader header;
    ParcelEntry entries[kParcelEntriesMax];
    memcpy(&header, at, sizeof header);
    memcpy(entries, at + sizeof header, frame.head_bytes - sizeof header);
    if (header.entry_count != (frame.head_bytes - sizeof header) / sizeof(ParcelEntry) ||
        header.ring_bytes != frame.ring_bytes) {
      failure_ = "a frame is malformed";
      break;
    }
    failure_ = replica->apply(header, entries, at + frame.head_bytes);
    in_done_ += sizeof frame + frame.head_bytes + frame.ring_bytes;
    ++applied_;
    moved = true;
  }
  if (in_done_ == in_.size()) {
    in_.clear();
    in_done_ = 0;
  }
  return moved;
}

bool SimCarrier::progress(Replica* replica) {
  bool moved = accept_one();
  if (socket_ < 0) return moved;
  moved |= write_out();
  moved |= apply_due(replica);
  const bool read = failure_ == nullptr && read_in();
  if (cannot_write_ && !read && failure_ == nullptr) failure_ = "cannot write to the socket";
  return moved | read | apply_due(replica);
}

bool SimCarrier::arm() { return idle(); }

uint32_t SimCarrier::due_us() {
  SimFrame frame;
  const uint64_t now = now_ns();
  uint64_t due_ns = ~uint64_t{0};
  if (next_frame(&frame) && is_whole(frame)) due_ns = frame.due_ns <= now ? 0 : frame.due_ns - now;
  // The sender's own queue empties with time, too.
  if (depart_ns_ >= now + kQueueNs) due_ns = std::min(due_ns, depart_ns_ - now - kQueueNs);
  return uint32_t(std::min<uint64_t>(due_ns / 1000, ~uint32_t{0}));
}

Outcome socket_failure(const char* what) { return Outcome::fail(format("%s: %s", what, strerror(errno))); }

// An abstract address, so that nothing stays behind in a file system.
sockaddr_un abstract_address(const std::string& name, socklen_t* bytes) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t n = std::min(name.size(), sizeof address.sun_path - 1);
  memcpy(address.sun_path + 1, name.data(), n);
  *bytes = socklen_t(offsetof(sockaddr_un, sun_path) + 1 + n);
  return address;
}

Outcome sim_listen(const SimSettings& settings, Region, int, std::string* data, std::unique_ptr<Carrier>* carrier) {
  uint64_t random[2];
  if (getrandom(random, sizeof random, 0) != sizeof random) return socket_failure("cannot get random bytes");
  const std::string name = format("tide-sim-%016lx%016lx", random[0], random[1]);
  socklen_t bytes;
  const sockaddr_un address = abstract_address(name, &bytes);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0 || bind(listener, reinterpret_cast<const sockaddr*>(&address), bytes) != 0 ||
      listen(listener, 1) != 0) {
    const Outcome outcome = socket_failure("cannot listen for the simulated network");
    if (listener >= 0) close(listener);
    return outcome;
  }
  *data = name;
  *carrier = std::make_unique<SimCarrier>(settings, listener, true);
  return {};
}

Outcome sim_connect(const SimSettings& settings, Region, int, const std::string& data,
                    std::unique_ptr<Carrier>* carrier) {
  socklen_t bytes;
  const sockaddr_un address = abstract_address(data, &bytes);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, reinterpret_cast<const sockaddr*>(&address), bytes) != 0) {
    const Outcome outcome = socket_failure("cannot connect to the simulated network");
    if (fd >= 0) close(fd);
    return outcome;
  }
  *carrier = std::make_unique<SimCarrier>(settings, fd, false);
  return {};
}

bool parse_number(const std::string& text, double most, double* value) {
  char* end = nullptr;
  const double number = strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(number >= 0 && number <= most)) return false;
  *value = number;
  return true;
}

}  // namespace

Outcome SimSettings::parse(const std::string& text, SimSettings* settings) {
  std::map<std::string, double> given;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string field = text.substr(at, end - at);
    at = end + 1;
    const size_t equals = field.find('=');
    const std::string key = field.substr(0, equals);
    double value = 0;
    if (equals == std::string::npos || given.count(key) != 0 || !parse_number(field.substr(equals + 1), 1e15, &value)) {
      return Outcome::fail("'" + field + "' is no setting of sim");
    }
    given[key] = value;
  }
  SimSettings result;
  for (const auto& [key, value] : given) {
    if (key == "rtt_us" && value <= 1e7) {
      result.rtt_us = uint32_t(value);
    } else if (key == "gbit" && value > 0 && value <= 1e5) {
      result.gbit = value;
    } else if (key == "jitter_us" && value <= 1e7) {
      result.jitter_us = uint32_t(value);
    } else if (key == "drop_after_bytes") {
      result.drop_after_bytes = uint64_t(value);
    } else if (key == "seed") {
      result.seed = uint64_t(value);
    } else {
      return Outcome::fail("sim has rtt_us, gbit, jitter_us, drop_after_bytes and seed, within reason; not " + key);
    }
  }
  *settings = result;
  return {};
}

const Transport* find_sim(const std::string& name) {
  static std::mutex* mu = new std::mutex;
  static auto* known = new std::map<std::string, const Transport*>;
  const std::lock_guard lock(*mu);
  const auto found = known->find(name);
  if (found != known->end()) return found->second;
  SimSettings settings;
  const size_t colon = name.find(':');
  const Outcome outcome = SimSettings::parse(colon == std::string::npos ? "" : name.substr(colon + 1), &settings);
  if (!outcome.ok() || known->size() >= kSettingsMax) {
    log(LogLevel::kWarning, "transport '%s': %s", name.c_str(), outcome.ok() ? "too many" : outcome.message().c_str());
    return nullptr;
  }
  using namespace std::placeholders;
  const CarrierKind kind{"sim", std::bind(sim_connect, settings, _1, _2, _3, _4),
                         std::bind(sim_listen, settings, _1, _2, _3, _4)};
  return (*known)[name] = new Transport(carried_by(kind, true));
}

}  // namespace tide
