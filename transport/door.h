#pragma once

// What a client process says at the doors of the scheduler and of an agent: small fixed frames on a stream socket,
// because nothing larger may live in the preload library. docs/wire.md says every byte.
//
//   client -> scheduler's door   kHello            -> kJob (or kRefused); the socket stays open; later kWhere -> kPlace
//                                kMeasure          -> kUsage, as often as the client likes
//   client -> agent's door       kOpen (+ memfd)   -> kOpened (or kRefused), sent by the worker; the socket becomes the
//                                                    channel's lifeline: each side learns at once when the other ends
//
// A frame is DoorHeader + payload. A door answers garbage with kRefused where it can, and closes. Text fields are
// NUL-terminated. An endpoint string is "host=ID;unix=PATH;tcp=ADDRESS:PORT": host is the boot id, so that a client
// knows whether `unix` is reachable.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/outcome.h"
#include "transport/layout.h"

namespace tide {

inline constexpr uint32_t kDoorMagic = 0x726f6f64;  // "door"
inline constexpr uint16_t kDoorVersion = 7;         // also when anything else that both sides must agree on changes
inline constexpr uint32_t kDoorPayloadMax = 1u << 20;
inline constexpr uint32_t kDoorMessageBytes = 512;

enum class DoorType : uint16_t {
  kHello = 1,
  kJob = 2,
  kWhere = 3,
  kPlace = 4,
  kOpen = 5,
  kOpened = 6,
  kRefused = 7,
  kMeasure = 8,
  kUsage = 9
};
inline constexpr DoorType kDoorTypeLast = DoorType::kUsage;

struct DoorHeader {
  uint32_t magic = kDoorMagic;
  uint16_t version = kDoorVersion;
  uint16_t type = 0;
  uint32_t payload_bytes = 0;
  uint32_t reserved = 0;
};

struct DoorHello {
  char job[kIdBytes] = {};
  uint8_t token[kTokenBytes] = {};
  uint32_t pid = 0;
  uint32_t reserved = 0;
};

// kJob: DoorJob, then vgpu_count x { DoorVgpu, device_info_bytes of DeviceInfo (opaque to the scheduler) }.
struct DoorJob {
  uint32_t vgpu_count = 0;
  uint32_t reserved = 0;
};

// The vGPU's worker is lost, and the scheduler sees to it that it goes on from its checkpoint, however long that takes.
inline constexpr uint32_t kPlaceComing = 1;

struct DoorVgpu {
  uint64_t epoch = 0;
  uint64_t memory_bytes = 0;  // the quota
  char endpoint[kEndpointBytes] = {};
  uint32_t device_info_bytes = 0;
  uint32_t flags = 0;
};

struct DoorWhere {
  uint32_t vgpu = 0;
  uint32_t reserved = 0;
};

struct DoorPlace {
  uint32_t vgpu = 0;
  uint32_t flags = 0;
  uint64_t epoch = 0;
  char endpoint[kEndpointBytes] = {};
};

// kMeasure has no payload. kUsage: DoorUsage, then vgpu_count x DoorVgpuUsage, then client_count x DoorClientUsage.
struct DoorUsage {
  uint32_t vgpu_count = 0;
  uint32_t client_count = 0;
};

struct DoorVgpuUsage {
  uint64_t resident_bytes = 0;  // of all clients
  uint32_t busy_permille = 0;   // of the last second
  uint32_t known = 0;           // 0: its server does not answer
};

struct DoorClientUsage {
  uint32_t vgpu = 0;
  uint32_t pid = 0;
  uint64_t resident_bytes = 0;
};

struct DoorOpen {
  char job[kIdBytes] = {};
  uint8_t token[kTokenBytes] = {};
  uint8_t session[16] = {};  // random, of this client process and vGPU; the same when it reopens after a move
  uint32_t vgpu = 0;
  uint32_t pid = 0;
  uint64_t epoch = 0;
  uint64_t memory_bytes = 0;  // the quota that the client will enforce
  char transport[64] = {};
  uint32_t flags = 0;
  uint32_t attempt = 0;  // of this session, 1, 2, 3 ...: one that comes late displaces no newer connection
};
// Only of a worker that has this session: its connection broke.
inline constexpr uint32_t kOpenAgain = 1;
// Between agents: its program has ended while it was on no GPU; it goes along for those that have memory of it.
inline constexpr uint32_t kOpenBereaved = 2;
// The refusal of a process that begins while its job is on no GPU (no CUresult): it asks again until it is.
inline constexpr int kSuspendedRefusal = 10'001;
// The refusal of a scheduler that does not lead (no CUresult): another one of TIDE_DOOR does, or will.
inline constexpr int kNotLeaderRefusal = 10'002;
// The refusal where there is none (CUDA_ERROR_DEVICE_UNAVAILABLE): its worker has ended, and with it the session.
inline constexpr int kSessionIsGone = 46;

struct DoorOpened {
  uint32_t worker_pid = 0;
  uint32_t hold_ms = 0;  // so long the worker waits for a client whose connection broke
  uint64_t epoch = 0;
  char transport_data[kEndpointBytes] = {};
  uint32_t flags = 0;
  uint32_t reserved = 0;
  // With kOpenedRecovered: the last command that the worker's checkpoint contains, and where the answer ring stood.
  uint64_t sequence = 0;
  uint64_t answers = 0;
};
// The session is protected: its client keeps what it sends from the first command on. Counts when it is opened first.
inline constexpr uint32_t kOpenedProtected = 1;
// Other processes of the job use the vGPU: WorkerPage::memory_shared from the beginning.
inline constexpr uint32_t kOpenedShares = 4;
// The worker has the session from a checkpoint.
inline constexpr uint32_t kOpenedRecovered = 2;

struct DoorRefused {
  int32_t code = 0;  // CUresult that fits
  uint32_t reserved = 0;
  char message[kDoorMessageBytes] = {};  // cause and next step
};

// Of a text field in a frame: whether it ends within itself; and to fill one, false if the text does not fit.
template <size_t N>
bool is_text(const char (&field)[N]) {
  return strnlen(field, N) < N;
}
template <size_t N>
bool set_text(char (&field)[N], const std::string& text) {
  if (text.size() >= N || text.find('\0') != std::string::npos) return false;
  memset(field, 0, N);
  memcpy(field, text.data(), text.size());
  return true;
}

struct Endpoint {
  std::string host, unix_path, tcp_address;
  static Outcome parse(const std::string& text, Endpoint* endpoint);
  std::string text() const;
  bool same_host() const;  // is `host` this machine's boot id
};
std::string this_host_id();

// Of the header of a frame that has come: what it says is possible, and of this version; else a sentence that names
// both versions, calling the two sides as said here, and says which to update.
Outcome check_header(const DoorHeader& header, const char* far_side, const char* this_side);
// Of a kOpen, whoever sent it: its fields are possible ones.
Outcome check_open(const DoorOpen& open);

// Blocking, with a deadline (10 s for a send); EINTR is retried. `fd_to_send`/`fd_received` carry one descriptor over a
// unix socket (-1: none). A frame that is not ours, or a descriptor that nobody asked for, is an error; outputs are set
// on success only. `timeout_ms` is for the whole frame.
Outcome send_frame(int socket, DoorType type, const void* payload, size_t bytes, int fd_to_send = -1);
Outcome receive_frame(int socket, uint32_t timeout_ms, DoorType* type, std::string* payload,
                      int* fd_received = nullptr);

// Connected sockets (close-on-exec), or an error that names the address. `timeout_ms` bounds the wait. *refused: set
// where the machine answers, but nobody listens there.
Outcome connect_unix(const std::string& path, uint32_t timeout_ms, int* socket);
Outcome connect_tcp(const std::string& address, uint32_t timeout_ms, int* socket, bool* refused = nullptr);
// Of a TCP connection: a far side that has vanished is noticed within some 2 s, though nothing is sent; on a path that
// takes long, later (path_time.h).
void watch_peer(int socket);

// Connections to an address, begun again and again and not one after the other: where the network is away, the next one
// is through as soon as it is back, and where an answer takes long, an older one still gets it.
class Redial {
 public:
  Redial() = default;
  ~Redial();
  Redial(const Redial&) = delete;
  Redial& operator=(const Redial&) = delete;
  // Begins another connection, and gives the first that is made within `wait_ms`, of all that were begun. Like
  // connect_tcp otherwise. The address is always the same.
  Outcome next(const std::string& address, uint32_t wait_ms, int* socket, bool* refused);

 private:
  static constexpr size_t kMost = 32;  // at once; then the oldest is given up
  void give_up(std::vector<int>::iterator which);
  bool first_made(uint64_t end_ns, int* socket, bool* refused, std::string* why);

  std::vector<int> sockets_;
};

}  // namespace tide
