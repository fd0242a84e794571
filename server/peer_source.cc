#include "server/peer_source.h"

#include <sys/random.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "base/log.h"
#include "base/secrets.h"
#include "base/versions.h"
#include "server/rectangle.h"
#include "transport/door.h"

namespace tide {
namespace {

constexpr size_t kConnectionsMax = 64;  // the other vGPUs of a job, once for each of its processes
constexpr uint32_t kAcceptMs = 500;
constexpr uint32_t kHelloMs = 5'000;
constexpr uint32_t kIdleMs = 60'000;  // the fetcher goes long before
constexpr uint32_t kPeerMs = 10'000;  // so long for a part

template <class T>
Outcome send_struct(ByteStream& stream, const T& value) {
  return stream.send(&value, sizeof value, kPeerMs);
}

Outcome send_verdict(ByteStream& stream, FetchState state, const std::string& message = {}) {
  PeerVerdict verdict;
  verdict.state = state;
  set_text(verdict.message, message.substr(0, sizeof verdict.message - 1));
  return send_struct(stream, verdict);
}

// The connection ends next, whether or not this arrives.
bool end_with(ByteStream& stream, FetchState state, const std::string& message) {
  const Outcome sent = send_verdict(stream, state, message);
  if (!sent.ok()) log(LogLevel::kDebug, "the end of a copy is not told: %s", sent.message().c_str());
  return false;
}

const char* why_not(FetchState state) {
  return state == FetchState::kMoving ? "the vGPU is about to move" : "there is no such device memory";
}

}  // namespace

PeerSource::~PeerSource() {
  stop_ = true;
  if (acceptor_.joinable()) acceptor_.join();
  for (Connection& connection : connections_) {
    connection.stream->close();
    connection.thread.join();
  }
}

Outcome PeerSource::address(PeerAddress* peer) {
  if (listener_ == nullptr) {
    std::string address;
    std::unique_ptr<StreamListener> listener;
    if (Outcome outcome = listen_stream(&address, &listener); !outcome.ok()) return outcome;
    if (!set_text(peer_.address, address)) return Outcome::fail("the address " + address + " is too long");
    if (getrandom(peer_.secret, sizeof peer_.secret, 0) != ssize_t(sizeof peer_.secret))
      return Outcome::fail("cannot get random bytes");
    context_ = contexts_.primary();
    listener_ = std::move(listener);
    if (Outcome outcome = acceptor_.start([this] { accept(); }); !outcome.ok()) {
      listener_ = nullptr;
      return outcome;
    }
  }
  *peer = peer_;
  return {};
}

bool PeerSource::close() {
  const std::lock_guard lock(mu_);
  closed_ = reads_ == 0;
  return closed_;
}

void PeerSource::open() {
  const std::lock_guard lock(mu_);
  closed_ = false;
}

FetchState PeerSource::begin_read(const PeerRequest& request) {
  uint64_t span = 0;
  const bool ours =
      Rectangle{request.pitch, request.width, request.height}.span(&span) && memory_.in_range(request.address, span);
  const std::lock_guard lock(mu_);
  if (!ours) return FetchState::kRefused;
  if (closed_) return FetchState::kMoving;
  ++reads_;
  return FetchState::kDone;
}

void PeerSource::end_read() {
  const std::lock_guard lock(mu_);
  --reads_;
}

void PeerSource::reap() {
  connections_.remove_if([](Connection& connection) {
    if (!connection.over) return false;
    connection.thread.join();
    return true;
  });
}

void PeerSource::accept() {
  while (!stop_) {
    std::unique_ptr<ByteStream> stream;
    const bool came = listener_->accept(kAcceptMs, &stream).ok();
    reap();
    if (!came || connections_.size() >= kConnectionsMax) continue;
    Connection& connection = connections_.emplace_back();
    connection.stream = std::move(stream);
    const Outcome started = connection.thread.start([this, &connection] {
      serve(connection);
      connection.stream->close();
      connection.over = true;
    });
    if (started.ok()) continue;
    log(LogLevel::kWarning, "another worker's copies are refused: %s", started.message().c_str());
    connection.stream->close();
    connections_.pop_back();
  }
}

void PeerSource::serve(Connection& connection) {
  Server server{*connection.stream, {}, nullptr};
  if (!greet(server)) return;
  pins_.pin(*server.slots);
  PeerRequest request;
  while (server.stream.receive(&request, sizeof request, kIdleMs).ok() && answer(server, request)) {
  }
  server.lane.rest();
  server.stream.close();  // until then UCX may read the slots
  pins_.retire(std::move(server.slots));
}

// Nothing is made for who does not know the secret.
bool PeerSource::greet(Server& server) {
  PeerHello hello;
  if (!server.stream.receive(&hello, sizeof hello, kHelloMs).ok()) return false;
  if (hello.magic == kPeerMagic && hello.version != kPeerVersion) {
    const std::string differ = versions_differ({"the fetching worker", hello.version}, {"the source", kPeerVersion});
    log(LogLevel::kWarning, "a worker that wanted memory of this vGPU was refused: %s", differ.c_str());
    return end_with(server.stream, FetchState::kRefused, differ);
  }
  if (hello.magic != kPeerMagic || !same_secret(hello.secret, peer_.secret, sizeof peer_.secret)) {
    log(LogLevel::kWarning, "a worker that wanted memory of this vGPU was refused: it does not know the secret");
    return end_with(server.stream, FetchState::kRefused, "the source gives nothing to this vGPU");
  }
  Outcome outcome = PeerSlots::make(&server.slots);
  if (outcome.ok()) outcome = server.lane.start(driver_, context_);
  if (!outcome.ok()) return end_with(server.stream, FetchState::kFailed, outcome.message());
  PeerSlotsOffer offer;
  hello.host[sizeof hello.host - 1] = '\0';
  if (hello.host[0] != '\0' && hello.host == this_host_id()) {
    offer.pid = getpid();
    offer.fd = server.slots->fd();
    memcpy(offer.nonce, server.slots->nonce(), sizeof offer.nonce);
  }
  return send_verdict(server.stream, FetchState::kDone).ok() && send_struct(server.stream, offer).ok();
}

// A rectangle on its way: while the stream carries a part, the GPU copies the next one.
class PeerSource::Giving {
 public:
  Giving(Server& server, const PeerRequest& request) : server_(server), request_(request) {}
  Outcome run();

 private:
  Outcome begin(const Part& part);
  Outcome send();
  Outcome await_taken();

  Server& server_;
  const PeerRequest& request_;
  uint64_t begun_ = 0, sent_ = 0, taken_ = 0;  // parts
  uint64_t bytes_[kPeerSlots] = {};            // of the part in each slot
};

Outcome PeerSource::Giving::begin(const Part& part) {
  if (begun_ - taken_ == kPeerSlots) {
    if (Outcome outcome = await_taken(); !outcome.ok()) return outcome;
  }
  const uint32_t slot = begun_++ % kPeerSlots;
  bytes_[slot] = part.bytes();
  return server_.lane.begin(slot, server_.slots->at(slot), request_.address, request_.pitch, part, false);
}

Outcome PeerSource::Giving::send() {
  const uint32_t slot = sent_++ % kPeerSlots;
  if (Outcome outcome = server_.lane.wait(slot); !outcome.ok()) return outcome;
  const Outcome outcome = send_struct(server_.stream, PeerPiece{bytes_[slot]});
  if (!outcome.ok() || request_.mapped != 0) return outcome;
  return server_.stream.send(server_.slots->at(slot), bytes_[slot], kPeerMs);
}

Outcome PeerSource::Giving::await_taken() {
  PeerTaken word;
  const Outcome outcome = server_.stream.receive(&word, sizeof word, kPeerMs);
  return outcome.ok() && word.part != taken_++ ? Outcome::fail("the fetcher takes what it was not sent") : outcome;
}

Outcome PeerSource::Giving::run() {
  Parts parts(request_.width, request_.height, kPeerPieceBytes);
  for (Part part; parts.next(&part);) {
    Outcome outcome = begin(part);
    if (outcome.ok() && begun_ > 1) outcome = send();
    if (!outcome.ok()) return outcome;
  }
  Outcome outcome = send();
  while (outcome.ok() && taken_ < begun_) outcome = await_taken();
  return outcome;
}

// False: the connection is of no use any more.
bool PeerSource::answer(Server& server, const PeerRequest& request) {
  const FetchState state = begin_read(request);
  if (state != FetchState::kDone) return send_verdict(server.stream, state, why_not(state)).ok();
  Outcome outcome = send_verdict(server.stream, FetchState::kDone);
  if (outcome.ok()) outcome = Giving(server, request).run();
  if (!outcome.ok()) server.lane.rest();  // a part may still be read
  end_read();
  if (outcome.ok()) return true;
  const Outcome sent = send_struct(server.stream, PeerPiece{});
  return sent.ok() && end_with(server.stream, FetchState::kFailed, outcome.message());
}

}  // namespace tide
