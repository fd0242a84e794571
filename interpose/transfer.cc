#include "interpose/transfer.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <deque>

#include "base/clock.h"
#include "base/parts.h"
#include "commands.h"
#include "interpose/crossing.h"
#include "interpose/graphs.h"
#include "interpose/thread.h"

namespace tide {

void pack_rows(std::byte* to, HostRect from, uint64_t width, uint64_t height) {
  if (from.pitch == width || height == 1) {
    memcpy(to, from.data, width * height);
    return;
  }
  for (uint64_t row = 0; row < height; ++row) memcpy(to + row * width, from.data + row * from.pitch, width);
}

namespace {

constexpr uint64_t kPieceBytes = 512u << 10;  // of one record
static_assert(kPieceBytes <= Staging::kPieceBytes && kPieceBytes <= kPackedPieceMax);
constexpr uint64_t kLargeBytes = 128u << 10;   // below, the rings are as fast as what avoids them
constexpr uint64_t kSpinNs = 500'000;          // for a piece that is on its way
constexpr uint64_t kHeldBytesMax = 64u << 20;  // a quarter of a worker's staging, see Vgpu::holds

// What `bytes` of one record take of the worker's staging, which comes in pieces of three sizes.
uint64_t staged_piece(uint64_t bytes) {
  if (bytes == 0) return 0;
  return bytes <= (4u << 10) ? 4u << 10 : bytes <= (64u << 10) ? 64u << 10 : 1u << 20;
}

uint64_t staged(uint64_t width, uint64_t height) {
  if (width > kPieceBytes) {
    return height * (width / kPieceBytes * staged_piece(kPieceBytes) + staged_piece(width % kPieceBytes));
  }
  const uint64_t rows = kPieceBytes / width;
  return height / rows * staged_piece(rows * width) + staged_piece(height % rows * width);
}

void unpack_rows(HostRect to, const std::byte* from, uint64_t width, uint64_t height) {
  std::byte* const data = const_cast<std::byte*>(to.data);
  if (to.pitch == width || height == 1) {
    memcpy(data, from, width * height);
    return;
  }
  for (uint64_t row = 0; row < height; ++row) memcpy(data + row * to.pitch, from + row * width, width);
}

// Before more is copied while streams are held than the worker has room for.
void leave_room(Vgpu& vgpu, uint64_t width, uint64_t height) {
  if (vgpu.holds.load() == 0) {
    vgpu.held_bytes.store(0);
    return;
  }
  const uint64_t bytes = staged(width, height);
  if (vgpu.held_bytes.fetch_add(bytes) + bytes <= kHeldBytesMax) return;
  Channel& channel = vgpu.channel();
  while (vgpu.holds.load() != 0 && !channel.failed()) {
    channel.drain();
    channel.sleep(100);
  }
  vgpu.held_bytes.store(0);
}

// Bytes that are not there are missed here, in the program's thread, and not by the link.
void touch(HostRect rect, uint64_t width, uint64_t height) {
  constexpr uint64_t kPage = 4096;
  for (uint64_t row = 0; row < height; ++row) {
    const auto* const data = reinterpret_cast<const volatile std::byte*>(rect.data + row * rect.pitch);
    for (uint64_t at = 0; at < width; at += kPage) [[maybe_unused]] const std::byte seen = data[at];
    [[maybe_unused]] const std::byte last = data[width - 1];
  }
}

uint64_t span(const CopySide& side, uint64_t width, uint64_t height) { return side.pitch * (height - 1) + width; }

// The device side of a copy, checked. `context`: in whose legacy stream a copy belongs that names no stream.
struct DeviceSide {
  Vgpu* vgpu = nullptr;
  Context* context = nullptr;
};

CUresult check_device(Process& p, const CopySide& side, uint64_t width, uint64_t height, DeviceSide* found) {
  Vgpu* vgpu = side.vgpu;
  Allocation allocation;
  if (side.host) {  // known to lie in one block
    *found = {vgpu, vgpu->primary};
    return CUDA_SUCCESS;
  }
  if (!vgpu->is_open() || !vgpu->memory->find(side.address, &allocation)) return CUDA_ERROR_INVALID_VALUE;
  if (span(side, width, height) > allocation.bytes - (side.address - allocation.base)) return CUDA_ERROR_INVALID_VALUE;
  found->vgpu = vgpu;
  found->context = vgpu->primary;
  if (vgpu->primary->number.load() != allocation.context) {
    p.contexts.each([&](Context* c) {
      if (c->vgpu == vgpu && c->number.load() == allocation.context) found->context = c;
    });
  }
  return CUDA_SUCCESS;
}

bool pinned(Process& p, const CopySide& side, uint64_t width, uint64_t height) {
  HostBlock block;
  return p.host.find(side.address, &block) && span(side, width, height) <= block.bytes - block.offset_of(side.address);
}

// The stream that a copy runs on. A named stream of another vGPU than the memory's is waited for on the host, and the
// copy runs in the memory's own context: rare, and right.
CUresult choose_stream(const Entered& e, const CopyOrder& order, const DeviceSide& side, Stream** stream,
                       bool* foreign) {
  *foreign = false;
  if (order.synchronous && side.vgpu != e.vgpu) return legacy_stream(*e.process, *side.context, stream);
  if (CUresult r = find_stream(e, order.synchronous ? nullptr : order.stream, stream); r != CUDA_SUCCESS) return r;
  if ((*stream)->vgpu == side.vgpu) return CUDA_SUCCESS;
  Channel& other = (*stream)->vgpu->channel();
  if (CUresult r = other.wait_stream((*stream)->slot, other.last_work((*stream)->slot)); r != CUDA_SUCCESS) return r;
  *foreign = true;
  return legacy_stream(*e.process, *side.context, stream);
}

// The caller goes on; the streams wait until the service thread has carried the bytes over. `from` null: from the
// program's own memory.
CUresult across(Process& p, const CopyOrder& o, Vgpu* to, Vgpu* from, std::initializer_list<Stream*> streams) {
  Stream* hidden = nullptr;
  if (CUresult r = copy_stream(p, *to, &hidden); r != CUDA_SUCCESS) return r;
  if (from != nullptr) {
    if (CUresult r = copy_stream(p, *from, &hidden); r != CUDA_SUCCESS) return r;
  }
  auto task = std::make_unique<Task>();
  for (Stream* stream : streams) {
    Point point;
    if (CUresult r = mark(*stream, &point); r != CUDA_SUCCESS) return r;
    task->after.push_back(point);
  }
  CUresult result = CUDA_SUCCESS;
  for (Stream* stream : streams) {
    SignalPoint signal;
    if (result = hold(*stream, &signal); result != CUDA_SUCCESS) break;
    task->signals.push_back(signal);
  }
  if (result == CUDA_SUCCESS) {
    task->to = {to, o.to.address, o.to.pitch};
    task->from = {from, o.from.address, o.from.pitch};
    task->width = o.width;
    task->height = o.height;
  }
  p.service.add(std::move(task));  // in any case: streams that are held already must be let go
  return result;
}

// Page-locked memory is read when the stream gets there, not when the call is made: what is under way may still write
// it (a copy out, a host function), and then the bytes must not be taken now.
bool not_written_yet(Process& p, const CopyOrder& o) {
  bool pending = p.service.calls_open() != 0;
  for (Vgpu* v : p.devices) pending |= v->is_open() && v->channel().copies_pending();
  if (!pending || !(o.in_graph || pinned(p, o.from, o.width, o.height))) return false;
  if (p.service.calls_open() != 0) return true;
  const uint64_t bytes = span(o.from, o.width, o.height);
  return std::any_of(p.devices.begin(), p.devices.end(),
                     [&](Vgpu* v) { return v->is_open() && v->channel().lands_in(o.from.address, bytes); });
}

// Page-locked memory is the program's again when the stream has come so far, and not before. What is not ours may be
// private, and a child that is forked would share its pages with a device that reads them: it is not registered.
bool stays(Process& p, const CopyOrder& o, const CopySide& side, Channel& channel) {
  HostBlock block;
  if (o.width * o.height < kLargeBytes || !p.host.is_kept_once(side.address, span(side, o.width, o.height)))
    return false;
  const bool is_shared = p.host.descriptor() >= 0;  // else ours is private, too
  if (is_shared && p.host.find(side.address, &block) && block.kind == HostKind::kPinned)
    channel.know_memory(block.host, block.bytes);
  return true;
}

CUresult host_to_device(const Entered& e, const CopyOrder& o) {
  DeviceSide side;
  Stream* stream = nullptr;
  bool foreign = false;
  if (CUresult r = check_device(*e.process, o.to, o.width, o.height, &side); r != CUDA_SUCCESS) return r;
  if (CUresult r = choose_stream(e, o, side, &stream, &foreign); r != CUDA_SUCCESS) return r;
  uint64_t sequence = 0;
  if (not_written_yet(*e.process, o)) {
    if (CUresult r = across(*e.process, o, side.vgpu, nullptr, {stream}); r != CUDA_SUCCESS) return r;
    if (!o.synchronous && !foreign) return CUDA_SUCCESS;
    Channel& channel = side.vgpu->channel();
    return channel.wait_stream(stream->slot, channel.last_work(stream->slot));
  }
  leave_room(*side.vgpu, o.width, o.height);
  const bool awaited = foreign || (o.synchronous && side.vgpu->memory->has_synchronous());
  const HostRect source{reinterpret_cast<const std::byte*>(o.from.address), o.from.pitch,
                        (awaited || !o.synchronous) && stays(*e.process, o, o.from, side.vgpu->channel()),
                        !e.process->host.keeps_some_twice()};
  const CUresult r =
      send_copy_in(*stream, o.to.address, o.to.pitch, source, o.width, o.height, &sequence, &side.vgpu->staging);
  if (r != CUDA_SUCCESS || !awaited) return r;
  return side.vgpu->channel().wait_stream(stream->slot, sequence);
}

// A copy out whose caller waits, piece by piece through staging memory: while one is being copied to where it belongs,
// the GPU fills others. *done: all of it went so.
class StagedCopyOut {
 public:
  StagedCopyOut(Stream& stream, const CopyOrder& order)
      : stream_(stream),
        channel_(stream.vgpu->channel()),
        order_(order),
        parts_(order.width, order.height, kPieceBytes) {}
  ~StagedCopyOut() {
    for (const Flight& f : flights_) give_back(f);
  }
  CUresult run(bool* done);

 private:
  struct Flight {
    Staging::Piece piece;
    Part part;
    uint64_t sequence;
  };
  CUresult send();
  CUresult land();
  void give_back(const Flight& f) { stream_.vgpu->staging.give_back(f.piece, stream_.slot, f.sequence); }

  Stream& stream_;
  Channel& channel_;
  const CopyOrder& order_;
  Parts parts_;
  Part next_{};
  bool more_ = false;
  std::deque<Flight> flights_;
};

CUresult StagedCopyOut::send() {
  // Only the first is waited for: those that are on their way are this copy's own.
  Staging& staging = stream_.vgpu->staging;
  const Staging::Piece piece = flights_.empty() ? staging.take(*stream_.vgpu) : staging.take_at_once(*stream_.vgpu);
  if (!piece) return CUDA_ERROR_NOT_READY;
  const uint64_t from = order_.from.address + next_.row * order_.from.pitch + next_.column;
  const uint64_t pitch = next_.rows == 1 ? next_.columns : order_.from.pitch;
  const command::CopyWithin command{piece.address(), next_.columns, from, pitch, next_.columns, next_.rows};
  uint64_t sequence = 0;
  const CUresult r = send_command(*stream_.context, Call::tideCopyWithin, command, stream_.slot, &sequence);
  if (r != CUDA_SUCCESS) {
    staging.give_back(piece, stream_.slot, 0);
    return r;
  }
  flights_.push_back({piece, next_, sequence});
  more_ = parts_.next(&next_);
  return CUDA_SUCCESS;
}

CUresult StagedCopyOut::land() {
  const Flight f = flights_.front();
  // A piece takes about as long as going to sleep and being woken.
  const uint64_t end = now_ns() + kSpinNs;
  while (!channel_.done(stream_.slot, f.sequence) && now_ns() < end) sched_yield();
  if (CUresult r = channel_.wait_stream(stream_.slot, f.sequence); r != CUDA_SUCCESS) return r;
  const uint64_t to = order_.to.address + f.part.row * order_.to.pitch + f.part.column;
  unpack_rows({reinterpret_cast<std::byte*>(to), order_.to.pitch}, f.piece.data, f.part.columns, f.part.rows);
  give_back(f);
  flights_.pop_front();
  return CUDA_SUCCESS;
}

CUresult StagedCopyOut::run(bool* done) {
  more_ = parts_.next(&next_);
  while (more_ || !flights_.empty()) {
    CUresult r = more_ ? send() : CUDA_ERROR_NOT_READY;
    if (r == CUDA_ERROR_NOT_READY) {
      if (flights_.empty()) return CUDA_SUCCESS;
      r = land();
    }
    if (r != CUDA_SUCCESS) return r;
  }
  *done = true;
  const uint64_t bytes = order_.width * order_.height;
  channel_.counters().bytes_out.fetch_add(bytes, std::memory_order_relaxed);
  thread_state.travel.received_bytes += bytes;
  return CUDA_SUCCESS;
}

CUresult device_to_host(const Entered& e, const CopyOrder& o) {
  DeviceSide side;
  Stream* stream = nullptr;
  bool foreign = false;
  if (CUresult r = check_device(*e.process, o.from, o.width, o.height, &side); r != CUDA_SUCCESS) return r;
  if (CUresult r = choose_stream(e, o, side, &stream, &foreign); r != CUDA_SUCCESS) return r;
  uint64_t sequence = 0;
  const bool at_once = !o.synchronous && !foreign && (o.in_graph || pinned(*e.process, o.to, o.width, o.height));
  if (!at_once && o.width * o.height >= kLargeBytes) {
    bool done = false;
    const CUresult r = StagedCopyOut(*stream, o).run(&done);
    if (r != CUDA_SUCCESS || done) return e.process->host.after_wait(*side.vgpu, r);
  }
  leave_room(*side.vgpu, o.width, o.height);
  const Landing landing{reinterpret_cast<std::byte*>(o.to.address), o.to.pitch, o.width, o.height,
                        stays(*e.process, o, o.to, side.vgpu->channel())};
  if (CUresult r = send_copy_out(*stream, o.from.address, o.from.pitch, landing, &sequence); r != CUDA_SUCCESS)
    return r;
  if (at_once) return CUDA_SUCCESS;
  Channel& channel = side.vgpu->channel();
  const CUresult r = channel.wait_stream(stream->slot, sequence);
  if (r != CUDA_SUCCESS) {  // nothing may be written there after we return
    channel.stop_reading();
    channel.forget(sequence);
  }
  return e.process->host.after_wait(*side.vgpu, r);
}

CUresult host_to_host(const Entered& e, const CopyOrder& o) {
  Stream* stream = nullptr;
  if (CUresult r = find_stream(e, o.synchronous ? nullptr : o.stream, &stream); r != CUDA_SUCCESS) return r;
  Channel& channel = stream->vgpu->channel();
  CUresult r = channel.wait_stream(stream->slot, channel.last_work(stream->slot));
  if (r = e.process->host.after_wait(*stream->vgpu, r); r != CUDA_SUCCESS) return r;
  for (uint64_t row = 0; row < o.height; ++row) {
    memmove(reinterpret_cast<void*>(o.to.address + row * o.to.pitch),
            reinterpret_cast<const void*>(o.from.address + row * o.from.pitch), o.width);
  }
  return CUDA_SUCCESS;
}

CUresult device_to_device(const Entered& e, const CopyOrder& o) {
  DeviceSide to, from;
  if (CUresult r = check_device(*e.process, o.to, o.width, o.height, &to); r != CUDA_SUCCESS) return r;
  if (CUresult r = check_device(*e.process, o.from, o.width, o.height, &from); r != CUDA_SUCCESS) return r;
  Stream* stream = nullptr;
  if (to.vgpu != from.vgpu) {
    if (o.synchronous) {
      Stream *first = nullptr, *second = nullptr;
      if (CUresult r = legacy_stream(*e.process, *from.context, &first); r != CUDA_SUCCESS) return r;
      if (CUresult r = legacy_stream(*e.process, *to.context, &second); r != CUDA_SUCCESS) return r;
      return across(*e.process, o, to.vgpu, from.vgpu, {first, second});
    }
    if (CUresult r = find_stream(e, o.stream, &stream); r != CUDA_SUCCESS) return r;
    return across(*e.process, o, to.vgpu, from.vgpu, {stream});
  }
  bool foreign = false;
  if (CUresult r = choose_stream(e, o, to, &stream, &foreign); r != CUDA_SUCCESS) return r;
  const command::CopyWithin command{o.to.address, o.to.pitch, o.from.address, o.from.pitch, o.width, o.height};
  uint64_t sequence = 0;
  const CUresult r = send_command(*stream->context, Call::tideCopyWithin, command, stream->slot, &sequence);
  // The program finds the bytes in host memory, or changes them there, when a synchronous copy has returned.
  const bool awaited = foreign || (o.synchronous && (o.to.host || o.from.host || to.vgpu->memory->has_synchronous()));
  if (r != CUDA_SUCCESS || !awaited) return r;
  return e.process->host.after_wait(*to.vgpu, to.vgpu->channel().wait_stream(stream->slot, sequence));
}

CUresult send_in_ring(Stream& stream, uint64_t address, uint64_t pitch, HostRect source, uint64_t width,
                      uint64_t height, uint64_t* sequence) {
  const command::CopyIn command{address, pitch, width, height};
  const uint64_t bytes = width * height;
  const bool whole = source.stays && bytes >= kLentBytesLeast && (source.pitch == width || height == 1);
  return stream.vgpu->channel().send(
      {.call = Call::tideCopyIn,
       .context = stream.context->number.load(),
       .stream = stream.slot,
       .payload_bytes = uint32_t(command::kCopyInDataOffset + bytes),
       .bulk = source.data,
       .bulk_bytes = whole ? uint32_t(bytes) : 0},
      [&](std::byte* payload) {
        memcpy(payload, &command, sizeof command);
        if (!whole) pack_rows(payload + command::kCopyInDataOffset, source, width, height);
      },
      sequence);
}

CUresult send_staged(Stream& stream, const Staging::Piece& piece, uint64_t address, uint64_t pitch, HostRect source,
                     uint64_t width, uint64_t height, uint64_t* sequence) {
  pack_rows(piece.data, source, width, height);
  const command::CopyWithin command{address, pitch, piece.address(), width, width, height};
  const CUresult r = send_command(*stream.context, Call::tideCopyWithin, command, stream.slot, sequence);
  stream.vgpu->staging.give_back(piece, stream.slot, r == CUDA_SUCCESS ? *sequence : 0);
  if (r == CUDA_SUCCESS) thread_state.travel.sent_bytes += width * height;
  return r;
}

}  // namespace

CUresult send_copy_in(Stream& stream, uint64_t address, uint64_t pitch, HostRect source, uint64_t width,
                      uint64_t height, uint64_t* sequence, Staging* staging) {
  bool staged = staging != nullptr && width * height >= kLargeBytes;
  Channel& channel = stream.vgpu->channel();
  uint64_t left = width * height, lent_to = 0;
  CUresult r = CUDA_SUCCESS;
  Parts parts(width, height, kPieceBytes);
  for (Part p; parts.next(&p);) {
    const uint64_t to = address + p.row * pitch + p.column;
    const uint64_t to_pitch = p.rows == 1 ? p.columns : pitch;
    // What a whole ring follows that this call writes has been taken by then.
    left -= p.columns * p.rows;
    const bool lent = source.waits && !source.stays && !staged && left >= kCommandRingBytes;
    const HostRect part{source.data + p.row * source.pitch + p.column, source.pitch, source.stays || lent};
    if (lent) touch(part, p.columns, p.rows);
    const Staging::Piece piece = staged ? staging->take(*stream.vgpu) : Staging::Piece{};
    staged = bool(piece);
    if (!staged &&
        stream.vgpu->packing.send(stream, {part.data, part.pitch, to, to_pitch, p.columns, p.rows}, &r, sequence)) {
      if (r != CUDA_SUCCESS) break;
      continue;
    }
    r = staged ? send_staged(stream, piece, to, to_pitch, part, p.columns, p.rows, sequence)
               : send_in_ring(stream, to, to_pitch, part, p.columns, p.rows, sequence);
    if (r != CUDA_SUCCESS) break;
    if (lent) lent_to = channel.sent_to();
  }
  // At once, unless the rest was packed.
  if (lent_to != 0) {
    const CUresult taken = channel.wait_taken(lent_to);
    if (r == CUDA_SUCCESS) r = taken;
  }
  if (r == CUDA_SUCCESS) channel.counters().bytes_in.fetch_add(width * height, std::memory_order_relaxed);
  return r;
}

CUresult send_copy_out(Stream& stream, uint64_t address, uint64_t pitch, const Landing& landing, uint64_t* sequence) {
  const uint64_t from_pitch = landing.height == 1 ? landing.width : pitch;
  Channel& channel = stream.vgpu->channel();
  const PackMode pack = channel.shares_host_memory() ? PackMode::kOff : pack_mode();
  const bool in_one = landing.height == 1 || landing.pitch == landing.width;
  const RemotePlace to =
      landing.stays && in_one ? channel.place_for(landing.destination, landing.width * landing.height) : RemotePlace{};
  const command::CopyOut command{
      address, from_pitch, landing.width, landing.height, uint32_t(pack), to.connection, to.address, to.key, 0};
  return channel.send(
      {.call = Call::tideCopyOut,
       .context = stream.context->number.load(),
       .stream = stream.slot,
       .payload_bytes = sizeof command,
       .landing = &landing},
      [&](std::byte* payload) { memcpy(payload, &command, sizeof command); }, sequence);
}

namespace {

// A copy on a capturing stream becomes a node; one that would disturb a capture is refused.
CUresult capture_or_check(const Entered& e, const CopyOrder& order, bool* captured) {
  if (!graph::capturing_anywhere()) return CUDA_SUCCESS;
  Stream* stream = nullptr;
  if (CUresult r = use_stream(e, order.synchronous ? nullptr : order.stream, &stream); r != CUDA_SUCCESS) return r;
  if (order.synchronous) return ask_stream(*stream);
  *captured = capturing(*stream);
  return *captured ? capture_copy(*stream, order) : CUDA_SUCCESS;
}

// Finds the vGPU of each side. Host memory that kernels of the vGPU at work reach is copied by that one; other host
// memory, and what a synchronous copy may read at once, by the program.
void place(const Entered& e, CopyOrder* o) {
  Process& p = *e.process;
  o->to.vgpu = p.vgpu_of(o->to.address);
  o->from.vgpu = p.vgpu_of(o->from.address);
  Vgpu* at_work = o->to.vgpu != nullptr ? o->to.vgpu : o->from.vgpu != nullptr ? o->from.vgpu : e.vgpu;
  if (!at_work->is_open()) return;
  const bool at_once =
      o->synchronous && o->to.vgpu != nullptr && at_work->idle() && !p.host.is_kept_twice(o->from.address);
  for (CopySide* side : {&o->to, &o->from}) {
    if (side->vgpu != nullptr && side->vgpu != at_work) continue;
    if (side->vgpu == nullptr && (side == &o->from && at_once)) continue;
    const uint64_t device = p.host.on_device(*at_work, side->address, span(*side, o->width, o->height));
    if (device == 0) continue;
    side->address = device;
    side->vgpu = at_work;
    side->host = true;
  }
  // One side is the program's own: it reaches both.
  const bool own = o->to.vgpu == nullptr || o->from.vgpu == nullptr;
  CopySide& other = o->to.vgpu == nullptr ? o->from : o->to;
  if (own && other.host) other.vgpu = nullptr, other.host = false;
}

CUresult dispatch(const Entered& e, const CopyOrder& order) {
  if (order.to.vgpu == nullptr && order.from.vgpu == nullptr) return host_to_host(e, order);
  if (order.to.vgpu == nullptr) return device_to_host(e, order);
  if (order.from.vgpu == nullptr) return host_to_device(e, order);
  return device_to_device(e, order);
}

CUresult carry_out(const Entered& e, const CopyOrder& asked) {
  CopyOrder order = asked;
  place(e, &order);
  // The program's own addresses again, where it copies itself.
  if (order.to.vgpu == nullptr) order.to = {e.process->host.on_host(asked.to.address), asked.to.pitch};
  if (order.from.vgpu == nullptr) order.from = {e.process->host.on_host(asked.from.address), asked.from.pitch};
  for (Vgpu* vgpu : {order.to.vgpu, order.from.vgpu}) {
    if (vgpu == nullptr || !vgpu->is_open()) continue;
    if (CUresult r = e.process->host.before_work(*vgpu); r != CUDA_SUCCESS) return r;
  }
  return dispatch(e, order);
}

}  // namespace

CUresult copy(const CopyOrder& asked) {
  Entered e;
  if (CUresult r = enter(&e); r != CUDA_SUCCESS) return r;
  const CopyOrder& order = asked;
  if (order.width == 0 || order.height == 0) return CUDA_SUCCESS;
  if (order.to.address < kLowestAddress || order.from.address < kLowestAddress) return CUDA_ERROR_INVALID_VALUE;
  if (order.height > 1 && (order.to.pitch < order.width || order.from.pitch < order.width))
    return CUDA_ERROR_INVALID_VALUE;
  bool captured = false;
  if (CUresult r = capture_or_check(e, order, &captured); r != CUDA_SUCCESS || captured) return r;
  return carry_out(e, order);
}

CUresult copy_between(Context& to_context, Context& from_context, const CopyOrder& asked) {
  Entered e;
  if (CUresult r = enter(&e); r != CUDA_SUCCESS) return r;
  if (asked.width == 0) return CUDA_SUCCESS;
  CopyOrder order = asked;
  bool captured = false;
  if (CUresult r = capture_or_check(e, order, &captured); r != CUDA_SUCCESS || captured) return r;
  HostBlock block;
  const auto in_host = [&](const CopySide& side) { return e.process->host.find(side.address, &block); };
  if (in_host(order.to) || in_host(order.from)) return carry_out(e, order);
  order.to.vgpu = e.process->vgpu_of(order.to.address);
  order.from.vgpu = e.process->vgpu_of(order.from.address);
  if (order.to.vgpu != to_context.vgpu || order.from.vgpu != from_context.vgpu) return CUDA_ERROR_INVALID_VALUE;
  return device_to_device(e, order);
}

}  // namespace tide
