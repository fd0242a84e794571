#include "server/copy_landings.h"

#include <algorithm>
#include <cstring>

#include "calls.h"
#include "server/session.h"
#include "transport/lent.h"

namespace tide {
namespace {

constexpr size_t kLandedMost = 64;  // more than the ring has room for

}  // namespace

uint64_t CopyLandings::head_bytes(const CommandHeader& header) {
  const bool large = header.payload_bytes >= command::kCopyInDataOffset + kLentBytesLeast;
  return header.call == uint16_t(Call::tideCopyIn) && large ? command::kCopyInDataOffset : 0;
}

void CopyLandings::drop(Landed* landed) {
  if (landed->piece) session_.staging().give_back(landed->piece);
  landed->piece = {};
}

bool CopyLandings::begin(const CommandHeader& header, const std::byte* head) {
  // The connection broke in the middle of it.
  while (!landed_.empty() &&
         (landed_.back().come != landed_.back().bytes || landed_.back().sequence >= header.sequence)) {
    drop(&landed_.back());
    landed_.pop_back();
  }
  command::CopyIn command;
  memcpy(&command, head, sizeof command);
  const Rectangle r{command.pitch, command.width, command.height};
  const uint64_t bytes = header.payload_bytes - command::kCopyInDataOffset;
  if (header.sequence <= session_.sequence() || landed_.size() >= kLandedMost ||
      !valid(session_, command.destination, r) || r.bytes() != bytes || bytes > kStagingPieceMax)
    return false;
  Landed landed;
  landed.sequence = header.sequence;
  landed.bytes = bytes;
  landed.to = command.destination;
  landed.context = header.context;
  if (!is_its_turn(header, command, &landed.stream)) {
    landed.piece = session_.staging().take(bytes);
    if (!landed.piece) return false;
  }
  landed_.push_back(landed);
  return true;
}

bool CopyLandings::is_its_turn(const CommandHeader& header, const command::CopyIn& command, CUstream* stream) const {
  const auto is_there = [](const Landed& each) { return each.there == each.bytes; };
  if (!allowed_ || session_.library().write_now == nullptr || session_.failed() || session_.graphs().building() ||
      header.sequence != session_.sequence() + 1 + landed_.size() ||
      !std::all_of(landed_.begin(), landed_.end(), is_there))
    return false;
  const Rectangle r{command.pitch, command.width, command.height};
  if (!r.contiguous() || session_.host_memory().covers(command.destination, 1)) return false;
  return session_.contexts().use(header.context) == CUDA_SUCCESS &&
         session_.streams().enter(header.stream, stream) == CUDA_SUCCESS &&
         session_.driver().cuStreamQuery(*stream) == CUDA_SUCCESS;
}

void CopyLandings::put(uint64_t at, const std::byte* from, uint64_t bytes) {
  Landed& landed = landed_.back();
  landed.come += bytes;
  // What began in device memory ends in staging memory, if the session is put to rest meanwhile.
  if (!landed.piece && !allowed_) landed.piece = session_.staging().take(landed.bytes, true);
  if (!landed.piece && landed.result == CUDA_SUCCESS && write(&landed, at, from, bytes)) return;
  if (landed.result != CUDA_SUCCESS) return;
  if (!landed.piece) landed.piece = session_.staging().take(landed.bytes, true);
  memcpy(landed.piece.data + at, from, bytes);
  staged_ += bytes;
}

// False: not now, or not at all.
bool CopyLandings::write(Landed* landed, uint64_t at, const std::byte* from, uint64_t bytes) {
  CUresult result = session_.contexts().use(landed->context);
  while (result == CUDA_SUCCESS && bytes > 0) {
    const uint64_t n = std::min<uint64_t>(bytes, kWriteNowMax);
    result = session_.library().write_now(landed->to + at, from, n, landed->stream);
    if (result != CUDA_SUCCESS) break;
    landed->there += n;
    direct_ += n;
    at += n, from += n, bytes -= n;
  }
  if (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY) landed->result = result;
  return result == CUDA_SUCCESS;
}

bool CopyLandings::take(uint64_t sequence, Landed* landed) {
  // Of commands that were refused before they came to be copies.
  for (; !landed_.empty() && landed_.front().sequence < sequence; landed_.pop_front()) drop(&landed_.front());
  if (landed_.empty() || landed_.front().sequence != sequence) return false;
  *landed = landed_.front();
  landed_.pop_front();
  if (landed->come == landed->bytes) return true;
  drop(landed);
  return false;
}

}  // namespace tide
