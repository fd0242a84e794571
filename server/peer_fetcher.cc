#include "server/peer_fetcher.h"

#include <chrono>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "server/rectangle.h"
#include "transport/door.h"

namespace tide {
namespace {

constexpr size_t kQueueMax = 1024;
constexpr uint32_t kConnectMs = 3'000;
constexpr uint32_t kPeerMs = 10'000;  // so long for a part
constexpr uint64_t kIdleNs = 3'000'000'000;

FetchAnswer fetch_answer(FetchState state, const std::string& message = {}) {
  FetchAnswer answer;
  answer.state = state;
  set_text(answer.message, message.substr(0, sizeof answer.message - 1));
  return answer;
}

FetchAnswer gone(const Outcome& outcome) { return fetch_answer(FetchState::kGone, outcome.message()); }

FetchAnswer receive_verdict(ByteStream& stream) {
  PeerVerdict verdict;
  if (Outcome outcome = stream.receive(&verdict, sizeof verdict, kPeerMs); !outcome.ok()) return gone(outcome);
  verdict.message[sizeof verdict.message - 1] = '\0';
  const bool known = verdict.state >= FetchState::kDone && verdict.state <= FetchState::kFailed;
  return fetch_answer(known ? verdict.state : FetchState::kFailed, verdict.message);
}

std::string name_of(const PeerAddress& peer) { return {reinterpret_cast<const char*>(&peer), sizeof peer}; }

}  // namespace

PeerFetcher::~PeerFetcher() {
  {
    const std::lock_guard lock(mu_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<Fetch> PeerFetcher::start(const FetchOrder& order) {
  auto fetch = std::make_shared<Fetch>();
  fetch->order = order;
  fetch->order.peer.address[kPeerAddressBytes - 1] = '\0';
  {
    const std::lock_guard lock(mu_);
    if (queue_.size() >= kQueueMax) return nullptr;
    queue_.push_back(fetch);
  }
  if (!thread_.joinable()) {
    context_ = contexts_.primary();
    if (!thread_.start([this] { run(); }).ok()) {
      const std::lock_guard lock(mu_);
      queue_.pop_back();
      return nullptr;
    }
  }
  wake_.notify_one();
  return fetch;
}

void PeerFetcher::run() {
  while (const std::shared_ptr<Fetch> fetch = next()) {
    fetch->answer = carry_out(fetch->order);
    fetch->over.store(true, std::memory_order_release);
    drop_idle(now_ns());
  }
  while (!connections_.empty()) drop(connections_.begin()->first);
}

// Null: the end. Connections that nobody used for a while are closed.
std::shared_ptr<Fetch> PeerFetcher::next() {
  std::unique_lock lock(mu_);
  const auto ready = [this] { return stop_ || !queue_.empty(); };
  while (!ready()) {
    if (connections_.empty()) {
      wake_.wait(lock);
    } else if (!wake_.wait_for(lock, std::chrono::nanoseconds(kIdleNs), ready)) {
      lock.unlock();
      drop_idle(now_ns());
      lock.lock();
    }
  }
  if (stop_) return nullptr;
  auto fetch = queue_.front();
  queue_.pop_front();
  return fetch;
}

void PeerFetcher::drop_idle(uint64_t now) {
  for (auto item = connections_.begin(); item != connections_.end();) {
    const auto this_one = item++;
    if (now - this_one->second.used_ns >= kIdleNs) drop(this_one->first);
  }
}

void PeerFetcher::drop(std::string name) {
  const auto item = connections_.find(name);
  if (item == connections_.end()) return;
  lane_->rest();
  item->second.stream->close();
  pins_.retire(std::move(item->second.slots));
  connections_.erase(item);
}

FetchAnswer PeerFetcher::carry_out(FetchOrder order) {
  if (lane_ == nullptr) {
    auto lane = std::make_unique<PeerLane>();
    if (Outcome outcome = lane->start(driver_, context_); !outcome.ok())
      return fetch_answer(FetchState::kFailed, outcome.message());
    lane_ = std::move(lane);
  }
  const Rectangle to{order.to_pitch, order.width, order.height}, from{order.from_pitch, order.width, order.height};
  if (to.contiguous() && from.contiguous()) {
    order.width *= order.height;
    order.height = 1;
  }
  const std::string name = name_of(order.peer);
  if (connections_.find(name) == connections_.end()) {
    Connection made;
    const FetchAnswer answer = connect(order.peer, &made);
    if (answer.state != FetchState::kDone) return answer;
    pins_.pin(*made.slots);
    connections_.emplace(name, std::move(made));
  }
  Connection& connection = connections_.find(name)->second;
  FetchAnswer answer = ask(connection, order);
  if (answer.state == FetchState::kDone) answer = take(connection, order);
  connection.used_ns = now_ns();
  // After a failure nobody knows what is still on its way.
  const bool clean =
      answer.state == FetchState::kDone || answer.state == FetchState::kMoving || answer.state == FetchState::kRefused;
  if (!clean) drop(name);
  return answer;
}

FetchAnswer PeerFetcher::connect(const PeerAddress& peer, Connection* connection) {
  if (Outcome outcome = connect_stream(peer.address, kConnectMs, &connection->stream); !outcome.ok())
    return fetch_answer(FetchState::kUnreachable, outcome.message());
  ByteStream& stream = *connection->stream;
  PeerHello hello;
  memcpy(hello.secret, peer.secret, sizeof hello.secret);
  set_text(hello.host, this_host_id());
  if (Outcome outcome = stream.send(&hello, sizeof hello, kConnectMs); !outcome.ok()) return gone(outcome);
  if (FetchAnswer answer = receive_verdict(stream); answer.state != FetchState::kDone) return answer;
  PeerSlotsOffer offer;
  if (Outcome outcome = stream.receive(&offer, sizeof offer, kConnectMs); !outcome.ok()) return gone(outcome);
  Outcome outcome = Outcome::fail("of another machine");
  if (offer.pid > 0) outcome = PeerSlots::map(offer.pid, offer.fd, offer.nonce, &connection->slots);
  connection->mapped = outcome.ok();
  if (!outcome.ok()) {
    if (offer.pid > 0)
      log(LogLevel::kInfo, "copies from another worker of this machine take UCX: %s", outcome.message().c_str());
    outcome = PeerSlots::make(&connection->slots);
  }
  return fetch_answer(outcome.ok() ? FetchState::kDone : FetchState::kFailed, outcome.message());
}

FetchAnswer PeerFetcher::ask(Connection& connection, const FetchOrder& order) {
  const PeerRequest request{order.from, order.from_pitch, order.width, order.height, connection.mapped ? 1u : 0u};
  if (Outcome outcome = connection.stream->send(&request, sizeof request, kPeerMs); !outcome.ok()) return gone(outcome);
  return receive_verdict(*connection.stream);
}

Outcome PeerFetcher::take_part(Connection& connection, uint32_t slot, const FetchOrder& order, const Part& part,
                               FetchAnswer* failed) {
  PeerPiece piece;
  ByteStream& stream = *connection.stream;
  if (Outcome outcome = stream.receive(&piece, sizeof piece, kPeerMs); !outcome.ok()) return outcome;
  if (piece.bytes == 0) {
    *failed = receive_verdict(stream);
    return Outcome::fail(failed->message);
  }
  if (piece.bytes != part.bytes()) return Outcome::fail("the source sends what was not asked for");
  std::byte* const bytes = connection.slots->at(slot);
  if (!connection.mapped) {
    if (Outcome outcome = stream.receive(bytes, part.bytes(), kPeerMs); !outcome.ok()) return outcome;
  }
  const Outcome outcome = lane_->begin(slot, bytes, order.to, order.to_pitch, part, true);
  if (!outcome.ok()) *failed = fetch_answer(FetchState::kFailed, outcome.message());
  return outcome;
}

// While the GPU copies a part, the next one comes. The source waits for a word on each before it uses its slot again.
FetchAnswer PeerFetcher::take(Connection& connection, const FetchOrder& order) {
  Parts parts(order.width, order.height, kPeerPieceBytes);
  uint64_t begun = 0, told = 0;
  FetchAnswer failed;
  const auto tell = [&]() -> Outcome {
    if (Outcome outcome = lane_->wait(told % kPeerSlots); !outcome.ok()) {
      failed = fetch_answer(FetchState::kFailed, outcome.message());
      return outcome;
    }
    const PeerTaken taken{told++};
    return connection.stream->send(&taken, sizeof taken, kPeerMs);
  };
  Outcome outcome;
  for (Part part; outcome.ok() && parts.next(&part);) {
    outcome = take_part(connection, begun++ % kPeerSlots, order, part, &failed);
    if (outcome.ok() && begun > 1) outcome = tell();
  }
  if (outcome.ok()) outcome = tell();
  if (outcome.ok()) return fetch_answer(FetchState::kDone);
  return failed.state != FetchState::kNone ? failed : gone(outcome);
}

}  // namespace tide
