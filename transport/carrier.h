#pragma once

// What takes parcels to the far side, in order and whole: one for each transport that has no common memory. Used by
// one thread at a time (ReplicaLink locks), except where said.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/outcome.h"
#include "transport/replica.h"

namespace tide {

class Carrier {
 public:
  virtual ~Carrier() = default;
  virtual const char* name() const = 0;  // of the transport

  // Takes in what has come and gives it to replica->apply(); never blocks. True if anything happened.
  virtual bool progress(Replica* replica) = 0;
  // What one parcel may carry of the ring, at most kParcelRingBytesMax.
  virtual uint32_t ring_bytes_most() const { return kParcelRingBytes; }
  virtual bool lends() const { return false; }
  // Whether what comes of the ring can be put anywhere: apply() sees it first.
  virtual bool lands() const { return false; }
  // Where it has to know the memory that is lent (else it goes through the ring, which costs a copy): know_memory() may
  // take milliseconds, and does nothing where there is too little of what it takes. forget_memory() is called before
  // the memory goes; nothing of it is on its way then.
  virtual bool asks_for_memory() const { return false; }
  virtual void know_memory(const std::byte* base, uint64_t bytes, bool written) {
    (void)base, (void)bytes, (void)written;
  }
  virtual void forget_memory(const std::byte* base) { (void)base; }
  // Link::place_for(), and whether send() heeds Parcel::to of that connection of the far side.
  virtual RemotePlace place_for(const std::byte* to, uint64_t bytes) const {
    (void)to, (void)bytes;
    return {};
  }
  virtual bool writes_to(uint32_t connection) const {
    (void)connection;
    return false;
  }
  // Whether send() may be called now.
  virtual bool may_send() = 0;
  // The parcel's header and entries are copied; its ring bytes stay where they are: in the ring, or, if it lends(),
  // anywhere.
  virtual void send(const Parcel& parcel) = 0;
  // Whether all that was sent has left.
  virtual bool idle() = 0;
  // How many parcels have been applied so far.
  virtual uint64_t applied() const = 0;
  // To sleep: arm(), and if it returns true, poll fd() for reading, at most due_us().
  virtual bool arm() = 0;
  virtual int fd() const = 0;  // any thread
  virtual uint32_t due_us() { return ~uint32_t{0}; }
  // The worker's: what comes on the lifeline is for it, still.
  virtual bool reads_lifeline() const { return false; }
  // Null while all is well; else why the connection is of no use.
  virtual const char* failure() const = 0;

  // To choose between two (choice.h), before the first parcel: asks the far side for a sign, which it gives by itself,
  // and how many signs have come.
  virtual bool may_ping() { return false; }
  virtual void ping() {}
  virtual uint64_t pongs() const { return 0; }
  // It will not be used: destroying it need not wait for the far side.
  virtual void give_up() {}
  // Gives what it has of a device (queues, locked memory) back at once; failure() is not null from then on.
  virtual void release() {}
};

// How carriers of one transport come to be: a row of the table of transports (replica_link.h). The worker listens, and
// *data is what the client connects to. Neither waits for the other; the lifeline and the region stay the caller's.
struct CarrierKind {
  const char* name;
  std::function<Outcome(Region region, int lifeline, const std::string& data, std::unique_ptr<Carrier>* carrier)>
      connect;
  std::function<Outcome(Region region, int lifeline, std::string* data, std::unique_ptr<Carrier>* carrier)> listen;
  std::function<void()> prepare = {};  // link.h
};

}  // namespace tide
