#include "scheduler/port.h"

#include "base/log.h"
#include "scheduler/remote_error.h"

namespace tide::sched {

namespace {
constexpr auto kAcceptPause = 100 * kj::MILLISECONDS;
}

Port::Place::Place(Port& port)
    : port_(port),
      among_strangers_(port.strangers_.insert(port.strangers_.end(), this)),
      sent_away_(kj::newPromiseAndFulfiller<void>()) {
  ++port_.connections_;
}

Port::Place::~Place() {
  known();
  --port_.connections_;
}

void Port::Place::known() {
  if (!known_) port_.strangers_.erase(among_strangers_);
  known_ = true;
}

Port::Port(const char* name, kj::Timer& timer, uint32_t connections_max)
    : name_(name), timer_(timer), connections_max_(connections_max), tasks_(*this) {}

void Port::taskFailed(kj::Exception&& exception) {
  log(LogLevel::kDebug, "a connection at the %s ended: %s", name_, exception.getDescription().cStr());
}

void Port::listen(kj::Own<kj::ConnectionReceiver> receiver, Serve serve) {
  receiver_ = kj::mv(receiver);
  serve_ = kj::mv(serve);
  tasks_.add(accept());
}

// Out of descriptors, say: who waits at the port waits a little longer.
kj::Promise<void> Port::accept() {
  auto taken = kj::evalNow([this] { return receiver_->accept(); }).then([this](kj::Own<kj::AsyncIoStream> stream) {
    cannot_accept_ = false;
    take(kj::mv(stream));
  });
  auto or_later = taken.catch_([this](kj::Exception&& e) {
    const std::string why = system_error(e);
    if (!cannot_accept_) log(LogLevel::kWarning, "the %s cannot take a connection: %s", name_, why.c_str());
    cannot_accept_ = true;
    return timer_.afterDelay(kAcceptPause);
  });
  return or_later.then([this] { return accept(); });
}

void Port::take(kj::Own<kj::AsyncIoStream> stream) {
  const bool crowded = strangers_.size() >= kPortStrangersMax || connections_ >= connections_max_;
  if (crowded && !make_room()) {
    if (!full_) log(LogLevel::kWarning, "the %s has %u connections, its limit; others are closed", name_, connections_);
    full_ = true;
    return;
  }
  full_ = full_ && crowded;
  auto place = std::make_shared<Place>(*this);
  auto served = serve_(kj::mv(stream), place);
  tasks_.add(served.exclusiveJoin(until_sent_away(*place)).attach(std::move(place)));
}

kj::Promise<void> Port::until_sent_away(Place& place) {
  auto silent = timer_.afterDelay(kPortSpeakMs * kj::MILLISECONDS).then([&place]() -> kj::Promise<void> {
    if (place.is_known()) return kj::NEVER_DONE;
    return kj::READY_NOW;
  });
  return kj::mv(place.sent_away_.promise).exclusiveJoin(kj::mv(silent));
}

bool Port::make_room() {
  if (strangers_.empty()) return false;
  Place& first = *strangers_.front();
  first.known();  // it leaves in the next turn of the loop; the next one to make room is another
  first.sent_away_.fulfiller->fulfill();
  return true;
}

}  // namespace tide::sched
