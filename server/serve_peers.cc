// Commands of copies between vGPUs: where others fetch this one's memory, and fetching theirs.

#include <cstring>
#include <span>

#include "api/payload.h"
#include "serve.h"
#include "server/rectangle.h"
#include "transport/door.h"

namespace tide {

CUresult serve_tidePeerAddress(Session& session, const command::PeerAddress&, Received& q, Outputs&) {
  PeerAddressAnswer answer;
  const Outcome outcome = session.peer_source().address(&answer.peer);
  answer.ok = outcome.ok() ? 1 : 0;
  set_text(answer.message, outcome.message().substr(0, sizeof answer.message - 1));
  AnswerHeader header;
  header.kind = uint16_t(AnswerKind::kData);
  header.sequence = q.header().sequence;
  session.outbox().record(header, std::as_bytes(std::span(&answer, 1)));
  return CUDA_SUCCESS;
}

CUresult serve_tideFetch(Session& session, const command::Fetch& command, Received& q, Outputs&) {
  uint64_t span = 0;
  const Rectangle to{command.destination_pitch, command.width, command.height};
  const Rectangle from{command.source_pitch, command.width, command.height};
  FetchOrder order;
  if (command.bytes != sizeof order.peer) return kMalformed;
  if (!valid(session, command.destination, to) || !from.span(&span)) return CUDA_ERROR_INVALID_VALUE;
  CUstream stream = nullptr;
  const uint32_t slot = q.header().stream;
  if (const CUresult result = session.streams().enter(slot, &stream); result != CUDA_SUCCESS) return result;
  memcpy(&order.peer, q.tail().data(), sizeof order.peer);
  order.to = command.destination, order.to_pitch = command.destination_pitch;
  order.from = command.source, order.from_pitch = command.source_pitch;
  order.width = command.width, order.height = command.height;
  std::shared_ptr<Fetch> fetch = session.peer_fetcher().start(order);
  if (fetch == nullptr) return kAgain;
  session.streams().fetch(slot, q.header().sequence, std::move(fetch));
  return CUDA_SUCCESS;
}

}  // namespace tide
