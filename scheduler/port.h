#pragma once

// A port of the scheduler: takes the connections that come, so many and no more, and sees to it that those that have
// not said who they are keep nobody out. Lives on the kj event loop of the scheduler.

#include <kj/async-io.h>

#include <functional>
#include <list>
#include <memory>

namespace tide::sched {

inline constexpr uint32_t kPortStrangersMax = 256;  // of those, who have not said who they are
inline constexpr uint32_t kPortSpeakMs = 5000;      // who connects must have said it by then

class Port final : private kj::TaskSet::ErrorHandler {
 public:
  // One connection's place here; it is among the strangers until known().
  class Place {
   public:
    explicit Place(Port& port);
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    void known();
    bool is_known() const { return known_; }

   private:
    friend class Port;
    Port& port_;
    bool known_ = false;
    std::list<Place*>::iterator among_strangers_;
    kj::PromiseFulfillerPair<void> sent_away_;
  };
  // Serves one connection until the promise comes to its end, or the connection is sent away.
  using Serve = std::function<kj::Promise<void>(kj::Own<kj::AsyncIoStream> stream, std::shared_ptr<Place> place)>;

  // `name` is for the log.
  Port(const char* name, kj::Timer& timer, uint32_t connections_max);

  void listen(kj::Own<kj::ConnectionReceiver> receiver, Serve serve);
  uint32_t connections() const { return connections_; }

 private:
  kj::Promise<void> accept();
  void take(kj::Own<kj::AsyncIoStream> stream);
  kj::Promise<void> until_sent_away(Place& place);
  bool make_room();
  void taskFailed(kj::Exception&& exception) override;

  const char* const name_;
  kj::Timer& timer_;
  const uint32_t connections_max_;
  uint32_t connections_ = 0;
  bool full_ = false, cannot_accept_ = false;  // said once
  std::list<Place*> strangers_;                // the one that has waited longest first
  kj::Own<kj::ConnectionReceiver> receiver_;
  Serve serve_;
  kj::TaskSet tasks_;  // last: connections fall first
};

}  // namespace tide::sched
