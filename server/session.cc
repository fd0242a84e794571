#include "server/session.h"

#include <array>
#include <cstring>

#include "base/limits.h"
#include "base/log.h"
#include "calls.h"
#include "serve.h"

namespace tide {
namespace {

struct Entry {
  const CallRow* row = nullptr;
  ServeFunction serve = nullptr;
};

// By call number, so that a command costs one load to find.
const std::array<Entry, kCallLimit>& entries() {
  static const auto* table = [] {
    auto* t = new std::array<Entry, kCallLimit>();
    for (uint16_t call = 0; call < kCallLimit; ++call) (*t)[call] = {find_call(call), find_serve(call)};
    return t;
  }();
  return *table;
}

// cuMemsetD8_v2 and its five sisters run on the default stream, which is the per-thread one for some programs: the
// same call on the stream that the command names does that, and does not wait.
bool is_plain_memset(uint16_t call) {
  return call >= uint16_t(Call::cuMemsetD8_v2) && call <= uint16_t(Call::cuMemsetD2D32_v2);
}
constexpr uint16_t kToAsync = uint16_t(Call::cuMemsetD8Async) - uint16_t(Call::cuMemsetD8_v2);
static_assert(uint16_t(Call::cuMemsetD2D32Async) - uint16_t(Call::cuMemsetD2D32_v2) == kToAsync);
constexpr uint32_t kMemsetPayloadMax = 64;

constexpr uint64_t kMalformedLogged = 5;
// More than that is not told ahead of a client that does not read: words wait, and one look serves for all of them.
constexpr uint64_t kToldUnreadMax = 1u << 20;

}  // namespace

bool is_sticky(CUresult result) {
  switch (result) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_UNKNOWN:
      return true;
    default:
      return false;
  }
}

Session::Session(const DriverLibrary& library)
    : library_(library),
      outbox_(staging_),
      streams_({library.calls, contexts_, staging_, outbox_,
                [this](CUresult result, uint64_t sequence) { raise(result, sequence); }}),
      events_(library.calls, contexts_),
      memory_(library, contexts_),
      host_memory_(library.calls, contexts_),
      libraries_(library, contexts_),
      arrays_(library, contexts_, memory_),
      graphs_(library.calls, contexts_, streams_),
      signals_(library.calls, contexts_),
      sharing_(memory_),
      peer_pins_(library.calls),
      peer_source_(library.calls, contexts_, memory_, peer_pins_),
      peer_fetcher_(library.calls, contexts_, peer_pins_) {
  outbox_.set_ahead([this](AnswerWriter& to) { return tell_host(to); });
}

Session::~Session() = default;

Outcome Session::start(uint32_t vgpu, uint64_t quota) {
  if (Outcome outcome = contexts_.start(library_.calls); !outcome.ok()) return outcome;
  staging_.start(library_.calls, contexts_);
  if (Outcome outcome = memory_.start(vgpu, quota); !outcome.ok()) return outcome;
  host_memory_.start(quota);
  contents_.allow(Contents::slots_wanted());
  libraries_.start(memory_.base() + kVgpuRangeBytes - kImageZoneBytes, kImageZoneBytes);
  return {};
}

void Session::attach(Link* link) {
  if (link != nullptr) link->land_commands_in(&landings_);
  far_client_ = link != nullptr && !link->shares_memory();
  outbox_.attach(link);
  host_memory_.attach(link);
  signals_.attach(link == nullptr ? nullptr : &link->region().client());
}

// The page with the signals is the same, and work may wait for one.
void Session::resume(Link* link) {
  link->land_commands_in(&landings_);
  far_client_ = !link->shares_memory();
  outbox_.attach(link);
  host_memory_.attach(link);
}

// What goes out from where it lies must not change before the client has it. These two change nothing.
bool Session::must_wait(const CommandHeader& next) {
  const bool changes = next.call != uint16_t(Call::tideCopyOut) && next.call != uint16_t(Call::tideEnd);
  if (!changes || !outbox_.lends_in_place()) return false;
  outbox_.in_place_gets_on();
  return outbox_.lends_in_place();
}

bool Session::execute(const CommandHeader& header, const std::byte* payload) {
  if (must_wait(header)) {
    settle();
    return false;
  }
  Received received(header, payload);
  Outputs answer;
  CUresult result = serve(received, answer);
  if (result == kAgain) return false;
  if (result == kMalformed) {
    // A client that sends nonsense shall not fill the disk.
    log(++malformed_ <= kMalformedLogged ? LogLevel::kWarning : LogLevel::kDebug,
        "command %llu (%s) is malformed and was refused", static_cast<unsigned long long>(header.sequence),
        call_name(header.call));
    result = CUDA_ERROR_INVALID_VALUE;
  }
  partial_ = 0;
  conclude(received, answer, result);
  sequence_ = header.sequence;
  if (failed_) streams_.reached(sequence_);
  return true;
}

CUresult Session::serve(Received& received, Outputs& answer) {
  const CommandHeader& header = received.header();
  const ServeFunction function = header.call < kCallLimit ? entries()[header.call].serve : nullptr;
  if (function == nullptr) return kMalformed;
  // The command that makes a context may name it already.
  const bool makes_context = header.call == uint16_t(Call::tideCreateContext);
  CUresult result = contexts_.use(makes_context ? 0 : header.context);
  CUstream stream = nullptr;
  if (result == CUDA_SUCCESS && header.stream != kNoStream && entries()[header.call].row->work) {
    result = streams_.enter(header.stream, &stream);
  }
  if (result != CUDA_SUCCESS && header.call == uint16_t(Call::tideLaunchGraph)) graphs_.abandon();
  if (result != CUDA_SUCCESS && header.call == uint16_t(Call::tideCopyInPacked)) keep_content(*this, received);
  if (result != CUDA_SUCCESS) return result;
  if (!is_plain_memset(header.call)) return function(*this, received, answer);
  if (header.payload_bytes > kMemsetPayloadMax) return kMalformed;
  alignas(8) std::byte payload[kMemsetPayloadMax + 8];
  memcpy(payload, received.payload().data(), header.payload_bytes);
  const uint64_t slot = header.stream;
  memcpy(payload + header.payload_bytes, &slot, sizeof(slot));
  CommandHeader changed = header;
  changed.payload_bytes += sizeof(slot);
  Received with_stream(changed, payload);
  return entries()[header.call + kToAsync].serve(*this, with_stream, answer);
}

void Session::conclude(const Received& received, const Outputs& answer, CUresult result) {
  const CommandHeader& header = received.header();
  const CallRow* row = header.call < kCallLimit ? entries()[header.call].row : nullptr;
  if (result == CUDA_SUCCESS && row != nullptr && row->keeps) {
    objects_.keep(header, received.payload(), received.library());
  }
  // Where a load does not get as far as its own answer, somebody waits all the same.
  const bool failed_load = result != CUDA_SUCCESS && header.call == uint16_t(Call::tideLoadLibrary);
  const bool answered = (header.flags & kCommandAnswer) != 0 || failed_load;
  if (result != CUDA_SUCCESS && (!answered || is_sticky(result))) raise(result, header.sequence);
  if (answered) {
    if (result == CUDA_SUCCESS && !answer.fits()) result = CUDA_ERROR_INVALID_VALUE;
    AnswerHeader reply;
    reply.kind = uint16_t(AnswerKind::kResult);
    reply.sequence = header.sequence;
    reply.result = result;
    outbox_.record(reply, result == CUDA_SUCCESS ? answer.payload() : std::vector<std::byte>());
  }
  if (row != nullptr && row->work && header.stream != kNoStream) finish_work(header, result);
}

void Session::finish_work(const CommandHeader& header, CUresult result) {
  if (header.stream >= kStreamSlots) return;
  if (result == CUDA_SUCCESS && header.call == uint16_t(Call::tideRecordEvent)) return;  // has its marker already
  CUstream stream = nullptr;
  if (result == CUDA_SUCCESS || streams_.enter(header.stream, &stream) == CUDA_SUCCESS) {
    streams_.worked(header.stream, header.sequence);
  } else {
    // No such stream: whoever waits for it must not wait for ever.
    streams_.tell_progress(header.stream, header.sequence);
  }
}

CUresult Session::replay(const Object& object) {
  CommandHeader header;
  header.call = object.call;
  header.context = object.context;
  header.stream = object.stream;
  header.payload_bytes = uint32_t(object.payload.size());
  Received received(header, object.payload.data());
  Outputs answer;
  replaying_ = true;
  const CUresult result = serve(received, answer);
  replaying_ = false;
  const CallRow* row = header.call < kCallLimit ? entries()[header.call].row : nullptr;
  if (result == CUDA_SUCCESS && row != nullptr && row->keeps) {
    objects_.keep(header, received.payload(), received.library());
  }
  return result;
}

// What work has changed of host memory goes ahead of the words that say that the work is done. One look is enough for
// all that is found to be done in one turn.
bool Session::tell_host(AnswerWriter& to) {
  if (!host_memory_.tells() || looked_at_ == streams_.completed()) return true;
  if (polling_ || outbox_.unread() > kToldUnreadMax || !host_memory_.tell(sequence_, to)) return false;
  looked_at_ = streams_.completed();
  return true;
}

void Session::tell_running() {
  if (!host_memory_.tells() || !streams_.has_pending()) return;
  if (AnswerWriter* const to = outbox_.read_up(); to != nullptr) host_memory_.tell(sequence_, *to);
}

bool Session::poll() {
  polling_ = true;
  bool any = streams_.poll();
  polling_ = false;
  if (any && streams_.idle()) signals_.forget();
  any |= events_.poll(streams_);
  if (memory_.has_condemned()) peer_source_.unless_read([this] { memory_.collect(streams_); });
  any |= outbox_.flush();
  if (peer_pins_.any_retired() && streams_.idle()) {
    contexts_.use(0);
    peer_pins_.unpin_retired();
  }
  return any;
}

void Session::raise(CUresult result, uint64_t sequence) {
  if (failed_) return;
  log(LogLevel::kInfo, "command %llu failed: %s", static_cast<unsigned long long>(sequence),
      error_text(library_.calls, result).c_str());
  error_ = uint64_t(result);
  ++errors_;
  outbox_.word(offsetof(WorkerPage, error_sequence), sequence);
  outbox_.word(offsetof(WorkerPage, error), error_);
  if (is_sticky(result)) {
    failed_ = true;
    outbox_.word(offsetof(WorkerPage, sticky), 1);
    streams_.fail_all();
  }
  outbox_.word(offsetof(WorkerPage, errors), errors_);
}

}  // namespace tide
