#include "server/transfer.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/secrets.h"
#include "base/versions.h"
#include "server/array_contents.h"
#include "server/chunk_carrier.h"
#include "server/pieces.h"
#include "server/state.h"
#include "server/verdict.h"

namespace tide {
namespace {

constexpr uint64_t kStateBytesMax = uint64_t{4} << 30;
constexpr uint64_t kTransferPieceBytes = kStagingPieceMax;
constexpr uint64_t kSectionEnd = ~uint64_t{0};
constexpr uint32_t kRestoreMs = 60'000;
constexpr uint32_t kHelloMs = 3'000;  // who has connected and says nothing keeps the next one waiting

struct PieceHeader {
  uint64_t address = 0;  // kSectionEnd: no more
  uint32_t bytes = 0;
  uint32_t zero = 0;  // 1: all bytes are zero and are not sent
};

bool is_zero(const std::byte* data, uint64_t bytes) {
  return data[0] == std::byte{0} && (bytes == 1 || memcmp(data, data + 1, bytes - 1) == 0);
}

// Two buffers in turn, so that the GPU copies one while the stream carries the other.
class Mover {
 public:
  explicit Mover(Session& session) : session_(session), driver_(session.driver()) {}
  ~Mover() {
    for (Side& side : sides_) {
      if (side.busy) driver_.cuStreamSynchronize(stream_);
      if (side.piece) session_.staging().give_back(side.piece);
      if (side.done != nullptr) driver_.cuEventDestroy_v2(side.done);
    }
    if (stream_ != nullptr) driver_.cuStreamDestroy_v2(stream_);
  }
  struct Side {
    Staging::Piece piece;
    CUevent done = nullptr;
    PieceHeader header;
    bool busy = false;
  };

  Outcome start() {
    session_.contexts().use(0);
    for (Side& side : sides_) {
      // A copy out that is larger than the staging may have all of it, and goes on after the move only.
      side.piece = session_.staging().take(kTransferPieceBytes, true);
      if (!side.piece) return Outcome::fail("no staging memory is left for the move");
    }
    session_.contexts().use(0);
    for (Side& side : sides_) {
      if (const CUresult r = driver_.cuEventCreate(&side.done, CU_EVENT_DISABLE_TIMING); r != CUDA_SUCCESS)
        return fail(r);
    }
    const CUresult r = driver_.cuStreamCreateWithPriority(&stream_, CU_STREAM_NON_BLOCKING, 0);
    return r == CUDA_SUCCESS ? Outcome() : fail(r);
  }
  Side& next() { return sides_[turn_++ % 2]; }
  Outcome fetch(Side* side) {
    if (session_.host_memory().covers(side->header.address, side->header.bytes)) {
      memcpy(side->piece.data, reinterpret_cast<const void*>(side->header.address), side->header.bytes);
      return {};
    }
    CUresult r = driver_.cuMemcpyDtoHAsync_v2(side->piece.data, side->header.address, side->header.bytes, stream_);
    if (r == CUDA_SUCCESS) r = driver_.cuEventRecord(side->done, stream_);
    side->busy = r == CUDA_SUCCESS;
    return side->busy ? Outcome() : fail(r);
  }
  Outcome store(Side* side) {
    if (session_.host_memory().covers(side->header.address, side->header.bytes)) {
      memcpy(reinterpret_cast<void*>(side->header.address), side->piece.data, side->header.bytes);
      return {};
    }
    CUresult r = driver_.cuMemcpyHtoDAsync_v2(side->header.address, side->piece.data, side->header.bytes, stream_);
    if (r == CUDA_SUCCESS) r = driver_.cuEventRecord(side->done, stream_);
    side->busy = r == CUDA_SUCCESS;
    return side->busy ? Outcome() : fail(r);
  }
  Outcome wait(Side* side) {
    if (!side->busy) return {};
    side->busy = false;
    const CUresult r = driver_.cuEventSynchronize(side->done);
    return r == CUDA_SUCCESS ? Outcome() : fail(r);
  }

 private:
  Outcome fail(CUresult r) { return Outcome::fail("copying the vGPU's memory failed: " + error_text(driver_, r)); }

  Session& session_;
  const Driver& driver_;
  CUstream stream_ = nullptr;
  Side sides_[2];
  uint32_t turn_ = 0;
};

Outcome carry(Mover* mover, Mover::Side* side, ByteStream& stream, bool skip_zero, uint64_t* bytes) {
  if (Outcome outcome = mover->wait(side); !outcome.ok()) return outcome;
  side->header.zero = skip_zero && is_zero(side->piece.data, side->header.bytes) ? 1 : 0;
  if (Outcome outcome = stream.send(&side->header, sizeof(side->header)); !outcome.ok()) return outcome;
  if (side->header.zero != 0) return {};
  *bytes += side->header.bytes;
  return stream.send(side->piece.data, side->header.bytes);
}

Outcome send_contents(Session& session, ByteStream& stream, const std::vector<MemoryRange>& ranges, bool skip_zero,
                      const std::function<void()>& pump, uint64_t* bytes) {
  Mover mover(session);
  if (Outcome outcome = mover.start(); !outcome.ok()) return outcome;
  Mover::Side* before = nullptr;
  for (const MemoryRange& range : ranges) {
    for (uint64_t at = 0; at < range.bytes; at += kTransferPieceBytes) {
      Mover::Side& side = mover.next();
      side.header = {range.address + at, uint32_t(std::min(kTransferPieceBytes, range.bytes - at)), 0};
      if (Outcome outcome = mover.fetch(&side); !outcome.ok()) return outcome;
      if (before != nullptr) {
        if (Outcome outcome = carry(&mover, before, stream, skip_zero, bytes); !outcome.ok()) return outcome;
      }
      before = &side;
      pump();
    }
  }
  if (before != nullptr) {
    if (Outcome outcome = carry(&mover, before, stream, skip_zero, bytes); !outcome.ok()) return outcome;
  }
  const PieceHeader end{kSectionEnd, 0, 0};
  return stream.send(&end, sizeof(end));
}

Outcome receive_contents(Session& session, ByteStream& stream) {
  Mover mover(session);
  if (Outcome outcome = mover.start(); !outcome.ok()) return outcome;
  while (true) {
    Mover::Side& side = mover.next();
    if (Outcome outcome = mover.wait(&side); !outcome.ok()) return outcome;
    if (Outcome outcome = stream.receive(&side.header, sizeof(side.header)); !outcome.ok()) return outcome;
    if (side.header.address == kSectionEnd) break;
    if (side.header.bytes == 0 || side.header.bytes > kTransferPieceBytes ||
        !session.covers(side.header.address, side.header.bytes)) {
      return Outcome::fail("the source sent memory that is not the vGPU's");
    }
    if (side.header.zero != 0) continue;  // newly mapped memory is zero
    if (Outcome outcome = stream.receive(side.piece.data, side.header.bytes); !outcome.ok()) return outcome;
    if (Outcome outcome = mover.store(&side); !outcome.ok()) return outcome;
  }
  for (int i = 0; i < 2; ++i) {
    if (Outcome outcome = mover.wait(&mover.next()); !outcome.ok()) return outcome;
  }
  return {};
}

struct KeptHeader {
  uint32_t slot = kNoContent;  // no more
  uint32_t bytes = 0;
  ContentKey key = {};
};

// What the client may name in commands that only the destination will execute.
Outcome send_kept(Session& session, ByteStream& stream, const std::function<void()>& pump, uint64_t* bytes) {
  const uint64_t slots = session.contents().slots();
  if (Outcome outcome = stream.send(&slots, sizeof(slots)); !outcome.ok()) return outcome;
  for (uint32_t slot = 0; slot < slots; ++slot) {
    KeptHeader header{.slot = slot};
    const std::span<const std::byte> content = session.contents().kept(slot, &header.key);
    if (content.empty()) continue;
    header.bytes = uint32_t(content.size());
    if (Outcome outcome = stream.send(&header, sizeof(header)); !outcome.ok()) return outcome;
    if (Outcome outcome = stream.send(content.data(), content.size()); !outcome.ok()) return outcome;
    *bytes += content.size();
    pump();
  }
  const KeptHeader end;
  return stream.send(&end, sizeof(end));
}

Outcome receive_kept(Session& session, ByteStream& stream) {
  uint64_t slots = 0;
  if (Outcome outcome = stream.receive(&slots, sizeof(slots)); !outcome.ok()) return outcome;
  if (slots > kContentSlotsMax) return Outcome::fail("the source keeps more contents than there may be");
  if (slots > session.contents().slots()) session.contents().allow(uint32_t(slots));
  if (slots > session.contents().slots())
    return Outcome::fail("there is no memory for the contents that the source keeps");
  while (true) {
    KeptHeader header;
    if (Outcome outcome = stream.receive(&header, sizeof(header)); !outcome.ok()) return outcome;
    if (header.slot == kNoContent) return {};
    std::byte* const place = session.contents().put({header.slot, header.key}, header.bytes);
    if (place == nullptr) return Outcome::fail("a piece of content that the source keeps finds no room");
    if (Outcome outcome = stream.receive(place, header.bytes); !outcome.ok()) return outcome;
  }
}

}  // namespace

TransferHello hello_of(const ControlSession& session, const uint8_t* token, uint64_t epoch) {
  TransferHello hello;
  memcpy(hello.job, session.job, sizeof(hello.job));
  memcpy(hello.token, token, sizeof(hello.token));
  memcpy(hello.session, session.session, sizeof(hello.session));
  hello.vgpu = session.vgpu;
  hello.epoch = epoch;
  return hello;
}

Outcome greet_receiver(ByteStream& stream, const TransferHello& hello, std::string* offer, uint32_t timeout_ms) {
  if (Outcome outcome = stream.send(&hello, sizeof(hello)); !outcome.ok()) return outcome;
  if (Outcome outcome = stream.flush(); !outcome.ok()) return outcome;
  return await_verdict(stream, timeout_ms, offer);
}

Outcome send_session(Session& session, const SessionMark& mark, ByteStream& to, const std::function<void()>& pump,
                     uint64_t* bytes) {
  const TransferOutline outline{.sequence = session.sequence(),
                                .told = session.told(),
                                .objects = uint32_t(session.objects().size()),
                                .shares_host_memory = session.host_memory().shares() ? 1u : 0u,
                                .recovery = mark.recovery};
  if (Outcome outcome = to.send(&outline, sizeof(outline)); !outcome.ok()) return outcome;
  PieceWriter stream(to, mark.there);
  const std::vector<std::byte> state = write_state(session);
  const uint64_t state_bytes = state.size();
  if (Outcome outcome = stream.send(&state_bytes, sizeof(state_bytes)); !outcome.ok()) return outcome;
  if (Outcome outcome = stream.send(state.data(), state.size()); !outcome.ok()) return outcome;
  // Each in pieces of its own, which are the same the next time.
  for (const ImageBytes& image : images_of(session)) {
    pump();
    if (Outcome outcome = stream.flush(); !outcome.ok()) return outcome;
    if (Outcome outcome = stream.send(image->data(), image->size()); !outcome.ok()) return outcome;
  }
  if (Outcome outcome = stream.flush(); !outcome.ok()) return outcome;
  *bytes = 0;
  const std::vector<MemoryRange> zeroed = session.host_memory().own_ranges();
  if (Outcome outcome = send_contents(session, stream, zeroed, true, pump, bytes); !outcome.ok()) return outcome;
  // A new image's globals have their initial values, not zero.
  if (Outcome outcome = send_contents(session, stream, image_ranges(session), false, pump, bytes); !outcome.ok()) {
    return outcome;
  }
  if (Outcome outcome = send_arrays(session, stream, pump, bytes); !outcome.ok()) return outcome;
  if (Outcome outcome = send_kept(session, stream, pump, bytes); !outcome.ok()) return outcome;
  return stream.end();
}

Outcome await_restored(ByteStream& stream, bool* stays) {
  std::string words;
  const Outcome outcome = await_verdict(stream, kRestoreMs, &words);
  if (stays != nullptr) *stays = outcome.ok() && words == kStaysWord;
  return outcome;
}

Outcome hear_hello(ByteStream& stream, const TransferHello& expected) {
  TransferHello hello;
  if (Outcome outcome = stream.receive(&hello, sizeof(hello), kHelloMs); !outcome.ok()) return outcome;
  if (hello.magic == expected.magic && hello.version != expected.version) {
    const Outcome outcome = Outcome::fail(versions_differ({"the source's worker", hello.version},
                                                          {"this worker", expected.version}, "protocol of moves"));
    if (Outcome sent = send_verdict(stream, outcome); !sent.ok()) return sent;
    return outcome;
  }
  const bool same = hello.magic == expected.magic && hello.vgpu == expected.vgpu &&
                    hello.reserved == expected.reserved && hello.epoch == expected.epoch &&
                    memcmp(hello.job, expected.job, sizeof(hello.job)) == 0 &&
                    memcmp(hello.session, expected.session, sizeof(hello.session)) == 0 &&
                    same_secret(hello.token, expected.token, sizeof(hello.token));
  if (same) return {};
  const Outcome outcome = Outcome::fail("this receiver waits for another vGPU");
  if (Outcome sent = send_verdict(stream, outcome); !sent.ok()) return sent;
  return outcome;
}

Outcome agree(ByteStream& stream, const TransferOffer& offer) {
  std::string words = offer.slots == nullptr ? "" : offer.slots->offer();
  if (offer.returns) words += returns_words(offer.done);
  if (offer.knows) words += std::string("\n") + kKnowsWord;
  return send_verdict(stream, {}, words);
}

Outcome greet_sender(ByteStream& stream, const TransferHello& expected, const TransferOffer& offer) {
  const Outcome outcome = hear_hello(stream, expected);
  return outcome.ok() ? agree(stream, offer) : outcome;
}

namespace {

Outcome receive_chunks(Session& session, ByteStream& stream, const ChunkWays& ways, Shelf* shelf) {
  MemoryTaker memory(session.library(), session.memory(), session.streams(), shelf);
  const Outcome outcome = memory.start(ways.slots);
  return outcome.ok() ? receive_chunks(stream, ways, memory) : outcome;
}

Outcome receive_state(Session& session, ByteStream& stream) {
  uint64_t bytes = 0;
  if (Outcome outcome = stream.receive(&bytes, sizeof(bytes)); !outcome.ok()) return outcome;
  if (bytes > kStateBytesMax) return Outcome::fail("the state is too large");
  std::vector<std::byte> state(bytes);
  if (Outcome outcome = stream.receive(state.data(), bytes); !outcome.ok()) return outcome;
  StateOutline outline;
  if (Outcome outcome = read_outline(state, &outline); !outcome.ok()) return outcome;
  std::vector<ImageBytes> images;
  for (const uint64_t size : outline.image_bytes) {
    images.push_back(std::make_shared<std::vector<std::byte>>(size));
    if (Outcome outcome = stream.receive(images.back()->data(), size); !outcome.ok()) return outcome;
  }
  return restore_state(session, state, images);
}

}  // namespace

Outcome receive_session(Session& session, ByteStream& from, const ChunkWays& ways, Shelf* shelf) {
  if (Outcome outcome = receive_chunks(session, from, ways, shelf); !outcome.ok()) return outcome;
  TransferOutline outline;
  if (Outcome outcome = from.receive(&outline, sizeof(outline)); !outcome.ok()) return outcome;
  session.set_sequence(outline.sequence);
  session.set_told(outline.told);
  session.set_recovery(outline.recovery);
  PieceReader stream(from);
  if (Outcome outcome = receive_state(session, stream); !outcome.ok()) return outcome;
  // What is replayed must not run into what is copied.
  session.contexts().use(0);
  session.driver().cuCtxSynchronize();
  if (Outcome outcome = receive_contents(session, stream); !outcome.ok()) return outcome;
  if (Outcome outcome = receive_contents(session, stream); !outcome.ok()) return outcome;
  if (Outcome outcome = receive_arrays(session, stream); !outcome.ok()) return outcome;
  if (Outcome outcome = receive_kept(session, stream); !outcome.ok()) return outcome;
  if (Outcome outcome = stream.end(); !outcome.ok()) return outcome;
  restore_references(session);
  return {};
}

}  // namespace tide
