#include "interpose/trace/recorder.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interpose/trace/sink.h"
#include "interpose/trace/table.h"

namespace tide::trace {
namespace {

constexpr uint64_t kAgeNs = 1'000'000'000;
constexpr int kTriesMax = 1000;

constinit pthread_once_t g_once = PTHREAD_ONCE_INIT;
constinit pthread_mutex_t g_mu = PTHREAD_MUTEX_INITIALIZER;
// Under g_mu, but for the buffers' own parts:
constinit Sink g_sink;
constinit ThreadBuffer* g_buffers = nullptr;
constinit pid_t g_pid = 0;

constinit std::atomic<bool> g_on{false}, g_failed{false}, g_ending{false};
constinit pthread_key_t g_key = 0;
constinit thread_local ThreadBuffer* g_mine __attribute__((tls_model("initial-exec"))) = nullptr;
constinit const TravelCounters g_none = {};

// The thread is not cancelled meanwhile: writing is where it could be.
class Locked {
 public:
  Locked() {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_);
    pthread_mutex_lock(&g_mu);
  }
  ~Locked() {
    pthread_mutex_unlock(&g_mu);
    pthread_setcancelstate(cancel_, nullptr);
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  int cancel_ = PTHREAD_CANCEL_ENABLE;
};

uint32_t this_thread() { return uint32_t(syscall(SYS_gettid)); }

const TravelCounters* find_counters() {
  using GetTable = CUresult(const void**, const CUuuid*);
  auto* get_table = reinterpret_cast<GetTable*>(dlsym(RTLD_NEXT, "cuGetExportTable"));
  CUuuid id;
  memcpy(&id, kTravelTableId, sizeof id);
  const void* found = nullptr;
  if (get_table == nullptr || get_table(&found, &id) != CUDA_SUCCESS) return &g_none;
  const auto* table = static_cast<const TravelTable*>(found);
  return table->bytes >= sizeof(TravelTable) ? table->of_this_thread() : &g_none;
}

// Requires: g_mu.
void write_out(ThreadBuffer& buffer) {
  const uint32_t used = buffer.used.load(std::memory_order_acquire);
  if (used == buffer.written) return;
  FrameHead head = {};
  head.kind = FrameKind::kCalls;
  head.bytes = used - buffer.written;
  head.thread = buffer.thread;
  head.base_ns = buffer.base_ns;
  if (!g_sink.append(head, buffer.bytes + buffer.written)) g_failed.store(true);
  buffer.written = used;
}

// By the owner.
void empty(ThreadBuffer& buffer) {
  const int error = errno;
  const Locked lock;
  write_out(buffer);
  buffer.used.store(0, std::memory_order_relaxed);
  buffer.written = 0;
  errno = error;
}

void thread_ends(void* buffer) {
  auto* mine = static_cast<ThreadBuffer*>(buffer);
  empty(*mine);
  mine->owned.store(false, std::memory_order_release);
  g_mine = nullptr;
}

// What the parent's threads have recorded, the parent writes. The child is a process of its own from here on.
void after_fork_in_child() {
  pthread_mutex_init(&g_mu, nullptr);
  g_pid = getpid();
  g_sink.restart();
  g_failed.store(false);
  for (ThreadBuffer* buffer = g_buffers; buffer != nullptr; buffer = buffer->next) {
    buffer->used.store(0);
    buffer->written = 0;
    buffer->recorded.store(0);
    buffer->lost.store(0);
    buffer->owned.store(buffer == g_mine);
  }
  if (g_mine != nullptr) g_mine->thread = this_thread();
}

void begin() {
  const char* path = getenv("TIDE_TRACE");
  if (path == nullptr || *path == 0 || !g_sink.open(path)) return;
  if (pthread_key_create(&g_key, thread_ends) != 0) return;
  pthread_atfork(nullptr, nullptr, after_fork_in_child);
  g_pid = getpid();
  g_on.store(true);
}

ThreadBuffer* take_over() {
  for (ThreadBuffer* buffer = g_buffers; buffer != nullptr; buffer = buffer->next) {
    if (!buffer->owned.load(std::memory_order_acquire)) return buffer;
  }
  void* memory = mmap(nullptr, sizeof(ThreadBuffer), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* made = static_cast<ThreadBuffer*>(memory);  // all zero, as it should be
  made->next = g_buffers;
  g_buffers = made;
  return made;
}

class Encoder {
 public:
  explicit Encoder(uint8_t* at) : at_(at) {}
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) *at_++ = uint8_t(value | 0x80);
    *at_++ = uint8_t(value);
  }
  void byte(uint8_t value) { *at_++ = value; }
  void raw(const void* data, size_t bytes) {
    memcpy(at_, data, bytes);
    at_ += bytes;
  }
  uint8_t* at() const { return at_; }

 private:
  uint8_t* at_;
};

// A text is there when the driver has looked at it.
void put_text(Encoder& out, const char* text, CUresult result) {
  const bool read = result == CUDA_SUCCESS || result == CUDA_ERROR_NOT_FOUND || result == CUDA_ERROR_FILE_NOT_FOUND;
  if (text == nullptr || !read) return out.varint(0);
  const size_t bytes = strnlen(text, kTextMax);
  out.varint(bytes + 1);
  out.raw(text, bytes);
}

void put_output(Encoder& out, char kind, uint64_t pointer, CUresult result) {
  if (pointer == 0) return out.byte(kNull);
  if (result != CUDA_SUCCESS) return out.byte(kUnread);
  out.byte(kValue);
  uint64_t wide = 0;
  int32_t narrow = 0;
  const auto* from = reinterpret_cast<const void*>(pointer);
  if (kind == 'z' || kind == 'p') {
    memcpy(&wide, from, sizeof wide);
    return out.varint(wide);
  }
  memcpy(&narrow, from, sizeof narrow);
  if (kind == 'g') return out.raw(&narrow, sizeof narrow);
  out.varint(kind == 'n' ? zigzag(narrow) : uint64_t(uint32_t(narrow)));
}

void put_argument(Encoder& out, char kind, uint64_t word, CUresult result) {
  switch (kind) {
    case '-':
      return;
    case 'i':
      return out.varint(zigzag(int64_t(word)));
    case 'f': {
      const auto bits = uint32_t(word);
      return out.raw(&bits, sizeof bits);
    }
    case 's':
      return put_text(out, reinterpret_cast<const char*>(word), result);
    case 'u':
    case 'x':
      return out.varint(word);
    default:
      return put_output(out, kind, word, result);
  }
}

void put_travel(Encoder& out, CUresult result, const TravelCounters& before, const TravelCounters& after) {
  const uint64_t fields[] = {uint64_t(result),
                             after.commands - before.commands,
                             after.sent_bytes - before.sent_bytes,
                             after.received_bytes - before.received_bytes,
                             after.round_trips - before.round_trips,
                             after.wait_ns - before.wait_ns};
  uint8_t mask = 0;
  for (int i = 0; i < 6; ++i) mask = uint8_t(mask | (fields[i] != 0) << i);
  out.byte(mask);
  for (const uint64_t field : fields) {
    if (field != 0) out.varint(field);
  }
}

// Requires: g_mu.
void write_end() {
  EndPayload end = {};
  for (ThreadBuffer* buffer = g_buffers; buffer != nullptr; buffer = buffer->next) {
    write_out(*buffer);
    end.recorded += buffer->recorded.load();
    end.lost += buffer->lost.load();
  }
  if (!g_sink.announced()) return;
  FrameHead head = {};
  head.kind = FrameKind::kEnd;
  head.bytes = sizeof end;
  g_sink.append(head, &end);
}

// A signal's handler that ends the process may have interrupted who holds the lock, this very thread.
void write_end_if_possible() {
  for (int tries = 0; pthread_mutex_trylock(&g_mu) != 0; ++tries) {
    if (tries == kTriesMax) return;
    sched_yield();
  }
  write_end();
  pthread_mutex_unlock(&g_mu);
}

// What is called after this is written at once.
__attribute__((destructor)) void process_ends() {
  if (!g_on.load()) return;
  g_ending.store(true);
  write_end_if_possible();
}

}  // namespace

ThreadBuffer* thread_buffer() {
  if (g_mine != nullptr) return g_mine;
  pthread_once(&g_once, begin);
  if (!g_on.load(std::memory_order_relaxed)) return nullptr;
  const TravelCounters* counters = find_counters();
  const Locked lock;
  ThreadBuffer* buffer = take_over();
  if (buffer == nullptr) return nullptr;
  buffer->travelled = counters;
  buffer->thread = this_thread();
  buffer->owned.store(true);
  pthread_setspecific(g_key, buffer);
  g_mine = buffer;
  return buffer;
}

void end_at_once() {
  // A child of vfork() has the parent's memory.
  if (!g_on.load() || getpid() != g_pid) return;
  write_end_if_possible();
}

void take_down(ThreadBuffer& buffer, const CallTaken& call) {
  if (g_failed.load(std::memory_order_relaxed)) {
    buffer.lost.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  if (buffer.used.load(std::memory_order_relaxed) + kCallBytesMax > kBufferBytes) empty(buffer);
  const uint32_t used = buffer.used.load(std::memory_order_relaxed);
  if (used == 0) buffer.base_ns = call.begin;
  Encoder out(buffer.bytes + used);
  out.varint(call.function);
  out.varint(zigzag(int64_t(call.begin - buffer.base_ns)));
  out.varint(call.end - call.begin);
  put_travel(out, call.result, call.before, *buffer.travelled);
  const uint64_t* word = call.words;
  for (const char* kind = kFunctions[call.function].kinds; *kind != 0; ++kind) {
    put_argument(out, *kind, *word++, call.result);
  }
  buffer.recorded.fetch_add(1, std::memory_order_relaxed);
  buffer.used.store(uint32_t(out.at() - buffer.bytes), std::memory_order_release);
  if (call.end - buffer.base_ns > kAgeNs || g_ending.load(std::memory_order_relaxed)) empty(buffer);
}

}  // namespace tide::trace
