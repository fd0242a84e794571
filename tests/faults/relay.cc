// A wire between two network devices, as slow and as bad as it is told to be. For tests: it stands where a switch
// would.
//
// relay DEVICE DEVICE [--seed N]: forwards Ethernet frames both ways and reads lines from its standard input, each of
// which it answers with one line:
//
//   [there|back] NAME=VALUE...   of frames from the first device to the second, from the second to the first, or both:
//     rate_kbit=N     bits on the wire, in thousands a second; 0 (as in the beginning): as fast as it goes
//     queue=N         frames that may wait for that; who comes then is dropped (100)
//     delay_ms=X      that every frame takes
//     loss=X          share of frames that are lost, of 1
//     duplicate=X     share of those that come twice
//     reorder=X       share of those that are held back for `held_ms`, while others pass
//     held_ms=X       (2)
//     cut=1           nothing passes
//   stats                        what was done with frames, as JSON
//
// relay --plain DEVICE: makes a device send frames as they are on a wire: segmented, with their checksums.

#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <sstream>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/descriptors.h"
#include "base/log.h"
#include "base/outcome.h"

namespace tide {
namespace {

constexpr size_t kFrameMost = 16u << 10;
constexpr int kFramesAtOnce = 64;
constexpr uint64_t kNever = ~uint64_t{0};
// What a frame occupies of an Ethernet wire besides its bytes: preamble, checksum, gap.
constexpr uint64_t kFramingBytes = 24;

// Shares of the seed's own sequence (xorshift64*): a run can be had again, as far as the frames are the same.
class Chance {
 public:
  explicit Chance(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  bool happens(double share) {
    state_ ^= state_ >> 12, state_ ^= state_ << 25, state_ ^= state_ >> 27;
    return double((state_ * 0x2545f4914f6cdd1d) >> 11) * 0x1p-53 < share;
  }

 private:
  uint64_t state_;
};

struct Settings {
  double rate_kbit = 0, queue = 100, delay_ms = 0, loss = 0, duplicate = 0, reorder = 0, held_ms = 2, cut = 0;

  double* find(const std::string& name) {
    const std::pair<const char*, double*> all[] = {
        {"rate_kbit", &rate_kbit}, {"queue", &queue},     {"delay_ms", &delay_ms}, {"loss", &loss},
        {"duplicate", &duplicate}, {"reorder", &reorder}, {"held_ms", &held_ms},   {"cut", &cut}};
    for (const auto& [known, value] : all) {
      if (name == known) return value;
    }
    return nullptr;
  }
};

struct Counts {
  uint64_t frames = 0, bytes = 0, sent = 0, lost = 0, dropped = 0, doubled = 0, held = 0, waiting_most = 0, unsent = 0;
};

// One way: a queue in front of a wire of some rate, then a way of some length.
class Way {
 public:
  explicit Way(uint64_t seed) : chance_(seed) {}
  Settings settings;

  void take(const char* frame, size_t bytes, uint64_t now) {
    ++counts_.frames;
    counts_.bytes += bytes;
    if (settings.cut != 0 || chance_.happens(settings.loss)) {
      ++counts_.lost;
      return;
    }
    enter(frame, bytes, now);
    if (!chance_.happens(settings.duplicate)) return;
    ++counts_.doubled;
    enter(frame, bytes, now);
  }

  uint64_t next_due() const { return on_the_way_.empty() ? kNever : on_the_way_.begin()->first; }

  void deliver(int socket, uint64_t now) {
    while (next_due() <= now) {
      const std::string& frame = on_the_way_.begin()->second;
      const bool there = settings.cut == 0 && send(socket, frame.data(), frame.size(), MSG_DONTWAIT) >= 0;
      ++(there ? counts_.sent : settings.cut != 0 ? counts_.lost : counts_.unsent);
      on_the_way_.erase(on_the_way_.begin());
    }
  }

  std::string stats() const {
    const Counts& c = counts_;
    return format(
        "{\"frames\": %llu, \"bytes\": %llu, \"sent\": %llu, \"lost\": %llu, \"dropped\": %llu, \"doubled\": %llu, "
        "\"held\": %llu, \"waiting_most\": %llu, \"unsent\": %llu}",
        (unsigned long long)c.frames, (unsigned long long)c.bytes, (unsigned long long)c.sent,
        (unsigned long long)c.lost, (unsigned long long)c.dropped, (unsigned long long)c.doubled,
        (unsigned long long)c.held, (unsigned long long)c.waiting_most, (unsigned long long)c.unsent);
  }

 private:
  void enter(const char* frame, size_t bytes, uint64_t now) {
    uint64_t left = now;
    if (settings.rate_kbit > 0) {
      while (!leave_queue_.empty() && leave_queue_.front() <= now) leave_queue_.pop_front();
      if (double(leave_queue_.size()) >= settings.queue) {
        ++counts_.dropped;
        return;
      }
      const auto takes_ns = uint64_t(double((bytes + kFramingBytes) * 8) * 1e6 / settings.rate_kbit);
      free_at_ = left = std::max(now, free_at_) + takes_ns;
      leave_queue_.push_back(left);
      counts_.waiting_most = std::max<uint64_t>(counts_.waiting_most, leave_queue_.size());
    }
    // The way may become shorter while frames are on it: they keep their order all the same.
    uint64_t due = std::max(left + uint64_t(settings.delay_ms * 1e6), last_due_);
    if (chance_.happens(settings.reorder)) {
      ++counts_.held;
      due += uint64_t(settings.held_ms * 1e6);
    } else {
      last_due_ = due;
    }
    on_the_way_.emplace(due, std::string(frame, bytes));
  }

  Chance chance_;
  Counts counts_;
  uint64_t free_at_ = 0, last_due_ = 0;
  std::deque<uint64_t> leave_queue_;  // when those that wait for the wire will be on it
  std::multimap<uint64_t, std::string> on_the_way_;
};

Outcome open_device(const char* name, int* made) {
  const unsigned index = if_nametoindex(name);
  if (index == 0) return Outcome::fail(std::string("there is no device ") + name);
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
  if (fd < 0) return errno_failure("cannot read frames");
  const int on = 1, buffer = 8 << 20;
  const packet_mreq promiscuous = {int(index), PACKET_MR_PROMISC, 0, {}};
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = int(index);
  if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0 ||
      setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) != 0 ||
      bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return errno_failure("cannot read a device's frames");
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
  *made = fd;
  return {};
}

void take_frames(int socket, Way& way) {
  static char frame[kFrameMost];
  for (int i = 0; i < kFramesAtOnce; ++i) {
    const ssize_t bytes = recv(socket, frame, sizeof frame, MSG_DONTWAIT | MSG_TRUNC);
    if (bytes < 0) return;
    if (size_t(bytes) <= sizeof frame) way.take(frame, size_t(bytes), now_ns());
  }
}

// One "NAME=VALUE" of ways first to last.
bool set(const std::string& word, Way* first, Way* last) {
  const size_t is = word.find('=');
  if (is == std::string::npos) return false;
  char* end = nullptr;
  const double value = strtod(word.c_str() + is + 1, &end);
  if (end == word.c_str() + is + 1 || *end != 0 || !(value >= 0)) return false;
  for (Way* way = first; way <= last; ++way) {
    double* setting = way->settings.find(word.substr(0, is));
    if (setting == nullptr) return false;
    *setting = value;
  }
  return true;
}

std::string obey(const std::string& line, Way (&ways)[2]) {
  if (line == "stats") return "{\"there\": " + ways[0].stats() + ", \"back\": " + ways[1].stats() + "}";
  std::istringstream words(line);
  Way *first = &ways[0], *last = &ways[1];
  for (std::string word; words >> word;) {
    if (word == "there") {
      last = first;
    } else if (word == "back") {
      first = last;
    } else if (!set(word, first, last)) {
      return "error: " + word;
    }
  }
  return "ok";
}

// False at the end of the input.
bool take_lines(std::string* input, Way (&ways)[2]) {
  char text[4096];
  const ssize_t bytes = read(STDIN_FILENO, text, sizeof text);
  if (bytes <= 0) return bytes < 0 && errno == EINTR;
  input->append(text, size_t(bytes));
  for (size_t end; (end = input->find('\n')) != std::string::npos; input->erase(0, end + 1)) {
    puts(obey(input->substr(0, end), ways).c_str());
  }
  fflush(stdout);
  return true;
}

Outcome relay(const char* const (&names)[2], uint64_t seed) {
  int sockets[2];
  for (int i = 0; i < 2; ++i) {
    if (Outcome o = open_device(names[i], &sockets[i]); !o.ok()) return o;
  }
  Way ways[2] = {Way(2 * seed), Way(2 * seed + 1)};
  std::string input;
  puts("ready");
  fflush(stdout);
  while (true) {
    pollfd fds[] = {{sockets[0], POLLIN, 0}, {sockets[1], POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    const uint64_t due = std::min(ways[0].next_due(), ways[1].next_due()), now = now_ns();
    const uint64_t left = due == kNever ? 1'000'000'000 : due - std::min(due, now);
    const timespec wait{.tv_sec = time_t(left / 1'000'000'000), .tv_nsec = long(left % 1'000'000'000)};
    if (ppoll(fds, 3, &wait, nullptr) < 0 && errno != EINTR) return errno_failure("poll");
    if ((fds[2].revents & (POLLIN | POLLHUP)) != 0 && !take_lines(&input, ways)) return {};
    for (int i = 0; i < 2; ++i) take_frames(sockets[i], ways[i]);
    for (int i = 0; i < 2; ++i) ways[i].deliver(sockets[1 - i], now_ns());
  }
}

// Else whoever is beyond would get frames of 64 KiB, and none with a checksum.
Outcome make_plain(const char* name) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  for (const uint32_t what : {ETHTOOL_SGSO, ETHTOOL_SGRO, ETHTOOL_STSO, ETHTOOL_SSG, ETHTOOL_STXCSUM}) {
    ethtool_value off = {what, 0};
    ifreq request{};
    strncpy(request.ifr_name, name, sizeof request.ifr_name - 1);
    request.ifr_data = reinterpret_cast<char*>(&off);
    if (ioctl(fd, SIOCETHTOOL, &request) == 0 || errno == EOPNOTSUPP) continue;
    const Outcome failure = errno_failure("cannot change the device");
    close(fd);
    return failure;
  }
  close(fd);
  return {};
}

int run(int argc, char** argv) {
  const bool plain = argc == 3 && strcmp(argv[1], "--plain") == 0;
  const bool seeded = argc == 5 && strcmp(argv[3], "--seed") == 0;
  if (!plain && !seeded && argc != 3) {
    fprintf(stderr, "usage: relay DEVICE DEVICE [--seed N] | relay --plain DEVICE\n");
    return 2;
  }
  const Outcome outcome =
      plain ? make_plain(argv[2]) : relay({argv[1], argv[2]}, seeded ? strtoull(argv[4], nullptr, 10) : 1);
  if (outcome.ok()) return 0;
  fprintf(stderr, "relay: %s\n", outcome.message().c_str());
  return 1;
}

}  // namespace
}  // namespace tide

int main(int argc, char** argv) { return tide::run(argc, argv); }
