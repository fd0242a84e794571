#pragma once

// Everything that this library knows in one process: the only global object. Made at the first cuInit, never destroyed
// (libraries call in after their own static destructors), given up in a forked child.

#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "interpose/array.h"
#include "interpose/handles.h"
#include "interpose/host_memory.h"
#include "interpose/library.h"
#include "interpose/memory_pools.h"
#include "interpose/pool.h"
#include "interpose/service.h"
#include "interpose/vgpu.h"

namespace tide {

// Memory without an address, of the VMM's calls. It is mapped once at most: the worker makes it where it is mapped.
struct Physical : Handled {
  Vgpu* vgpu = nullptr;
  uint64_t bytes = 0;
  CUmemAllocationProp properties = {};
  std::atomic<uint64_t> address{0};  // where it is mapped
  std::atomic<bool> was_mapped{false};
  std::atomic<bool> released{false};
  std::atomic<uint32_t> retained{0};  // handles beyond the first
  // Of memory that other processes may have, or that is theirs: the worker knows it by a name from the beginning, and
  // its contents last as long as the handle, a mapping, or a descriptor that was exported. Else 0.
  uint64_t name = 0;
  bool imported = false;
  std::atomic<bool> shared{false};
  std::vector<int> kept;  // an end for each exported descriptor (sharing.h); guarded by Process::sharing_mu
};

struct Process {
  HandleTable<Context> contexts{HandleKind::kContext};
  HandleTable<Stream> streams{HandleKind::kStream};
  HandleTable<Event> events{HandleKind::kEvent};
  HandleTable<Library> libraries{HandleKind::kLibrary};
  HandleTable<Library> modules{HandleKind::kModule};
  HandleTable<Kernel> kernels{HandleKind::kKernel};
  HandleTable<Array> arrays{HandleKind::kArray};
  HandleTable<MipmappedArray> mipmaps{HandleKind::kMipmap};
  HostMemory host{*this};
  MemoryPools pools;
  HandleTable<Physical> physicals{HandleKind::kPhysical};
  Pool pool;
  Service service{*this};
  std::vector<Vgpu*> devices;       // by CUDA ordinal: those that CUDA_VISIBLE_DEVICES shows
  Vgpu* by_number[kVgpusMax] = {};  // the same, by number in the job
  int driver_version = 0;
  bool launch_blocking = false;      // CUDA_LAUNCH_BLOCKING
  std::atomic<uint64_t> next_id{1};  // of contexts, streams, buffers
  std::atomic<uint32_t> next_library{1};
  std::atomic<uint32_t> next_array{1};
  std::mutex sharing_mu;               // exports of memory and events; held while the worker is asked
  std::atomic<uint32_t> lingering{0};  // released Physicals that only descriptors keep
  std::mutex implicit_mu;              // creation of legacy and per-thread streams

  // The vGPU whose range this address is in, or null.
  Vgpu* vgpu_of(uint64_t address) const;
  // The vGPU whose work may touch these bytes, and where it finds them: in its own range, or host memory that it
  // reaches, of which there may be several (`preferred` first). Null: the program's alone.
  Vgpu* worker_of(uint64_t address, uint64_t bytes, Vgpu* preferred, uint64_t* device) const;
  Vgpu* device(CUdevice ordinal) const {
    return ordinal >= 0 && size_t(ordinal) < devices.size() ? devices[size_t(ordinal)] : nullptr;
  }
  void add_vgpu(std::unique_ptr<Vgpu> vgpu);
  // For tests, which bring workers of their own: a live process without a pool, and a vGPU over `channel`.
  static Process* adopt();
  Vgpu* adopt_vgpu(std::unique_ptr<Channel> channel, const DeviceInfo& info, uint64_t quota);
};

// Null before cuInit, and for ever in a forked child of an initialised parent.
extern constinit std::atomic<Process*> live_process;
inline Process* process() { return live_process.load(std::memory_order_acquire); }

// cuInit: connects once; idempotent.
CUresult initialise();

// What almost every entry point begins with.
struct Entered {
  Process* process = nullptr;
  Context* context = nullptr;
  Vgpu* vgpu = nullptr;
};
// The current context, live and known to the worker; also brings out a pending asynchronous error.
CUresult enter(Entered* entered);
// The same without bringing out errors and without opening anything: for calls that are answered locally.
CUresult enter_quietly(Entered* entered);

// Makes the worker know the context. Called with the context that a command is to run in.
CUresult activate(Context& context);
// Ends a context: its streams, events, modules and memory.
void destroy_context(Process& process, Context& context);

// The stream that a handle means for the calling thread (null, 0x1 and 0x2 included), or INVALID_HANDLE.
CUresult find_stream(const Entered& entered, CUstream handle, Stream** stream);
CUresult legacy_stream(Process& process, Context& context, Stream** stream);
CUresult make_stream(Process& process, Context& context, uint32_t flags, int priority, bool implicit, Stream** stream);
void drop_stream(Process& process, Stream& stream);
void drop_event(Process& process, Event& event);

// A command struct as the whole payload.
template <class Command>
CUresult send_command(const Context& context, Call call, const Command& command, uint32_t stream = kNoStream,
                      uint64_t* sequence = nullptr) {
  return context.vgpu->channel().send(
      {.call = call,
       .context = context.number.load(std::memory_order_relaxed),
       .stream = stream,
       .payload_bytes = sizeof(Command)},
      [&](std::byte* payload) { __builtin_memcpy(payload, &command, sizeof command); }, sequence);
}

// The same, and waits for the answer, whose result is returned. `data` lies behind the command, at `offset` (a
// k...DataOffset of commands.h). `spec`: of the call, with its reply.
template <class Command>
CUresult ask_command(Channel& channel, CommandSpec spec, const Command& command, uint64_t* sequence = nullptr,
                     size_t offset = sizeof(Command), std::span<const std::byte> data = {}) {
  spec.payload_bytes = uint32_t(offset + data.size());
  const auto fill = [&](std::byte* payload) {
    __builtin_memcpy(payload, &command, sizeof command);
    if (!data.empty()) __builtin_memcpy(payload + offset, data.data(), data.size());
  };
  uint64_t number = 0;
  CUresult r = channel.send(spec, fill, &number);
  if (r == CUDA_SUCCESS) r = channel.wait_reply(*spec.reply);
  if (r != CUDA_SUCCESS) {
    channel.forget(number);
    return r;
  }
  if (sequence != nullptr) *sequence = number;
  return spec.reply->result;
}
// Within a context.
template <class Command>
CUresult ask_command(const Context& context, Call call, const Command& command, Reply* reply,
                     uint32_t stream = kNoStream, uint64_t* sequence = nullptr, size_t offset = sizeof(Command),
                     std::span<const std::byte> data = {}) {
  const uint32_t number = context.number.load(std::memory_order_relaxed);
  return ask_command(context.vgpu->channel(), {.call = call, .context = number, .stream = stream, .reply = reply},
                     command, sequence, offset, data);
}
template <class Command>
CUresult ask_command(const Context& context, Call call, const Command& command, size_t offset,
                     std::span<const std::byte> data, Reply* reply) {
  return ask_command(context, call, command, reply, kNoStream, nullptr, offset, data);
}

// What an answer carries, or UNKNOWN where that is too short.
template <class Answer>
CUresult read_answer(const Reply& reply, Answer* answer) {
  if (reply.payload.size() < sizeof(Answer)) return CUDA_ERROR_UNKNOWN;
  __builtin_memcpy(answer, reply.payload.data(), sizeof(Answer));
  return CUDA_SUCCESS;
}

}  // namespace tide
