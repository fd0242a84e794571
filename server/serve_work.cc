// Commands that put work on a stream: launches, copies, events, waits.

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "api/payload.h"
#include "serve.h"
#include "server/rectangle.h"

namespace tide {
namespace {

constexpr uint64_t kDataPieceBytes = 512u << 10;  // of one kData record
static_assert(kDataPieceBytes <= kPackedPieceMax);
constexpr uint32_t kAttributesMax = 32;
static_assert(sizeof(CUlaunchAttribute) == kLaunchAttributeBytes);

// Attributes that are plain values; the others name objects or addresses of the client.
bool plain_attribute(CUlaunchAttributeID id) {
  switch (id) {
    case CU_LAUNCH_ATTRIBUTE_IGNORE:
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:  // device addresses are the same on both sides
    case CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING:
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      return true;
    default:
      return false;
  }
}

}  // namespace

CUresult serve_tideLaunch(Session& session, const command::Launch& command, Received& q, Outputs&) {
  const KernelEntry* kernel = session.libraries().kernel(command.kernel);
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (command.attribute_count > kAttributesMax || command.param_bytes < kernel->param_bytes)
    return CUDA_ERROR_INVALID_VALUE;
  CUstream stream = nullptr;
  if (const CUresult result = session.streams().enter(q.header().stream, &stream); result != CUDA_SUCCESS)
    return result;
  const std::byte* params = q.tail().data() + command.attribute_count * kLaunchAttributeBytes;
  size_t param_bytes = command.param_bytes;
  std::vector<std::byte> own;
  if (session.graphs().building() && param_bytes != 0) {
    own.assign(params, params + param_bytes);
    session.graphs().put_handles(own);
    params = own.data();
  }
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, const_cast<std::byte*>(params), CU_LAUNCH_PARAM_BUFFER_SIZE,
                   &param_bytes, CU_LAUNCH_PARAM_END};
  const auto function = reinterpret_cast<CUfunction>(kernel->handle);
  if (command.attribute_count == 0 && command.cooperative == 0) {
    return session.driver().cuLaunchKernel(function, command.grid_x, command.grid_y, command.grid_z, command.block_x,
                                           command.block_y, command.block_z, command.shared_bytes, stream, nullptr,
                                           param_bytes == 0 ? nullptr : extra);
  }
  std::vector<CUlaunchAttribute> attributes(command.attribute_count);
  if (!attributes.empty()) memcpy(attributes.data(), q.tail().data(), attributes.size() * sizeof(CUlaunchAttribute));
  for (const CUlaunchAttribute& attribute : attributes) {
    if (!plain_attribute(attribute.id)) return CUDA_ERROR_NOT_SUPPORTED;
  }
  if (command.cooperative != 0) {
    CUlaunchAttribute attribute = {};
    attribute.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
    attribute.value.cooperative = 1;
    attributes.push_back(attribute);
  }
  if (session.driver().cuLaunchKernelEx == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  CUlaunchConfig config = {};
  config.gridDimX = command.grid_x, config.gridDimY = command.grid_y, config.gridDimZ = command.grid_z;
  config.blockDimX = command.block_x, config.blockDimY = command.block_y, config.blockDimZ = command.block_z;
  config.sharedMemBytes = command.shared_bytes;
  config.hStream = stream;
  config.attrs = attributes.data();
  config.numAttrs = unsigned(attributes.size());
  return session.driver().cuLaunchKernelEx(&config, function, nullptr, param_bytes == 0 ? nullptr : extra);
}

namespace {

Contents::Kept kept_of(const command::CopyInPacked& c) { return {c.slot, {c.key_low, c.key_high}}; }

// What lies in `piece` goes to the device; the piece is given back, at once or later.
CUresult copy_in(Session& session, uint32_t slot, uint64_t destination, const Rectangle& r, Staging::Piece piece) {
  CUstream stream = nullptr;
  CUresult result = valid(session, destination, r) ? session.streams().enter(slot, &stream) : CUDA_ERROR_INVALID_VALUE;
  if (result == CUDA_SUCCESS) {
    result = copy_rows(session.driver(), stream, destination, r, piece.data, true);
  }
  if (result == CUDA_SUCCESS) {
    session.streams().release(slot, piece);
    session.streams().copies(slot, r.bytes());
  } else {
    session.staging().give_back(piece);
  }
  return result;
}

// What came of it is in device memory from the front on, the rest in its piece.
CUresult finish_landed(Session& session, uint32_t slot, const Rectangle& r, const CopyLandings::Landed& landed) {
  if (landed.there == 0) return copy_in(session, slot, landed.to, r, landed.piece);
  if (landed.piece && landed.result == CUDA_SUCCESS) {
    CUstream stream = nullptr;
    CUresult result = session.streams().enter(slot, &stream);
    if (result == CUDA_SUCCESS) {
      result = session.driver().cuMemcpyHtoDAsync_v2(landed.to + landed.there, landed.piece.data + landed.there,
                                                     landed.bytes - landed.there, stream);
    }
    if (result != CUDA_SUCCESS) {
      session.staging().give_back(landed.piece);
      return result;
    }
    session.streams().release(slot, landed.piece);
  } else if (landed.piece) {
    session.staging().give_back(landed.piece);
  }
  if (landed.result == CUDA_SUCCESS) session.streams().copies(slot, r.bytes());
  return landed.result;
}

}  // namespace

CUresult serve_tideCopyIn(Session& session, const command::CopyIn& command, Received& q, Outputs&) {
  const Rectangle r{command.pitch, command.width, command.height};
  CopyLandings::Landed landed;
  if (session.landings().take(q.header().sequence, &landed))
    return finish_landed(session, q.header().stream, r, landed);
  if (!valid(session, command.destination, r) || r.bytes() > kStagingPieceMax) return CUDA_ERROR_INVALID_VALUE;
  const Staging::Piece piece = session.staging().take(r.bytes());
  if (!piece) {
    session.settle();
    return kAgain;
  }
  memcpy(piece.data, q.tail().data(), r.bytes());
  return copy_in(session, q.header().stream, command.destination, r, piece);
}

// What is to be kept is kept whether or not the copy can be made: the client counts on it.
void keep_content(Session& session, Received& q) {
  const auto* command = q.fixed<command::CopyInPacked>();
  if (command == nullptr || !q.take_tail(command::kCopyInPackedDataOffset, command->bytes)) return;
  const Rectangle r{command->pitch, command->width, command->height};
  uint64_t span = 0;
  if (!r.span(&span) || r.bytes() > kPackedPieceMax) return;
  session.contents().unpack(PackForm(command->form), kept_of(*command), q.tail(), nullptr, r.bytes());
}

CUresult serve_tideCopyInPacked(Session& session, const command::CopyInPacked& command, Received& q, Outputs&) {
  const Rectangle r{command.pitch, command.width, command.height};
  uint64_t span = 0;
  if (!r.span(&span) || r.bytes() > kPackedPieceMax) return kMalformed;
  const Staging::Piece piece = session.staging().take(r.bytes());
  if (!piece) {
    session.settle();
    return kAgain;
  }
  if (!session.contents().unpack(PackForm(command.form), kept_of(command), q.tail(), piece.data, r.bytes())) {
    session.staging().give_back(piece);
    return kMalformed;
  }
  return copy_in(session, q.header().stream, command.destination, r, piece);
}

namespace {

// The next piece of a copy out, from packed byte `at` on: rows where whole ones fit, else a part of one.
Rectangle piece_of(const Rectangle& r, uint64_t at, uint64_t* skip) {
  if (r.contiguous()) {
    *skip = at;
    return {0, std::min(kDataPieceBytes, r.bytes() - at), 1};
  }
  const uint64_t row = at / r.width, column = at % r.width;
  *skip = row * r.pitch + column;
  if (column != 0 || r.width > kDataPieceBytes) return {0, std::min(kDataPieceBytes, r.width - column), 1};
  return {r.pitch, r.width, std::min(r.height - row, std::max<uint64_t>(1, kDataPieceBytes / r.width))};
}

constexpr uint64_t kInPlaceMost = 4u << 20;  // what a command of another stream may have to wait for

enum class InPlace { kSent, kNotNow, kNotSo };

// From device memory itself, where the processor can read it, nothing is waiting behind this command, and the stream
// has nothing to do. Until the client has the bytes no other command is executed (Session::must_wait).
InPlace send_in_place(Session& session, const command::CopyOut& command, Received& q, const Rectangle& part,
                      uint64_t skip, uint64_t at) {
  Outbox& outbox = session.outbox();
  const uint64_t bytes = part.bytes(), from = command.source + skip;
  if (!session.may_lend_memory() || session.library().place_now == nullptr || session.failed() ||
      session.graphs().building() || command.connection != 0 || command.pack == uint32_t(PackMode::kOn) ||
      !part.contiguous() || bytes < kLentBytesLeast || session.host_memory().covers(from, 1))
    return InPlace::kNotSo;
  if (outbox.in_place() + bytes > kInPlaceMost) return outbox.in_place_gets_on() ? InPlace::kNotNow : InPlace::kNotSo;
  CUstream stream = nullptr;
  const void* place = nullptr;
  if (session.streams().enter(q.header().stream, &stream) != CUDA_SUCCESS ||
      session.library().place_now(from, bytes, stream, &place) != CUDA_SUCCESS)
    return InPlace::kNotSo;
  AnswerHeader header;
  header.kind = uint16_t(AnswerKind::kData);
  header.sequence = q.header().sequence;
  header.payload_bytes = uint32_t(bytes);
  header.offset = at;
  return outbox.data_in_place(header, static_cast<const std::byte*>(place)) ? InPlace::kSent : InPlace::kNotSo;
}

}  // namespace

CUresult serve_tideCopyOut(Session& session, const command::CopyOut& command, Received& q, Outputs&) {
  const Rectangle r{command.pitch, command.width, command.height};
  if (!valid(session, command.source, r)) return CUDA_ERROR_INVALID_VALUE;
  if (command.pack > uint32_t(PackMode::kOn)) return kMalformed;
  const uint32_t slot = q.header().stream;
  const Driver& driver = session.driver();
  uint64_t& at = session.partial();
  if (at == 0 && command.connection != 0) {
    session.outbox().land(q.header().sequence, {command.to, command.key, command.connection}, r.bytes());
  }
  const uint64_t began_at = at;
  while (at < r.bytes()) {
    uint64_t skip = 0;
    const Rectangle part = piece_of(r, at, &skip);
    const InPlace in_place = send_in_place(session, command, q, part, skip, at);
    if (in_place == InPlace::kNotNow) return kAgain;
    if (in_place == InPlace::kSent) {
      at += part.bytes();
      continue;
    }
    const Staging::Piece piece = session.staging().take(part.bytes());
    if (!piece) {
      // What was put just now shall come home, so that there is room for the rest.
      if (at != began_at) session.streams().worked(slot, q.header().sequence - 1);
      session.settle();
      return kAgain;
    }
    CUstream stream = nullptr;
    CUresult result = session.streams().enter(slot, &stream);
    if (result == CUDA_SUCCESS) {
      result = copy_rows(driver, stream, command.source + skip, part, piece.data, false);
    }
    if (result != CUDA_SUCCESS) {
      session.staging().give_back(piece);
      return result;
    }
    AnswerHeader header;
    header.kind = uint16_t(AnswerKind::kData);
    header.sequence = q.header().sequence;
    header.payload_bytes = uint32_t(part.bytes());
    header.offset = at;
    session.streams().deliver(slot, header, piece, PackMode(command.pack));
    at += part.bytes();
    if (session.streams().copies(slot, part.bytes()) && at < r.bytes()) {
      // This piece goes out while the next one is fetched.
      session.streams().worked(slot, q.header().sequence - 1);
      return kAgain;
    }
  }
  return CUDA_SUCCESS;
}

CUresult serve_tideCopyWithin(Session& session, const command::CopyWithin& command, Received& q, Outputs&) {
  const Rectangle from{command.source_pitch, command.width, command.height};
  const Rectangle to{command.destination_pitch, command.width, command.height};
  if (!valid(session, command.source, from) || !valid(session, command.destination, to))
    return CUDA_ERROR_INVALID_VALUE;
  CUstream stream = nullptr;
  if (const CUresult result = session.streams().enter(q.header().stream, &stream); result != CUDA_SUCCESS)
    return result;
  const bool host = session.host_memory().covers(command.source, 1) ||
                    session.host_memory().covers(command.destination, 1);  // the driver tells by the address
  session.streams().copies(q.header().stream, from.bytes());
  if (from.contiguous() && to.contiguous()) {
    return host ? session.driver().cuMemcpyAsync(command.destination, command.source, from.bytes(), stream)
                : session.driver().cuMemcpyDtoDAsync_v2(command.destination, command.source, from.bytes(), stream);
  }
  CUDA_MEMCPY2D copy = {};
  copy.srcMemoryType = copy.dstMemoryType = host ? CU_MEMORYTYPE_UNIFIED : CU_MEMORYTYPE_DEVICE;
  copy.srcDevice = command.source;
  copy.dstDevice = command.destination;
  copy.srcPitch = command.source_pitch;
  copy.dstPitch = command.destination_pitch;
  copy.WidthInBytes = command.width;
  copy.Height = command.height;
  return session.driver().cuMemcpy2DAsync_v2(&copy, stream);
}

CUresult serve_tideRecordEvent(Session& session, const command::RecordEvent& command, Received& q, Outputs&) {
  Events::Event* event = session.events().find(command.event);
  CUstream stream = nullptr;
  CUresult result = event == nullptr ? CUDA_ERROR_INVALID_HANDLE : session.streams().enter(q.header().stream, &stream);
  if (result == CUDA_SUCCESS) result = session.driver().cuEventRecord(event->handle, stream);
  if (result == CUDA_SUCCESS) {
    event->recorded = event->native = true;
    SharedRecord shared;
    if (event->shared != nullptr) shared = {event->shared, event->shared->begin(session.sharing().recorder())};
    session.streams().record_event(q.header().stream, command.event, q.header().sequence, std::move(shared));
  } else {
    // Whoever waits for it must not wait for ever; the error says what happened.
    session.streams().tell_event(command.event, q.header().sequence);
  }
  return result;
}

CUresult serve_tideWaitEvent(Session& session, const command::WaitEvent& command, Received& q, Outputs&) {
  const Events::Event* event = session.events().find(command.event);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!event->native) return CUDA_SUCCESS;  // never recorded, or complete since before a move
  CUstream stream = nullptr;
  if (const CUresult result = session.streams().enter(q.header().stream, &stream); result != CUDA_SUCCESS)
    return result;
  return session.driver().cuStreamWaitEvent(stream, event->handle, CU_EVENT_WAIT_DEFAULT);
}

CUresult serve_tideWaitSignal(Session& session, const command::WaitSignal& command, Received& q, Outputs&) {
  CUstream stream = nullptr;
  if (const CUresult result = session.streams().enter(q.header().stream, &stream); result != CUDA_SUCCESS)
    return result;
  return session.signals().wait(stream, command.slot, command.value);
}

CUresult serve_tideElapsed(Session& session, const command::Elapsed& command, Received&, Outputs& a) {
  float ms = 0;
  const CUresult result = session.events().elapsed(command.start, command.end, &ms);
  if (result == CUDA_SUCCESS) a.out<ElapsedAnswer>(1)->milliseconds = ms;
  return result;
}

}  // namespace tide
