#pragma once

// What takes parcels to the far side, in order and whole: one for each transport that has no common memory. Used by
// one thread at a time (ReplicaLink locks), except where said.

#include <cstdint>

#include "transport/replica.h"

namespace tide {

class Carrier {
 public:
  virtual ~Carrier() = default;

  // Takes in what has come and gives it to replica->apply(); never blocks. True if anything happened.
  virtual bool progress(Replica* replica) = 0;
  // Whether send() may be called now.
  virtual bool may_send() = 0;
  // The parcel's header and entries are copied; its ring bytes stay where they are.
  virtual void send(const Parcel& parcel) = 0;
  // Whether all that was sent has left.
  virtual bool idle() = 0;
  // How many parcels have been applied so far.
  virtual uint64_t applied() const = 0;
  // To sleep: arm(), and if it returns true, poll fd() for reading, at most due_us().
  virtual bool arm() = 0;
  virtual int fd() const = 0;  // any thread
  virtual uint32_t due_us() { return ~uint32_t{0}; }
  // Null while all is well; else why the connection is of no use.
  virtual const char* failure() const = 0;
};

}  // namespace tide
